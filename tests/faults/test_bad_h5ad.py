"""h5ad files that lie about their indices, name other files, or unpack to too much."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from ibma import twins
from ibma.errors import IbmaError
from ibma.formats import h5ad, raw


@pytest.fixture(scope="module")
def sections(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tissue")
    twins.write("tissue", folder)
    return folder / "hNB"


def put(file: h5py.File, name: str, value: object) -> None:
    del file[name]
    file[name] = value


def shifted(name: str, shift: int):
    return lambda file: put(file, name, file[name][()] + shift)


def at(name: str, place: int, value: float):
    def change(file: h5py.File) -> None:
        values = file[name][()]
        values[place] = value
        put(file, name, values)

    return change


def without(name: str):
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def linked(name: str, link: object):
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change


def stored_elsewhere(file: h5py.File) -> None:
    shape = file["obsm/spatial"].shape
    del file["obsm/spatial"]
    file.create_dataset(
        "obsm/spatial", shape, "f8", external=[("/etc/passwd", 0, 8 * np.prod(shape))]
    )


def virtual(file: h5py.File) -> None:
    shape = file["obsm/spatial"].shape
    layout = h5py.VirtualLayout(shape, "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape)
    del file["obsm/spatial"]
    file.create_virtual_dataset("obsm/spatial", layout)


def attribute(name: str, key: str, value: object):
    return lambda file: file[name].attrs.__setitem__(key, value)


CASES = {
    "indices out of range": (shifted("raw/X/indices", 10_000_000), "not the h5ad"),
    "one index out of range": (at("raw/X/indices", 3, 10_000), "not the h5ad"),
    "negative indices": (shifted("raw/X/indices", -1), "not the h5ad"),
    "one negative index": (at("raw/X/indices", 3, -5), "not the h5ad"),
    "an index twice": (
        lambda file: put(file, "raw/X/indices", file["raw/X/indices"][()] * 0), "of one gene"),
    "fractions as indices": (
        lambda file: put(file, "raw/X/indices", file["raw/X/indices"][()] + 0.5), "whole numbers"),
    "bounds that fall": (at("raw/X/indptr", 2, 10_000), "not the h5ad"),
    "bounds below zero": (at("raw/X/indptr", 0, -1), "not the h5ad"),
    "bounds beyond the data": (at("raw/X/indptr", -1, 10_000_000), "not the h5ad"),
    "few values": (lambda file: put(file, "raw/X/data", file["raw/X/data"][:5]), "not the h5ad"),
    "columns": (attribute("raw/X", "encoding-type", "csc_matrix"), "csc_matrix"),
    "another shape": (attribute("raw/X", "shape", [24, 3]), "not the h5ad"),
    "a shape below zero": (attribute("raw/X", "shape", [-24, 60]), "not the h5ad"),
    "NaN as count": (at("raw/X/data", 0, np.nan), "other than whole counts"),
    "infinity as count": (at("raw/X/data", 0, np.inf), "other than whole counts"),
    "a fraction as count": (at("raw/X/data", 0, 0.5), "other than whole counts"),
    "codes out of range": (shifted("raw/var/feature_name/codes", 10_000), "outside its categories"),
    "a negative code": (at("raw/var/feature_name/codes", 0, -1), "outside its categories"),
    "another flag": (at("obs/in_tissue", 0, 2), "in_tissue is not 0 or 1"),
    "too few spots": (lambda file: put(file, "obs/in_tissue", [1, 0]), "number of spots"),
    "a spot twice": (lambda file: put(file, "obs/_index", ["a"] * 24), "two spots have one name"),
    "a place of NaN": (at("obsm/spatial", 0, np.nan), "two finite numbers a spot"),
    "no table": (without("obs"), "not the h5ad"),
    "a soft link": (linked("obsm/spatial", h5py.SoftLink("/obs/in_tissue")), "a link"),
    "an external link": (linked("obsm/spatial", h5py.ExternalLink("/etc/passwd", "/")), "a link"),
    "a link nobody reads": (linked("X", h5py.ExternalLink("other.h5", "/")), "a link"),
    "external storage": (stored_elsewhere, "lies in another file"),
    "virtual data": (virtual, "lies in another file"),
    "a bomb": (
        lambda file: file.create_dataset(
            "uns/zeros", (1 << 15, 1 << 15), "f4", compression="gzip", chunks=(1 << 10, 1 << 10)),
        "unpacks to more than"),
}  # fmt: skip


def test_what_a_file_claims_is_checked_before_it_is_used(sections, tmp_path):
    path = tmp_path / "V03.h5ad"
    whole = h5ad.read(sections / "V03.h5ad", "ask")
    assert len(whole.spots) == 16 and whole.counts.values.shape[0] == 16
    for name, (change, told) in CASES.items():
        shutil.copy(sections / "V03.h5ad", path)
        with h5py.File(path, "a") as file:
            change(file)
        with pytest.raises(IbmaError) as caught:
            h5ad.read(path, "ask")
        line = str(caught.value)
        assert str(path) in line and "\n" not in line and told in line, (name, line)


def test_damaged_files_are_read_or_refused_in_one_line(sections, tmp_path):
    path = tmp_path / "V03.h5ad"
    good = (sections / "V03.h5ad").read_bytes()
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(60):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 20):
            bad[place] = rng.integers(256)
        path.write_bytes(bad[: int(len(bad) * rng.choice([1, 1, 0.9, 0.5]))])
        try:
            h5ad.read(path, "ask")
        except IbmaError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            count += 1
    assert count > 10
    for content in (b"", b"\x89HDF\r\n\x1a\n", raw.LFS_STUB):
        path.write_bytes(content)
        with pytest.raises(IbmaError, match="V03.h5ad"):
            h5ad.read(path, "ask")
