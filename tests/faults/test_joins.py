"""Joins that match nothing name the first key of each side; joins that match go on."""

import csv
import gzip
import pickle
import zipfile
from pathlib import Path

import pytest

from ibma import twins
from ibma.datasets import chexpert, mimic_cxr, mosi
from ibma.errors import IbmaError
from ibma.formats.tabular import refuse_no_match


def refused(module, folder: Path, **options) -> str:
    lines = []
    for on_bad in ("stop", "drop"):
        with pytest.raises(IbmaError) as caught:
            list(module.samples(folder, on_bad=on_bad, **options))
        lines.append(str(caught.value))
    assert lines[0] == lines[1] and "\n" not in lines[0]
    return lines[0]


def test_the_first_key_of_each_side_is_named():
    refuse_no_match(["x", "b"], {"a", "b"}, ("left", "right"), "ask")
    refuse_no_match([], {"a"}, ("left", "right"), "ask")
    told = "^right: nothing in it matches left: there the first is 'x', here 'a': ask$"
    with pytest.raises(IbmaError, match=told):
        refuse_no_match(["x", "y"], ["a", "b"], ("left", "right"), "ask")
    with pytest.raises(IbmaError, match="here nothing: ask"):
        refuse_no_match(["x"], [], ("left", "right"), "ask")


def test_reports_whose_paths_are_written_another_way_are_not_taken_for_none(tmp_path):
    """178 of 178 reports became empty texts."""
    twins.write("chexpert", tmp_path)
    path = tmp_path / chexpert.REPORTS
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for change in (lambda p: f"CheXpert-v1.0/{p}", lambda p: p.replace(".jpg", ".png")):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"path_to_image": change(row["path_to_image"])} for row in rows)
        line = refused(chexpert, tmp_path)
        key = rows[0]["path_to_image"]
        assert line.startswith(f"{path}: nothing in it matches") and line.count(f"'{key}'") == 1
        assert f"'{change(key)}'" in line
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*rows, rows[5] | {"section_findings": "another"}])
    assert "a second report of" in refused(chexpert, tmp_path)


def test_mimics_reports_labels_and_views_of_other_studies_are_refused(tmp_path):
    twins.write("mimic_cxr", tmp_path)
    reports = tmp_path / "mimic-cxr/2.1.0/mimic-cxr-reports.zip"
    good = reports.read_bytes()
    with zipfile.ZipFile(reports) as package:
        names = package.namelist()
    with zipfile.ZipFile(reports, "w") as package:
        package.writestr(f"mimic-cxr/{names[0]}", "words")
    line = refused(mimic_cxr, tmp_path)
    assert f"here 'mimic-cxr/{names[0]}'" in line and f"'{names[0]}'" in line
    damaged = bytearray(good)
    with zipfile.ZipFile(reports, "w", zipfile.ZIP_STORED) as package:
        for name in names:
            package.writestr(name, "FINDINGS: clear")
    damaged = reports.read_bytes().replace(b"FINDINGS: clear", b"FINDINGS: clean", 1)
    reports.write_bytes(damaged)
    found = list(mimic_cxr.samples(tmp_path, on_bad="drop"))
    assert [e.reason for e in found if "damaged" in getattr(e, "reason", "")]
    with pytest.raises(IbmaError, match="damaged .*CRC.*: fetch it again or set on_bad: drop"):
        list(mimic_cxr.samples(tmp_path))
    reports.write_bytes(good)
    for name, told in (("chexpert", "labels"), ("metadata", "views")):
        path = tmp_path / f"mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0-{name}.csv.gz"
        before = path.read_bytes()
        path.write_bytes(gzip.compress(gzip.decompress(before).replace(b",5999", b",8999")))
        assert "nothing in it matches" in refused(mimic_cxr, tmp_path), told
        path.write_bytes(before)
    split = tmp_path / "mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0-split.csv.gz"
    lines = gzip.decompress(split.read_bytes()).decode().splitlines()
    dicom, study, subject, _ = lines[1].split(",")
    split.write_bytes(
        gzip.compress("\n".join([*lines, f"x{dicom},{study},{subject},test"]).encode())
    )
    assert f"study {study} is also of another patient or split" in refused(mimic_cxr, tmp_path)


def test_clips_of_another_release_than_the_pickle_are_refused(tmp_path):
    lines = ["video_id,clip_id,text,label,mode"]
    content = {"train": [], "dev": [], "test": []}
    for number in range(4):
        clip = tmp_path / f"MOSI/Raw/v/{number}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        clip.write_bytes(b"")
        lines.append(f"v,{number},WORD {number},{number - 1},train")
        entry = ((["word", str(number)], 0, 0), [[number - 1.0]], f"v[{number}]")
        content["train"].append(entry)
    (tmp_path / mosi.TABLE).write_text("\n".join(lines) + "\n")
    (tmp_path / mosi.PICKLE).write_bytes(pickle.dumps(content))
    assert len(list(mosi.samples(tmp_path))) == 4
    (tmp_path / mosi.TABLE).write_text("\n".join(lines).replace("WORD", "WORT") + "\n")
    line = refused(mosi, tmp_path)
    assert "mosi.pkl: nothing in it matches a clip's words: the first here is 'v[0]'" in line
