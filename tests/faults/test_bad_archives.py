"""Archives that are damaged, huge or lead elsewhere; paths in data that leave their folder."""

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ibma import files, twins
from ibma.datasets import chexpert
from ibma.errors import IbmaError
from ibma.files import inside
from ibma.formats import archives, raw


def tar(path: Path, *members: tuple[tarfile.TarInfo | str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as package:
        for member, content in members:
            entry = tarfile.TarInfo(member) if isinstance(member, str) else member
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    return path


def refused(archive: Path, target: Path) -> str:
    with pytest.raises(IbmaError) as caught:
        archives.unpack(archive, target)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert not target.exists() or not any(target.rglob("*")), "nothing was unpacked"
    return str(caught.value)


def test_a_flipped_byte_anywhere_in_an_archive_is_found(tmp_path):
    """Stored, not packed: only the checksum can tell that content has changed."""
    content = np.random.default_rng(0).bytes(4000)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as package:
        entry = tarfile.TarInfo("a/clip.wav")
        entry.size = len(content)
        package.addfile(entry, io.BytesIO(content))
    made = {"a.tar.gz": gzip.compress(plain.getvalue(), 0)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as package:
        package.writestr("a/clip.wav", content)
    made["a.zip"] = (tmp_path / "a.zip").read_bytes()
    for name, good in made.items():
        (tmp_path / name).write_bytes(good)
        archives.unpack(tmp_path / name, tmp_path / f"good {name}")
        start = good.index(content[:64])
        for place in range(start, start + len(content), 333):
            bad = bytearray(good)
            bad[place] ^= 1
            (tmp_path / name).write_bytes(bad)
            assert "broken archive" in refused(tmp_path / name, tmp_path / "in"), place
        for length in (0, 1, 10, len(good) // 2, len(good) - 5):
            (tmp_path / name).write_bytes(good[:length])
            refused(tmp_path / name, tmp_path / "in")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    zeros = bytes(1 << 20)
    tar(tmp_path / "a.tar.gz", *((f"{i}.wav", zeros) for i in range(3)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as package:
        for i in range(3):
            package.writestr(f"{i}.wav", zeros)
    for module, limit, value in ((files, "UNPACKED", 1 << 21), (raw, "MEMBERS", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            for name in ("a.tar.gz", "a.zip"):
                assert "nothing was unpacked" in refused(tmp_path / name, tmp_path / "in")
    archives.unpack(tmp_path / "a.zip", tmp_path / "whole")


def test_members_that_are_no_files_or_lead_out_are_refused(tmp_path):
    def special(kind: bytes, link: str = "") -> tarfile.TarInfo:
        entry = tarfile.TarInfo("odd")
        entry.type, entry.linkname = kind, link
        return entry

    odd = [
        *(special(kind) for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)),
        *(special(kind, "/etc/passwd") for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)),
        *map(tarfile.TarInfo, ("../out", "/out", "a/../../out", "..\\out")),
    ]
    for entry in odd:
        tar(tmp_path / "a.tar.gz", ("first", b"x"), (entry, b""))
        assert "refused" in refused(tmp_path / "a.tar.gz", tmp_path / "in"), entry
    for name in ("../out", "/out", "a/../../out"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as package:
            package.writestr("first", "x")
            package.writestr(name, "x")
        assert "refused" in refused(tmp_path / "a.zip", tmp_path / "in"), name
    assert not (tmp_path / "out").exists()
    os.mkfifo(tmp_path / "pipe.zip")
    assert "expected a file" in refused(tmp_path / "pipe.zip", tmp_path / "in")


def test_paths_stay_inside_their_folder(tmp_path):
    for name in (
        "a",
        "a/b.jpg",
        "./a",
        "a//b",
        "...",
        "a..b/c",
        "CheXpert-v1.0 batch 2 (train 1)/a",
    ):
        assert inside(tmp_path, name).resolve().is_relative_to(tmp_path.resolve()), name
    for name in ("", "..", "../a", "a/../../b", "/etc/passwd", "a\0b", "..\\a", "\\a"):
        with pytest.raises(IbmaError, match="leads out of this folder: refused") as caught:
            inside(tmp_path, name)
        assert "\n" not in str(caught.value)


def test_a_table_cannot_name_a_picture_outside(tmp_path):
    twins.write("chexpert", tmp_path)
    table = tmp_path / "CheXpert-v1.0-small/train.csv"
    lines = table.read_text().splitlines()
    for path in ("x/../../../secret.jpg", "/a/b/c/secret.jpg", "x/train/../../secret.jpg"):
        _, comma, rest = lines[1].partition(",")
        table.write_text("\n".join([lines[0], path + comma + rest, *lines[2:]]) + "\n")
        with pytest.raises(IbmaError, match="leads out of this folder: refused"):
            list(chexpert.samples(tmp_path, on_bad="drop"))
