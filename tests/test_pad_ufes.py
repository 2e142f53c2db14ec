"""PAD-UFES-20: columns without the leak, folds by patient, photographs by name."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from conftest import MIRROR, needs

from ibma import fetch
from ibma.datasets import Dropped, pad_ufes
from ibma.errors import IbmaError

FIELDS = ["img_id", "patient_id", "diagnostic", "age", "region", "mask", "smoke", *pad_ufes.SIGNS]


def lesion(number: int, **changed: str) -> dict[str, str]:
    row = {"img_id": f"PAT_{number:02d}.png", "patient_id": f"PAT_{number // 2}", "mask": "1"}
    row |= {"diagnostic": list(pad_ufes.CLASSES)[number // 2 % 6], "age": "50", "region": "NECK"}
    return row | {"smoke": ""} | dict.fromkeys(pad_ufes.SIGNS, "False") | changed


@pytest.fixture
def raw(tmp_path):
    return lay_out(tmp_path)


def lay_out(folder: Path) -> Path:
    (folder / "images").mkdir()
    rows = [lesion(n) for n in reversed(range(60))]
    rows[-1] |= {"itch": "True", "grew": "UNK"}
    write(folder, [*rows, lesion(60, mask="0")])
    for row in rows:
        (folder / "images" / row["img_id"]).write_bytes(b"png")
    return folder


def write(raw: Path, rows: list[dict[str, str]]) -> None:
    with (raw / pad_ufes.METADATA).open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def test_a_name_that_leads_out_of_the_folder_is_refused(raw):
    (raw.parent / "secret.png").write_bytes(b"png")
    for name in ("../../secret.png", str(raw.parent / "secret.png")):
        write(raw, [*(lesion(n) for n in range(1, 60)), lesion(0, img_id=name)])
        for on_bad in ("stop", "drop"):
            with pytest.raises(IbmaError, match="leads out of this folder"):
                list(pad_ufes.samples(raw, on_bad=on_bad))


def test_lesions_come_in_the_order_of_their_names_and_patients_stay_in_one_fold(raw):
    found = list(pad_ufes.samples(raw))
    assert [one.id for one in found] == [f"PAT_{n:02d}.png" for n in range(60)]
    assert [one.label for one in found] == [n // 2 % 6 for n in range(60)]
    first = found[0].parts
    assert first["image"] == raw / "images/PAT_00.png"
    assert first["history"][0] == 0.5 and len(first["history"]) == 1 + 14 + 6
    assert sum(first["history"][1:15]) == 1 and first["history"][15:] == (1, 0, -1, -1, -1, -1)
    folds = {(one.group, one.split) for one in found}
    assert len(folds) == 30 and {split for _, split in folds} == {f"fold{k}" for k in range(5)}


def test_a_missing_photograph_stops_or_is_dropped_and_other_values_are_named(raw):
    (raw / "images/PAT_07.png").unlink()
    with pytest.raises(IbmaError, match=r"PAT_07.png: missing, metadata.csv names it: run `dvc"):
        list(pad_ufes.samples(raw))
    assert Dropped("PAT_07.png", "no photograph") in list(pad_ufes.samples(raw, on_bad="drop"))
    for wrong, said in (
        ({"itch": "maybe"}, "itch"),
        ({"age": "-3"}, "age"),
        ({"region": "X"}, "region"),
    ):
        write(raw, [lesion(0, **wrong)])
        with pytest.raises(IbmaError, match=f"metadata.csv: line 2: .*{said}"):
            list(pad_ufes.samples(raw))


def test_too_few_lesions_or_patients_for_five_folds_are_one_line(raw):
    for count, told in ((0, "0 lesions of class BCC"), (6, "2 lesions of class BCC")):
        write(raw, [*(lesion(n) for n in range(count)), lesion(60, mask="0")])
        with pytest.raises(IbmaError, match=rf"metadata.csv: {told} with mask 1: expected 5 or"):
            list(pad_ufes.samples(raw, on_bad="drop"))
    write(raw, [lesion(n, patient_id=f"PAT_{n % 4}") for n in range(60)])
    with pytest.raises(IbmaError, match=r"metadata.csv: 4 patients with mask 1: expected 5 or"):
        list(pad_ufes.samples(raw))


@needs("github/sanderengel")
@pytest.mark.slow
def test_the_real_files_have_the_published_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("IBMA_MIRROR", str(MIRROR))
    fetch.dataset("pad_ufes", "real", tmp_path)
    found = list(pad_ufes.samples(tmp_path))
    counts = Counter(pad_ufes.CARD.classes[one.label] for one in found)
    assert list(counts.values()) and sum(counts.values()) == 686
    assert [counts[name] for name in pad_ufes.CARD.classes] == [194, 182, 131, 114, 43, 22]
    assert len({one.group for one in found}) == 537
    by_fold = Counter(one.split for one in found)
    assert len(by_fold) == 5 and min(by_fold.values()) > 120
