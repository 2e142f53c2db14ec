"""A table of one's own: what its rows become, and what is refused by name."""

import math
import re
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import own_data
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest
from torch import nn

from ibma import params
from ibma.datasets import Dropped, Sample
from ibma.errors import IbmaError
from ibma.features.samples import Tally, checked
from ibma.formats import raw
from ibma.tables import cells
from ibma.tables.reader import TableData, modality_name

TEXT = {"Hx": {"kind": "text", "columns": ["Hx"]}}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(spec=None, on_bad: str = "drop") -> list[Sample | Dropped]:
    table = TableData("clinic", spec or own_data.spec())
    return list(checked(table.samples(table.path, on_bad=on_bad), table.CARD, on_bad))


def kept(entries) -> list[Sample]:
    return [one for one in entries if isinstance(one, Sample)]


def reasons(entries) -> dict[str, str]:
    return {one.id: one.reason for one in entries if isinstance(one, Dropped)}


def changed(*cells: tuple[int, str, str]) -> list[list[str]]:
    """The table with some cells of other content: (row, column, text)."""
    table = own_data.rows()
    for row, column, text in cells:
        table[row][own_data.COLUMNS.index(column)] = text
    return table


def refused(spec=None, on_bad: str = "drop") -> str:
    with pytest.raises(IbmaError) as caught:
        read(spec, on_bad)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what rows become ----------------------------------------------------------------------------


def test_a_row_is_a_sample_whatever_the_file_is(here):
    table = own_data.rows()
    own_data.write(here, table)
    expected = read()
    first = expected[0]
    assert (first.id, first.split, first.group, first.label) == ("0000", "train", "P0", 0)
    assert first.parts == {"pic": Path("pictures/x0.png"), "Hx": "round opacity 0"}
    assert {one.split for one in expected} == {"train", "valid", "test"}
    for name, delimiter in (("c.tsv", "\t"), ("c.csv", ";"), ("d.csv", "|")):
        own_data.write(here, table, name, delimiter)
        assert read(own_data.spec(file=name, delimiter=delimiter)) == expected, name
    frame = pd.DataFrame(table, columns=own_data.COLUMNS)
    frame.to_parquet(here / "c.parquet")
    assert read(own_data.spec(file="c.parquet")) == expected
    bom = (here / "clinic.csv").read_bytes()
    (here / "clinic.csv").write_bytes(b"\xef\xbb\xbf" + bom.replace(b"\n", b"\r\n"))
    assert read() == expected


def test_ids_stay_as_they_are_written(here):
    names = ("0012", "NA", "None", "nan", "1e3", "-", "ü")
    own_data.write(here, changed(*((i, "X-ray file", name) for i, name in enumerate(names))))
    assert [one.id for one in read()[: len(names)]] == list(names)
    assert read(own_data.spec(id=None))[0].id == "row2"


def test_every_kind_of_label_is_read(here):
    own_data.write(here, own_data.rows())
    ages = read(own_data.spec(kind="sentiment", label=["age"], classes=[], range=[20, 79]))
    assert ages[0].label == -3.0 and kept(ages)[-1].label == 3.0
    table = TableData("c", own_data.spec(kind="sentiment", label=["age"], range=[20, 79]))
    assert math.isclose(table.measured(ages[7].label), 27.0)

    several = changed((0, "Dx (final)", "mass;fluid"), (1, "Dx (final)", ""))
    own_data.write(here, several)
    spec = own_data.spec(
        kind="multilabel", classes=["fluid", "mass", "normal"], separator=";", splits={"dev": "val"}
        | {"dev": "valid"},
    )  # fmt: skip
    assert [one.label for one in read(spec)[:3]] == [(1, 1, 0), (0, 0, 0), (0, 1, 0)]

    own_data.write(here, changed(*((i, "age", str(i % 2)) for i in range(60)),
                                 *((i, "Hx", str(i // 2 % 2)) for i in range(60))))  # fmt: skip
    spec = own_data.spec(
        kind="multilabel", label=["age", "Hx"], classes=[],
        modalities={"pic": own_data.spec().modalities["pic"].as_dict()},
    )  # fmt: skip
    assert TableData("c", spec).CARD.classes == ("age", "Hx")
    assert [one.label for one in read(spec)[:4]] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_without_a_column_of_splits_folds_keep_groups_whole_and_classes_alike(here):
    own_data.write(here, own_data.rows())
    spec = own_data.spec(split=None, splits={}, folds=3)
    folds = read(spec)
    assert folds == read(spec), "a pure function of the seed"
    assert folds != read(own_data.spec(split=None, splits={}, folds=3, fold_seed=1))
    tally = Tally()
    for one in folds:
        tally.keep(one.split, one.group, str(one.label), one.parts)
    tally.check(TableData("c", spec).CARD)  # refuses a group in two folds
    assert sorted(tally.splits.values()) == [20, 20, 20]
    assert all(labels == {"0", "1"} for labels in tally.labels.values())
    assert "30 groups for 40 folds" in refused(own_data.spec(split=None, splits={}, folds=40))


def test_files_texts_and_numbers_may_be_missing(here):
    own_data.write(here, changed((0, "pic", ""), (1, "Hx", " "), (2, "age", "")))
    modalities = own_data.spec().as_dict()["modalities"]
    modalities["numbers"] = {"kind": "numbers", "columns": ["age"]}
    found = read(own_data.spec(modalities=modalities))
    lacking = [{n for n, part in one.parts.items() if part is None} for one in found[:4]]
    assert lacking == [{"pic"}, {"Hx"}, {"numbers"}, set()]
    assert found[3].parts["numbers"] == (23.0,)


def test_a_folder_may_complete_names(here):
    own_data.write(here, own_data.rows())
    modalities = own_data.spec().as_dict()["modalities"]
    modalities["pic"] = {"kind": "image", "columns": ["X-ray file"], "folder": "pictures/x{}.png"}
    path = here / "clinic.csv"
    path.write_text(path.read_text().replace("\n00", "\n").replace("\n0", "\n"))
    spec = own_data.spec(modalities=modalities)
    assert read(spec)[5].parts["pic"] == Path("pictures/x5.png")


def test_one_name_in_two_forms_of_unicode_is_one(here):
    """As a table of macOS beside one of Windows: else a patient were in train and in test."""
    table = own_data.rows()
    for i, row in enumerate(table):
        row[2], row[3] = ("Ödem", "normal")[i % 2], f"José\u00a0{i // 4}"
        if i % 4 > 1:
            row[2:4] = [unicodedata.normalize("NFD", cell) for cell in row[2:4]]
    table[8][0], table[9][0] = "\u00e9", "e\u0301"
    table[10][1] = "\u00e9.png"
    own_data.write(here, table)
    (here / "pictures/\u00e9.png").rename(here / "pictures/e\u0301.png")
    found = read(own_data.spec(classes=[unicodedata.normalize("NFD", "Ödem"), "normal"]))
    assert reasons(found) == {"line 11": "'é' is already in line 10"}
    assert [one.label for one in kept(found)[:4]] == [0, 1, 0, 1]
    assert {one.group for one in kept(found)} == {f"José {i}" for i in range(15)}
    assert kept(found)[9].parts["pic"] == Path("pictures/e\u0301.png")


def test_labels_of_one_cell_may_stand_in_lines(here):
    own_data.write(here, changed((0, "Dx (final)", "mass\n fluid\n"), (1, "Dx (final)", "\n")))
    spec = own_data.spec(kind="multilabel", classes=["fluid", "mass", "normal"], separator="\n")
    assert [one.label for one in read(spec)[:3]] == [(1, 1, 0), (0, 0, 0), (0, 1, 0)]


def test_columns_without_a_name_may_be_there_any_number_of_times(here):
    expected = (own_data.write(here, own_data.rows()), read())[1]
    path = here / "clinic.csv"
    path.write_text("".join(f"{line},,\n" for line in path.read_text().splitlines()))
    assert read() == expected


def test_every_column_has_a_name_that_a_network_can_hold():
    """And none that torch's own container of networks has a part of."""
    odd = {"H x", "H-x", "h.x", "报告", "描述", "fused", "each", "logits", "type", "t" * 99, "1"}
    names: list[str] = []
    for column in sorted(odd):
        names.append(modality_name(column, {name.lower() for name in names}))
    assert len({name.lower() for name in names}) == len(odd)
    for name in [*names, "type", "values"]:
        assert (name in params.TAKEN) == hasattr(nn.ModuleDict, name), name
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", name), name
    for name in dir(nn.ModuleDict()):
        # transformers adds a part of its own
        where = getattr(getattr(nn.ModuleDict, name, None), "__module__", "torch")
        assert name.startswith("_") or name in params.TAKEN or not where.startswith("torch"), name


# --- Parquet -------------------------------------------------------------------------------------


def parquet(here, **columns) -> None:
    plain = {name: ["x", "y"] for name in own_data.COLUMNS}
    pq.write_table(arrow.table(plain | columns), here / "c.parquet")


def test_parquet_holds_what_a_table_may_hold(here):
    (here / "pictures").mkdir()
    spec, texts = own_data.spec(file="c.parquet", modalities=TEXT), ["train", "test"]
    usual = {"Dx (final)": ["mass", "normal"], "Fold": texts}
    for cells_ in (texts, [b"train", b"test"], arrow.array(texts).dictionary_encode()):
        parquet(here, **usual | {"Fold": cells_, "X-ray file": [b"1", b"2"]})
        assert [one.split for one in read(spec)] == texts
        assert [one.id for one in read(spec)] == ["1", "2"]
    parquet(here, **usual | {"Hx": [["a", "b"], []]})
    assert "column 'Hx' is of list" in refused(spec)
    parquet(here, **usual | {"Hx": pd.Series(pd.interval_range(0, 2)).array})
    assert "column 'Hx' is of " in refused(spec)


def test_rows_whose_group_is_nan_are_not_one_group(here):
    columns = {"X-ray file": ["a", "b"], "Dx (final)": ["mass", "normal"]}
    parquet(here, **columns | {"Fold": ["train", "test"], "Patient No.": [1.0, float("nan")]})
    entries = read(own_data.spec(file="c.parquet", modalities=TEXT))
    assert reasons(entries) == {"b": "Patient No. is empty: expected a group"}


def test_bytes_of_another_encoding_are_no_labels(here):
    """In place of letters that cannot be read, `mä` and `mö` would be one class."""
    labels = [each.encode("latin-1") for each in ("mä", "mö")]
    parquet(here, **{"Dx (final)": labels, "Fold": ["train", "test"]})
    told = refused(own_data.spec(file="c.parquet", modalities=TEXT))
    assert "line 2: bytes that are no UTF-8" in told


def test_a_damaged_or_huge_parquet_file_is_one_line(here, monkeypatch):
    spec = own_data.spec(file="c.parquet", modalities=TEXT)
    frame = pd.DataFrame(own_data.rows(500), columns=own_data.COLUMNS)
    frame.to_parquet(here / "c.parquet", row_group_size=100, write_page_checksum=True)
    good, random = (here / "c.parquet").read_bytes(), np.random.default_rng(0)
    expected = read(spec)
    for _ in range(40):
        bad = bytearray(good)
        bad[random.integers(4, len(bad) - 8)] ^= 1 << int(random.integers(8))
        (here / "c.parquet").write_bytes(bad)
        try:
            assert read(spec) == expected, "a bit that says nothing"
        except IbmaError as error:
            assert "\n" not in str(error) and "c.parquet" in str(error)
    long = arrow.DictionaryArray.from_arrays(arrow.array([0] * 500), arrow.array(["x" * 10**6]))
    frame["Hx"] = "x"
    table = arrow.Table.from_pandas(frame)
    table = table.set_column(table.schema.get_field_index("Hx"), "Hx", long)
    pq.write_table(table, here / "c.parquet", compression="zstd")
    assert (here / "c.parquet").stat().st_size < 10**6
    tracemalloc.start()
    assert sum(len(one.parts["Hx"]) for one in TableData("c", spec).samples(here / "c.parquet"))
    assert tracemalloc.get_traced_memory()[1] < 10**8, "a text that is there 500 times, once"
    tracemalloc.stop()
    for name in ("ROWS", "unpacked_limit"):
        with monkeypatch.context() as patch:
            patch.setattr(raw, name, 100 if name == "ROWS" else lambda path: 100)
            assert "more than" in refused(spec)


# --- what is refused -----------------------------------------------------------------------------


def test_a_split_of_another_name_is_mapped_or_refused_and_never_trained_on(here):
    for name in ("val", "Val", "dev", "validation", "Validation ", "Validate"):
        own_data.write(here, changed((0, "Fold", name)))
        assert read(own_data.spec(splits={"dev": "valid"}))[0].split == "valid", name
    for name in ("Test", " TEST ", "testing"):
        own_data.write(here, changed((0, "Fold", name)))
        assert read()[0].split == "test", name
    for name in ("holdout", "dev1", "", "tset", "0", "None", "fold1", "unlabelled"):
        own_data.write(here, changed((3, "Fold", name)))
        for on_bad in ("drop", "stop"):
            line = refused(on_bad=on_bad)
            assert f"line 5: Fold '{name}': expected train, valid or test" in line
            assert "tables.clinic.splits" in line
    own_data.write(here, changed((3, "Fold", "extern")))
    assert reasons(read(own_data.spec(splits={"dev": "valid", "extern": "drop"}))) == {
        "0003": "split 'extern': dropped"
    }


def test_what_params_say_of_a_split_is_obeyed_in_small_letters_and_in_capitals(here):
    own_data.write(here, changed((0, "Fold", "Train"), (1, "Fold", "TRAIN "), (2, "Fold", "Dev")))
    found = read(own_data.spec(splits={"DEV": "valid", "TRAIN": "drop"}))
    assert {"0000", "0001"} <= reasons(found).keys()
    assert {one.split for one in kept(found)} == {"valid", "test"}
    assert "tables.clinic.splits: 'dev' means two things" in refused(
        own_data.spec(splits={"DEV": "valid", "dev": "drop"})
    )


def test_rows_that_are_no_samples_are_dropped_by_name_or_stop(here):
    wrong = {
        "": "Dx (final) is empty: expected a label",
        "0.6": "Dx (final) '0.6': expected one of mass, normal",
        "True": "Dx (final) 'True': expected one of mass, normal",
        "None": "Dx (final) 'None': expected one of mass, normal",
    }
    for label, reason in wrong.items():
        own_data.write(here, changed((4, "Dx (final)", label)))
        assert reasons(read()) == {"0004": reason}
        assert refused(on_bad="stop").startswith(f"clinic.csv: line 6: {reason}: correct it")
    own_data.write(here, changed((4, "pic", "gone.png"), (5, "Patient No.", " ")))
    (here / "pictures/gone.png").unlink()
    assert reasons(read()) == {
        "0004": "pictures/gone.png: no such file, named in column 'pic'",
        "0005": "Patient No. is empty: expected a group",
    }
    own_data.write(here, changed((0, "pic", "../../secret.jpg"), (5, "pic", "/etc/passwd")))
    assert all("leads out of this folder" in why for why in reasons(read()).values())
    assert set(reasons(read())) == {"0000", "0005"}
    assert TableData("clinic", own_data.spec()).manifest("")["source"] == "real"


def test_names_that_cannot_be_shown_or_are_no_files_are_dropped_by_name(here):
    own_data.write(here, changed((0, "X-ray file", "A\u00a01"), (1, "Patient No.", "P\u200b"),
                                 (2, "X-ray file", "a\nb"), (3, "pic", "words " * 90)))  # fmt: skip
    found = reasons(read())
    assert list(found) == ["A 1", "0001", "a b", "0003"]
    assert found["A 1"] == (
        "X-ray file 'A\\xa01': expected text without line breaks and hidden characters"
    )
    assert "Patient No. 'P\\u200b': expected text" in found["0001"]
    assert "no such file, named in column 'pic'" in found["0003"] and len(found["0003"]) < 300
    every = own_data.spec().as_dict()["modalities"]
    every["pic"]["columns"] = ["Hx"]
    own_data.write(here, changed(*((i, "Hx", "words " * 90) for i in range(60))))
    assert "no file of column 'Hx' is in pictures" in refused(own_data.spec(modalities=every))


def test_numbers_that_are_none_are_dropped_by_name(here):
    modalities = own_data.spec().as_dict()["modalities"]
    modalities["numbers"] = {"kind": "numbers", "columns": ["age"]}
    for text in ("nan", "inf", "-inf", "1,5", "1_000", "old", "1e999", "1e39", "-2e15"):
        own_data.write(here, changed((6, "age", text)))
        found = reasons(read(own_data.spec(modalities=modalities)))
        assert found == {"0006": f"age '{text}': expected a number up to 1e+15"}, text
    label = own_data.spec(kind="sentiment", label=["age"], classes=[], range=[20, 79])
    for text in ("nan", "inf", "19.9", "x"):
        own_data.write(here, changed((6, "age", text)))
        assert reasons(read(label)) == {"0006": f"age '{text}': expected a number from 20 to 79"}


def test_ids_are_there_once_in_whatever_split(here):
    for again in ("0001", "0001 ", " 0001"):
        own_data.write(here, changed((7, "X-ray file", again), (8, "X-ray file", " ")))
        assert reasons(read()) == {
            "line 9": "'0001' is already in line 3",
            "line 10": "X-ray file ' ': expected text",
        }
    assert "'0001' is already in line 3" in refused(on_bad="stop")
    frame = pd.DataFrame(changed((7, "X-ray file", "0001")), columns=own_data.COLUMNS)
    frame.to_parquet(here / "c.parquet")
    assert reasons(read(own_data.spec(file="c.parquet"))) == {
        "line 9": "'0001' is already in line 3"
    }


def test_rows_of_other_lengths_and_open_quotes_are_named(here):
    path = own_data.write(here, own_data.rows())
    lines = path.read_text().splitlines()
    lines[5] += ",more"
    lines[6] = "0005,x5.png"
    path.write_text("\n".join(lines) + "\n")
    assert reasons(read()) == {"line 6": "8 cells, expected 7", "line 7": "2 cells, expected 7"}


def test_an_open_quote_costs_its_own_row_alone(here):
    """Whether the end of the file, a cell in quotes, or nothing but a stray quote closes it."""
    path = own_data.write(here, own_data.rows())
    lines = path.read_text().splitlines()
    cases = {  # row of the file, from 0 -> what becomes of its text
        "never closed": ({3: '"{}'}, [4]),
        "another cell opens": ({3: '"{}', 8: '"{}'}, [4, 9]),
        "closed one row later": ({3: '"{}', 4: '{}"'}, [4]),
        "closed six rows later": ({3: '"{}', 9: '{}"'}, [4]),
        "not doubled": ({3: '"{}" lungs'}, [4]),
    }
    for name, (edits, broken) in cases.items():
        damaged = list(lines)
        for place, text in edits.items():
            *front, report, age = damaged[place].split(",")
            damaged[place] = ",".join([*front, text.format(report), age])
        path.write_text("\n".join(damaged) + "\n")
        found = read()
        assert list(reasons(found)) == [f"line {line}" for line in broken], name
        assert len(kept(found)) == 60 - len(broken), name
        assert "a quote is not closed" in reasons(found)[f"line {broken[0]}"], name
        assert f"line {broken[0]}: a quote is not closed" in refused(on_bad="stop"), name


def test_texts_may_have_line_breaks_and_commas(here):
    text = "round, opacity,\n1, 2, 3\nleft, train, normal, x, y, z, 1"
    own_data.write(here, changed((2, "Hx", text), (3, "Hx", "clear\nlungs")))
    assert [one.parts["Hx"] for one in read()[2:4]] == [text, "clear\nlungs"]


def test_files_that_match_nothing_are_no_empty_samples(here):
    own_data.write(here, own_data.rows())
    modalities = own_data.spec().as_dict()["modalities"]
    (here / "pics").mkdir()
    (here / "pics/X0.PNG").touch()
    modalities["pic"] = {"kind": "image", "columns": ["pic"], "folder": "pics"}
    line = refused(own_data.spec(modalities=modalities))
    assert "no file of column 'pic' is in pics: the first is 'x0.png'" in line
    assert "there the first is 'X0.PNG'" in line
    modalities["pic"]["folder"] = "nowhere"
    assert "nowhere: no such folder" in refused(own_data.spec(modalities=modalities))


def test_a_file_that_is_no_such_table_is_one_line(here):
    own_data.write(here, own_data.rows())
    assert "column 'Dx' is missing, its columns are 'X-ray file', 'pic'" in refused(
        own_data.spec(label=["Dx"])
    )
    assert "missing: correct it" in refused(own_data.spec(file="none.csv"))
    latin = (here / "clinic.csv").read_bytes().replace(b"opacity 48", b"opacit\xe9 48")
    others = {"latin": latin, "sixteen": latin.decode("latin-1").encode("utf-16")}
    for name, content in (others | {"book": b"PK\x03\x04\x14\xff"}).items():
        (here / f"{name}.csv").write_bytes(content)
        line = refused(own_data.spec(file=f"{name}.csv"))
        assert "no UTF-8 text" in line and "save it as UTF-8" in line
        assert name != "latin" or "latin.csv: line 50: " in line
    for name in ("sixteen", "book"):
        with pytest.raises(IbmaError, match="save it as UTF-8"):
            cells.columns_of(here / f"{name}.csv", ",")
    (here / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    assert "broken.parquet: cannot be decoded" in refused(own_data.spec(file="broken.parquet"))
    (here / "empty.csv").write_text(",".join(own_data.COLUMNS) + "\n")
    assert "holds no row" in refused(own_data.spec(file="empty.csv"))


def test_a_manifest_changes_with_whatever_samples_are_made_of(here):
    path = own_data.write(here, own_data.rows())
    table = TableData("clinic", own_data.spec())
    first = table.manifest("code")
    assert first == table.manifest("code")
    assert first["source"] == "real" and first["files"][0][:2] == [
        "clinic.csv",
        path.stat().st_size,
    ]
    assert first != table.manifest("other code")
    assert first != TableData("clinic", own_data.spec(classes=["normal", "mass"])).manifest("code")
    (here / "pictures/x3.png").write_bytes(b"another picture")
    assert first != table.manifest("code")
    second = table.manifest("code")
    path.write_text(path.read_text().replace("0003", "003"))
    assert second != table.manifest("code")
