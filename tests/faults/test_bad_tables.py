"""Tables that are cut, joined, renamed, doubled or no text: one line with file and row."""

import gzip
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ibma import files, twins
from ibma.datasets import chexpert, mimic_cxr, ravdess
from ibma.errors import IbmaError
from ibma.formats import her2st, raw, tabular
from ibma.formats.tabular import Column, Table

COLUMNS = {
    "id": tabular.NAME,
    "split": Column(values=("train", "test")),
    "age": tabular.INTEGER,
    "dose": Column("number", low=0, high=9),
    "note": tabular.TEXT,
}
TABLE = Table(COLUMNS, "ask the owner", unique=("id",))
HEADER = "id,split,age,dose,note\n"
GOOD = HEADER + 'a,train,7,1.5,"two\nlines"\nb,test,8,1e-2,\n'


def rows(path: Path, content: str | bytes, table: Table = TABLE) -> list[dict[str, str]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [row for _, row in tabular.rows(path, table)]


def refused(path: Path, content: str | bytes, table: Table = TABLE) -> str:
    with pytest.raises(IbmaError) as caught:
        rows(path, content, table)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and "ask the owner" in line
    return line


def test_what_is_harmless_is_read(tmp_path):
    path = tmp_path / "a.csv"
    expected = rows(path, GOOD)
    assert expected[0]["note"] == "two\nlines" and len(expected) == 2
    others = ("\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), GOOD + "\n\n", GOOD[:-1])
    for content in others:
        found = rows(path, content)
        assert [row["id"] for row in found] == ["a", "b"], content
    more = "x,id,split,age,dose,note\n1,a,train,7,1.5,\n"
    assert list(rows(path, more)[0]) == list(COLUMNS), "other columns may be there"
    assert rows(tmp_path / "a.csv.gz", gzip.compress(GOOD.encode())) == expected


def test_ids_stay_text(tmp_path):
    ids = ["0012", "NA", "None", "nan", "1e5", "True", "-", "\u00e9", "12 "]
    lines = "".join(f"{name},train,1,1,\n" for name in ids)
    assert [row["id"] for row in rows(tmp_path / "a.csv", HEADER + lines)] == ids


def test_what_is_wrong_is_named_with_its_line(tmp_path):
    row = "c,train,7,1.5,x\n"
    cases = {
        "too many cells": (GOOD + row.replace("x", "x,y"), "line 5: 6 cells, expected 5"),
        "too few cells": (GOOD + "c,train,7\n", "line 5: 3 cells, expected 5"),
        "an open quote at the end": (GOOD + 'c,train,7,1.5,"x\n', "unexpected end of data"),
        "an open quote between rows": (
            HEADER + 'a,train,7,1.5,"x\nb,train,7,1.5,"y"\nc,train,7,1.5,z\n',
            "expected after",
        ),
        "a quote inside quotes": (GOOD + 'c,train,7,1.5,"x"y"\n', "expected after"),
        "a column twice": (GOOD.replace("note", "split"), "column 'note' is missing"),
        "a second split": (
            "split," + HEADER + "test,a,train,1,1,\n",
            "column 'split' is there twice",
        ),
        "a column renamed": (GOOD.replace("dose", "Dose"), "column 'dose' is missing, its columns"),
        "a header alone": (HEADER, "holds no row"),
        "nothing": ("", "column 'id' is missing, its columns are nothing"),
        "an id twice": (GOOD + row.replace("c", "a"), "line 5: 'a' is already in line 3"),
        "no id": (GOOD + row.replace("c", " "), "line 5: id ' ': expected text"),
        "another split": (
            GOOD + row.replace("train", "val"),
            "line 5: split 'val': expected one of",
        ),
        "no number": (GOOD + row.replace("1.5", "much"), "dose 'much': expected a number from 0"),
        "NaN": (GOOD + row.replace("1.5", "nan"), "dose 'nan': expected a number from 0 to 9"),
        "infinity": (GOOD + row.replace("1.5", "1e999"), "dose '1e999': expected a number"),
        "out of range": (GOOD + row.replace("1.5", "-1"), "dose '-1': expected a number from 0"),
        "no whole number": (GOOD + row.replace("7", "7.0"), "age '7.0': expected a whole number"),
        "another script's digit": (GOOD + row.replace("7", "\u0667"), "expected a whole number"),
        "a NUL": (GOOD + row.replace("x", "x\0"), "a NUL character"),
        "UTF-16": (GOOD.encode("utf-16"), "no UTF-8 text"),
        "Latin-1": (GOOD.encode() + row.replace("x", "\u00e9").encode("latin-1"), "no UTF-8"),
    }
    for name, (content, told) in cases.items():
        assert told in refused(tmp_path / "a.csv", content), name


def test_a_damaged_or_huge_table_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.csv.gz"
    packed = gzip.compress((GOOD + "".join(f"n{i},train,1,1,\n" for i in range(99))).encode())
    for content in (packed[:-5], packed[:40], packed[:-6] + b"\0\0" + packed[-4:], GOOD.encode()):
        refused(path, content)
    monkeypatch.setattr(files, "UNPACKED", 1 << 20)
    bomb = HEADER.encode() + b"a,train,1,1,x\n" * (1 << 18)
    assert "altogether" in refused(path, gzip.compress(bomb), Table(COLUMNS, "ask the owner"))
    monkeypatch.setattr(raw, "LINE", 1000)
    assert "characters a line" in refused(path, gzip.compress(GOOD.encode() + b"x" * 2000))
    monkeypatch.setattr(raw, "ROWS", 1)
    assert "more than 1 rows" in refused(tmp_path / "a.csv", GOOD)
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "absent.csv"):
        with pytest.raises(IbmaError, match=f"{name}: .*ask the owner"):
            list(tabular.rows(tmp_path / name, TABLE))


# --- every loader --------------------------------------------------------------------------------

JPG = "mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0"
DAMAGE = {
    "a cell too many": lambda lines, mark: [*lines[:-1], lines[-1] + mark + b"x"],
    "a cell too few": lambda lines, mark: [*lines[:-1], lines[-1].rpartition(mark)[0]],
    "an open quote": lambda lines, mark: [*lines[:-1], b'"' + lines[-1]],
    "a column twice": lambda lines, mark: [line + mark + line.split(mark)[1] for line in lines],
    "a header alone": lambda lines, mark: lines[:1],
    "no UTF-8": lambda lines, mark: [*lines[:-1], lines[-1] + b"\xff"],
    "a NUL": lambda lines, mark: [*lines[:-1], lines[-1] + b"\0"],
    "nothing": lambda lines, mark: [b""],
}


def every_spot(folder: Path, **_: str) -> Iterator[object]:
    yield her2st.pixels(folder, her2st.read(folder, "B1"))


TABLES = [  # twin, what reads it, a table, what separates its cells
    ("chexpert", chexpert.samples, "CheXpert-v1.0-small/train.csv", b","),
    ("chexpert", chexpert.samples, "CheXpert-v1.0-small/valid.csv", b","),
    ("chexpert", chexpert.samples, chexpert.REPORTS, b","),
    ("mimic_cxr", mimic_cxr.samples, f"{JPG}-split.csv.gz", b","),
    ("mimic_cxr", mimic_cxr.samples, f"{JPG}-metadata.csv.gz", b","),
    ("mimic_cxr", mimic_cxr.samples, f"{JPG}-chexpert.csv.gz", b","),
    ("mimic_cxr", partial(mimic_cxr.samples, split="5x200"), f"{JPG}-negbio.csv.gz", b","),
    ("tissue", every_spot, "her2st/data/ST-pat/lbl/B1_labeled_coordinates.tsv", b"\t"),
    ("tissue", every_spot, "her2st/data/ST-spotfiles/B1_selection.tsv", b"\t"),
    ("tissue", every_spot, "her2st/data/ST-cnts/B1.tsv.gz", b"\t"),
]


def test_every_table_of_every_loader_is_checked(tmp_path):
    tried = 0
    for twin, read, name, mark in TABLES:
        folder = tmp_path / twin
        if not folder.exists():
            twins.write(twin, folder)
        path = folder / name
        good = path.read_bytes()
        opened, packed = (
            (gzip.decompress, gzip.compress) if name.endswith(".gz") else (bytes, bytes)
        )
        for damage, damaged in DAMAGE.items():
            if (damage, path.name) == ("a column twice", "B1.tsv.gz"):
                continue  # symbols of genes are listed twice in the release too
            content = b"\n".join(damaged(opened(good).splitlines(), mark)) + b"\n"
            path.write_bytes(packed(content))
            try:
                list(read(folder, on_bad="drop"))
                line = "accepted"
            except IbmaError as error:
                line = str(error)
            assert str(path) in line and "\n" not in line, (name, damage)
            tried += 1
        path.write_bytes(good)
    assert tried == len(TABLES) * len(DAMAGE) - 1


def test_action_units_that_are_missing_reach_extraction_by_name(tmp_path, monkeypatch):
    """A cell is no number: the table is refused. It is empty or NaN: that clip is named."""
    monkeypatch.setattr(ravdess, "CLIPS", 2)
    clips = ("03-01-01-01-01-01-01", "03-01-05-02-01-02-02")
    for clip in clips:
        (tmp_path / f"{clip}.wav").write_bytes(b"RIFF")
    header = ";".join([*ravdess.UNITS, "name"])
    cells = ["0.5"] * len(ravdess.UNITS)
    for value in ("", "nan", "NaN"):
        lines = [";".join([*cells[1:], value, f"01{clip[2:]}"]) for clip in clips]
        (tmp_path / ravdess.ACTION_UNITS).write_text("\n".join([header, *lines]) + "\n")
        faces = [sample.parts["face"] for sample in ravdess.samples(tmp_path)]
        assert np.isnan(faces[0][-1]) and faces[1][0] == 0.5
    for value in ("x", "inf", "-1e400"):
        text = "\n".join([header, *lines]).replace("NaN", value)
        (tmp_path / ravdess.ACTION_UNITS).write_text(text)
        told = f"line 2: AU45_c '{value}': expected a finite number, or nothing"
        with pytest.raises(IbmaError, match=told):
            list(ravdess.samples(tmp_path))
