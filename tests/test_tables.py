"""A table of one's own: what its rows become, and what is refused by name."""

import math
from pathlib import Path

import own_data
import pandas as pd
import pytest

from ibma.datasets import Dropped, Sample
from ibma.errors import IbmaError
from ibma.features.samples import Tally, checked
from ibma.tables.reader import TableData


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
        tally.keep(one.split, one.group, str(one.label))
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


def test_numbers_that_are_none_are_dropped_by_name(here):
    modalities = own_data.spec().as_dict()["modalities"]
    modalities["numbers"] = {"kind": "numbers", "columns": ["age"]}
    for text in ("nan", "inf", "-inf", "1,5", "1_000", "old", "1e999", "1e39"):
        own_data.write(here, changed((6, "age", text)))
        found = reasons(read(own_data.spec(modalities=modalities)))
        assert found == {"0006": f"age '{text}': expected a number"}, text
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
    assert "column 'Dx' is missing, its columns are X-ray file" in refused(
        own_data.spec(label=["Dx"])
    )
    assert "missing: correct it" in refused(own_data.spec(file="none.csv"))
    (here / "latin.csv").write_bytes("a,b\nü,1\n".encode("latin-1"))
    assert "no UTF-8 text" in (line := refused(own_data.spec(file="latin.csv", label=["b"])))
    assert "save it as UTF-8" in line
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
