"""A stranger's table, from `ibma init` to predictions, and what the commands refuse."""

import csv
import html
import inspect
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import own_data
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from ibma import cli, params, paths
from ibma.errors import IbmaError
from ibma.tables.reader import TableData

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A new project with a table of 60 rows."""
    folder = own_data.start(tmp_path / "project")
    here = os.path.dirname(sys.executable)  # DVC calls `python`
    monkeypatch.setenv("PATH", os.pathsep.join([here, os.environ["PATH"]]))
    monkeypatch.chdir(folder)
    own_data.write(folder, own_data.rows())
    return folder


def refused(ibma, *arguments) -> str:
    code, _, error = ibma(*arguments)
    assert (code, error.count("\n")) == (1, 1), error
    return error


def told(ibma, *arguments) -> str:
    code, out, error = ibma(*arguments)
    assert code == 0, error
    return out


# --- init and new --------------------------------------------------------------------------------


def test_a_new_project_is_whole_and_an_old_one_stays(project, ibma):
    names = {"src", "stages", "profiles", "dvc.yaml", "params.yaml", "params.schema.json", ".dvc"}
    assert names <= {path.name for path in project.iterdir()}
    assert params.load().profile == "twin"
    assert "is there and not empty" in refused(ibma, "init", project)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "tune@crema_d" in listed.stdout and "tables@" not in listed.stdout


def test_a_profile_is_written_with_comments_and_says_how_to_go_back(project, ibma):
    out = told(ibma, *own_data.NEW)
    assert "`ibma profile twin` goes back" in out and "`ibma check clinic`" in out
    made = params.load()
    assert made.profile == "clinic" and not made.datasets
    assert made.tables["clinic"].as_dict() == own_data.spec().as_dict()
    text = (project / "profiles/clinic.yaml").read_text()
    assert text.count("  # ") > 25 and "\n\n\n" not in text
    assert (project / "params.yaml").read_bytes() == text.replace(
        "$schema=../", "$schema="
    ).encode()
    listed = told(ibma, "profile", "list").splitlines()
    assert "* clinic: clinic.csv, written by `ibma new`." in listed
    assert all(line.endswith(".") for line in listed[:-1]), "whole sentences"
    assert "profiles/clinic.yaml is there" in refused(ibma, *own_data.NEW)
    assert told(ibma, "profile", "twin") and params.load().profile == "twin"
    (project / "params.yaml").write_text("profile: mine\n")
    other = ("new", "other", *own_data.NEW[2:])
    assert "has edits that are in no profile" in refused(ibma, *other)
    assert not (project / "profiles/other.yaml").exists()
    assert "--force lost" in told(ibma, *other, "--force")


def test_kinds_of_labels_and_delimiters_are_told_from_the_table(project, ibma):
    own_data.write(project, own_data.rows(120), "c.csv", ";")
    base = ("--csv", "c.csv", "--image", "pic@pictures", "--text", "Hx")
    error = refused(ibma, "new", "a", *base, "--label", "age")
    assert "120 distinct labels in 'age'" in error and "--kind sentiment" in error
    table = (project / "c.csv").read_text().replace(";20\n", ";inf\n").replace(";21\n", ";1e309\n")
    (project / "c.csv").write_text(table)
    told(ibma, "new", "a", *base, "--label", "age", "--kind", "sentiment")
    made = params.load().tables["a"]
    assert (made.delimiter, made.range, made.folds, made.id) == (";", [22.0, 139.0], 5, None)
    told(ibma, "new", "b", *base, "--label", "Dx (final)", "--numbers", "age")
    assert params.load().tables["b"].modalities["numbers"].columns == ["age"]
    (project / "d.tsv").write_text("t\tn\ta\tb\nx\t1\t0\t1\ny\t2\t1\t1\n")
    several = ("--label", "a", "--label", "b", "--text", "t", "--numbers", "n")
    told(ibma, "new", "c", "--csv", "d.tsv", *several)
    assert params.load().tables["c"].kind == "multilabel"


def test_tables_are_read_as_spreadsheets_save_them(project, ibma):
    """Quotes around every cell, which do not fit between other delimiters."""
    for delimiter in ";\t|":
        with (project / "clinic.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows([own_data.COLUMNS, *own_data.rows()])
        told(ibma, *own_data.NEW, "--force")
        assert params.load().tables["clinic"].delimiter == delimiter
    for row in (table := own_data.rows()):
        row.append("a cell too many")
    own_data.write(project, table)
    line = refused(ibma, *own_data.NEW, "--force")
    assert "clinic.csv: line 2: 8 cells, expected 7: no row can be read" in line


FIRST_LINES = {  # columns of this name, and what becomes of them
    "race (1=w;2=b;3=a;4=o;5=u;6=x)": ("30 samples", ()),
    "a|b|c|d|e|f|g|h": ("30 samples", ()),
    "age": ("column 'age' is there twice", ()),
    "x,x": ("column 'x' is there twice", ()),
    ",": ("column '' is there twice", ("--numbers", "")),
    "": ("30 samples", ("--numbers", "")),
    "left@eye": ("30 samples", ("--image", "left@eye@pic@tures")),
    "left": ("30 samples", ("--image", "left@pic@tures")),
    "right": ("column 'left' is missing, its columns are 'id'", ("--image", "left@a@b")),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("more", "expected"), FIRST_LINES.items())
def test_columns_are_found_by_name_or_the_true_cause_is_told(project, ibma, more, expected, suffix):
    """Whatever other columns are called, and whatever separates cells in those."""
    line, options = expected
    header = ["id", "dx", "hx", "age", *more.split(",")]
    (project / "pic@tures").mkdir()
    Image.new("L", (8, 8)).save(project / "pic@tures/7", "PNG")
    rows = [[str(i), "ab"[i % 2], f"t{i}", str(i), *"7" * len(more.split(","))] for i in range(30)]
    if suffix == ".csv":
        (project / "c.csv").write_text("\n".join(map(",".join, [header, *rows])) + "\n")
    else:
        columns = [arrow.array(cells) for cells in zip(*rows, strict=True)]
        pq.write_table(arrow.Table.from_arrays(columns, names=header), project / "c.parquet")
    new = ("new", "c", "--csv", f"c{suffix}", "--id", "id", "--label", "dx", "--text", "hx")
    if line != "30 samples":
        assert line in refused(ibma, *new, "--numbers", "age", *options)
        return
    told(ibma, *new, "--numbers", "age", *options)
    assert "30 samples, 0 rows dropped" in told(ibma, "check", "c")


def test_labels_that_stand_for_nothing_are_no_classes(project, ibma):
    table = own_data.rows()
    for row, text in enumerate(("None", "nan", "NA", "", "N/A")):
        table[row][2] = text
    own_data.write(project, table)
    assert "no class: 'N/A', 'NA', 'None', 'nan': rows with it" in told(ibma, *own_data.NEW)
    assert params.load().tables["clinic"].classes == ["mass", "normal"]
    out = told(ibma, "check", "clinic")
    assert "55 samples, 5 rows dropped" in out
    assert "0000: Dx (final) 'None': expected one of mass, normal" in out


def test_classes_are_one_line_and_those_that_differ_in_case_are_named(project, ibma):
    table = own_data.rows()
    for row in table:
        row[2] = {"mass": "round\n mass", "normal": "Normal"}[row[2]]
    table[1][2], table[3][2], table[5][2] = "normal", "normal\u00a0", " normal"
    own_data.write(project, table)
    told(ibma, *own_data.NEW)
    assert params.load().tables["clinic"].classes == ["Normal", "normal", "round mass"]
    out = told(ibma, "check", "clinic")
    assert "60 samples, 0 rows dropped" in out
    assert "PROBLEM: classes that differ in spelling alone: 'Normal', 'normal': write one" in out
    for row, label in zip(table, itertools.cycle(("1", "01", "1.0", "mass", "ma\u200bss"))):
        row[2] = label
    own_data.write(project, table)
    told(ibma, *own_data.NEW, "--force")
    out = told(ibma, "check", "clinic")
    assert "'01', '1', '1.0': write" in out and "'mass', 'ma\\u200bss': write" in out


def test_modalities_have_names_of_their_own_whatever_columns_are_called(project, ibma):
    """Two columns whose letters alone differ are two modalities; one given twice is one."""
    header = ("id", "H x", "h-x", "报告", "描述", "type", "fused", "t" * 99, "Dx", "n")
    lines = [f"{i},a,b,c,d,e,f,g,{i % 2},{i}" for i in range(30)]
    (project / "c.csv").write_text("\n".join([",".join(header), *lines]) + "\n")
    texts = [part for column in (*header[1:8], "H x") for part in ("--text", column)]
    numbers = ("--numbers", "n", "--numbers", "n", "--id", "id")
    told(ibma, "new", "odd", "--csv", "c.csv", "--label", "Dx", *texts, *numbers)
    made = params.load().tables["odd"].modalities
    assert [one.columns for one in made.values()] == [[name] for name in (*header[1:8], "n")]
    assert list(made)[:5] == ["H_x", "h_x_2", "x", "x_2", "type_2"]
    assert "30 samples, 0 rows dropped" in told(ibma, "check", "odd")


@pytest.mark.parametrize(
    "odd", ["a\x96b", "a\x7fb", "a\uffffb", "a\xadb", "\ufeffa", "\U0001f600", "'\"\\"]
)
def test_a_profile_holds_whatever_a_table_does(project, ibma, odd):
    """Characters that YAML forbids: those of another encoding, read as UTF-8."""
    table = [[odd if cell == "mass" else cell for cell in row] for row in own_data.rows()]
    own_data.write(project, table, f"{odd}.csv")
    text = (
        (project / f"{odd}.csv")
        .read_text("utf-8")
        .replace("Hx", f'"H{odd.replace(chr(34), chr(34) * 2)}"')
    )
    (project / f"{odd}.csv").write_text(text, "utf-8")
    changes = {"clinic.csv": f"{odd}.csv", "Hx": f"H{odd}"}
    told(ibma, *(changes.get(word, word) for word in own_data.NEW))
    for made in (params.load(), params.load(project / "profiles/clinic.yaml")):
        (block,) = made.tables.values()
        assert block.file == f"{odd}.csv" and set(block.classes) == {odd, "normal"}
        assert [f"H{odd}"] in [one.columns for one in block.modalities.values()]
    assert "60 samples, 0 rows dropped" in told(ibma, "check", "clinic")


def test_a_table_whose_name_is_no_utf8_is_refused(project, ibma):
    name = os.fsdecode(b"n\xff.csv")
    (project / "clinic.csv").rename(name)
    line = refused(ibma, *(name if word == "clinic.csv" else word for word in own_data.NEW))
    assert r"n\udcff.csv" in line and "rename it" in line
    assert params.load().profile == "twin"


@pytest.mark.parametrize("word", ["no", "on", "true", "null", "y"])
def test_words_that_yaml_has_a_meaning_for_are_names(project, ibma, word):
    table = (project / "clinic.csv").read_text().replace("Hx", f"{word}.")
    (project / "clinic.csv").write_text(table)
    changes = {"clinic": word, "Hx": f"{word}."}
    told(ibma, *(changes.get(each, each) for each in own_data.NEW))
    made = params.load()
    assert made.tables[word].modalities.keys() == {"pic", word}
    older = yaml.safe_load((project / "params.yaml").read_text())  # where `no` is a boolean
    assert params.parse(older, Path("params.yaml")) == made
    assert "60 samples, 0 rows dropped" in told(ibma, "check", word)


def test_what_is_to_be_predicted_is_no_input(project, ibma):
    label = ("new", "a", "--csv", "clinic.csv", "--label", "Dx (final)", "--image", "pic@pictures")
    for more in (
        ("--text", "Dx (final)"),
        ("--text", "Hx", "--numbers", "Dx (final)"),
        *(("--text", "Hx", f"--{role}", "Dx (final)") for role in ("id", "group", "split")),
    ):
        assert "tables.a.label: expected a column that nothing else" in refused(ibma, *label, *more)
    assert params.load().profile == "twin"


def test_options_that_do_not_fit_are_one_line_and_write_nothing(project, ibma):
    base = ("new", "a", "--csv", "clinic.csv", "--label", "Dx (final)", "--text", "Hx")
    image = ("--image", "pic@pictures")
    scores = [[*row[:2], str(i % 8 / 4), *row[3:]] for i, row in enumerate(own_data.rows())]
    own_data.write(project, scores, "score.csv")
    wrong = {
        (*base,): "expected two modalities or more",
        (*base, "--image", "pictures"): "expected COLUMN@FOLDER",
        (*base, "--image", "pix@pictures"): "column 'pix' is missing, its columns are",
        (*base, *image, "--id", "ID"): "column 'ID' is missing",
        (*base, *image, "--kind", "multilabel"): "tables.a.separator: expected what stands between",
        (*base, *image, "--kind", "classify", "--separator", ";"): "or kind multilabel, found",
        ("new", "a", "--csv", "score.csv", *base[4:], *image): "--kind sentiment learns a number",
        (*base, *image, "--split", "Fold", "--map", "dev"): "expected NAME=train",
        (*base, *image, "--split", "Fold", "--map", "dev=hold"): "expected NAME=train",
        (*base, *image, "--map", "dev=valid"): "expected --split too",
        ("new", "mosi", *base[2:], *image): "a data set is called so",
        ("new", "my-data", *base[2:], *image): "expected a name of letters",
        ("new", "a: [b", *base[2:], *image): "expected a name of letters",
        ("new", "../b", *base[2:], *image): "expected a name of letters",
        ("new", "list", *base[2:], *image): "expected a name of letters",
        ("new", "a", "--csv", "no.csv", "--label", "x", "--text", "t", *image): "no.csv: missing",
    }
    for arguments, line in wrong.items():
        assert line in refused(ibma, *arguments), arguments
    shipped = {path.name for path in (ROOT / "profiles").iterdir()}
    assert {path.name for path in (project / "profiles").iterdir()} == shipped
    assert params.load().profile == "twin"


@pytest.mark.parametrize("given", [("DEV=drop",), (" dev =drop",), ("dev=drop", "Dev=drop")])
def test_a_map_is_obeyed_however_its_name_is_spelt(project, ibma, given):
    plain = [word for word in own_data.NEW if word not in ("--map", "dev=valid")]
    told(ibma, *plain, *(word for each in given for word in ("--map", each)))
    assert "48 samples, 12 rows dropped" in told(ibma, "check", "clinic")


@pytest.mark.parametrize(("maps", "line"), {
    ("dev=valid", "TRAIN=drop", "Train=train"): "--map Train=train: another --map says =drop",
    ("dev=valid", "dev=test"): "--map dev=test: another --map says =valid: expected one of them",
    ("dev=valid", "nosuch=drop"): "--map nosuch=drop: no cell of 'Fold' says so: expected one of "
    "'dev', 'test', 'train'",
}.items())  # fmt: skip
def test_a_map_that_cannot_be_obeyed_is_refused(project, ibma, maps, line):
    plain = [word for word in own_data.NEW if word not in ("--map", "dev=valid")]
    assert line in refused(ibma, *plain, *(word for each in maps for word in ("--map", each)))
    assert params.load().profile == "twin"


def test_new_asks_for_a_project(tmp_path, ibma, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_data.write(tmp_path, own_data.rows())
    assert "run `ibma init FOLDER`" in refused(ibma, *own_data.NEW)


# --- check ---------------------------------------------------------------------------------------


def test_check_counts_and_names_what_will_be_dropped(project, ibma):
    table = own_data.rows()
    table[3][3] = "P2"  # a row for training; row 6 tests patient P3
    table[7][3] = "P0"  # a test row of a patient in train
    table[6][1], table[6][2], table[6][5] = "x0.png", "mass", table[0][5]  # row 0 again, in test
    table[9][2] = ""
    table[10][5] = ""
    own_data.write(project, table)
    (project / "pictures/x11.png").write_bytes(b"no picture")
    (project / "pictures/x16.png").write_bytes((project / "pictures/x0.png").read_bytes())
    told(ibma, *own_data.NEW)
    out = told(ibma, "check", "clinic")
    assert "clinic.csv: 58 samples, 2 rows dropped" in out
    assert "pic of 0 samples, Hx of 1 samples" in out
    assert "groups on both sides of train and test: 1 of 30: P0" in out
    assert "samples of equal content: 1 sets, 1 of them in several splits" in out
    assert "0000 (train), 0006 (test)" in out
    assert "files of equal content in several splits, beside those: 1 sets" in out
    assert "  pic: 0000 (train), 0006 (test), 0016 (test)" in out, "another text beside it"
    assert "0009: Dx (final) is empty" in out
    assert "0011: pictures/x11.png: cannot be decoded" in out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert (lines["train"], lines["valid"], lines["test"]) == (
        ["34", "18", "16"], ["12", "6", "6"], ["12", "6", "6"],
    )  # fmt: skip
    told(ibma, "profile", "twin")
    assert told(ibma, "check", "clinic") == out, "a profile that is not the present one"


@pytest.mark.parametrize(
    "spellings", [("P{}", "p{}"), ("{}", "{}.0"), ("0{}", "{}"), ("Ü {}", "ü{}")]
)
@pytest.mark.parametrize("drawn", [False, True], ids=["split", "folds"])
def test_check_sees_a_patient_on_both_sides_however_spelt(project, ibma, spellings, drawn):
    table = own_data.rows()
    for i, row in enumerate(table):
        row[3], row[4] = spellings[i % 2].format(i // 2 + 1), ("train", "test")[i % 2]
    own_data.write(project, table)
    options = dict(zip(own_data.NEW[2::2], own_data.NEW[3::2], strict=True)) | {"--text": "Hx"}
    del options["--map"]
    if drawn:
        del options["--split"]
    told(ibma, "new", "clinic", *(word for option in options.items() for word in option))
    out = told(ibma, "check", "clinic")
    first, second = (form.format(1) for form in spellings)
    shown = f"{first!a}, {second!a}: write one of them"
    assert f"PROBLEM: groups that differ in spelling alone: {shown}" in out
    assert "PROBLEM: groups that differ in spelling alone: 20 more" in out
    both = re.search("groups on both sides of train and test: (\\d+) of 30", out)[1]
    assert both == "30" or (drawn and int(both) > 10)


@pytest.mark.parametrize(
    ("spellings", "patients"),
    [(("1 11", "11 1"), 2), (("123456789012345678", "123456789012345679"), 2), (("-0", "0"), 1)],
    ids=["a site and a patient there", "more digits than a float has", "zero"],
)
def test_numbers_are_alike_by_their_value(project, ibma, spellings, patients):
    own_data.write(
        project, [[*row[:3], spellings[row[4] == "test"], *row[4:]] for row in own_data.rows()]
    )
    told(ibma, *own_data.NEW)
    both = f"both sides of train and test: {2 - patients} of {patients}"
    assert both in told(ibma, "check", "clinic")


def test_check_shows_what_a_terminal_would_obey(project, ibma):
    table = own_data.rows()
    table[3][0], table[4][2] = "a\x1b[2Jb", "mass\x07"
    own_data.write(project, table)
    told(ibma, *own_data.NEW)
    out = told(ibma, "check", "clinic")
    assert "a\\U0000001b[2Jb: X-ray file" in out and "mass\\U00000007" in out
    assert all(letter.isprintable() for letter in out if letter != "\n")


def test_ids_that_differ_in_spelling_are_no_groups(project, ibma):
    own_data.write(
        project, [[f"{'xX'[i % 2]}{i // 2}", *row[1:]] for i, row in enumerate(own_data.rows())]
    )
    options = [*own_data.NEW]
    del options[options.index("--group") : options.index("--group") + 2]
    told(ibma, *options)
    out = told(ibma, "check", "clinic")
    assert "PROBLEM" not in out and "both sides of train and test: 0 of 60" in out


def test_check_says_what_would_stop_the_pipeline(project, ibma):
    told(ibma, *own_data.NEW)
    own_data.write(project, [row for row in own_data.rows() if row[4] != "test"])
    assert "PROBLEM: no sample of split test" in told(ibma, "check", "clinic")
    own_data.write(project, [[*row[:3], "P", *row[4:]] for row in own_data.rows()])
    assert "PROBLEM: every training sample is of group 'P'" in told(ibma, "check", "clinic")
    table = own_data.rows()
    table[6][2] = "rare"
    own_data.write(project, table)
    told(ibma, *own_data.NEW, "--force")
    lost = "PROBLEM: classes in test and not in train, which nothing can learn: rare"
    assert lost in told(ibma, "check", "clinic")
    drawn = [option for option in own_data.NEW if option not in ("--map", "dev=valid")]
    del drawn[drawn.index("--split") : drawn.index("--split") + 2]
    told(ibma, *drawn, "--force")
    lost = "PROBLEM: classes in one fold alone, which nothing can learn: rare"
    assert lost in told(ibma, "check", "clinic")
    told(ibma, *own_data.NEW, "--force")
    table = own_data.rows()
    table[4][4] = "evaluation"
    own_data.write(project, table)
    assert "line 6: Fold 'evaluation': expected train, valid or test" in refused(
        ibma, "check", "clinic"
    )
    assert "neither a data set of params.yaml nor a profile" in refused(ibma, "check", "clinics")


def test_check_says_what_float32_cannot_tell_apart(project, ibma):
    table = own_data.rows()
    for row in table:
        row[6] = str(1_700_000_000 + int(row[6]) % 2)
    own_data.write(project, table)
    told(ibma, *own_data.NEW, "--numbers", "age")
    line = "PROBLEM: column 'age': values around 1.7e+09 differ by 1, less than float32 holds"
    assert line in told(ibma, "check", "clinic")


CONTRACT = """
from ibma.datasets import Card, Counts, Sample
CARD = Card(title="Parity", kind={kind!r}, classes=("even", "odd"),
            modalities={{"a": {modality!r}, "b": "text"}}, licence="none", access="builtin",
            official=Counts(40, 20), cite="none")
FILES = ()

def samples({arguments}):
    for i in range(60):
        split = "test" if i % 3 == 0 else "train"
        yield Sample({id}, split, f"g{{i % 20}}", {label}, {{"a": ({part},), "b": "words"}})
"""
RIGHT = {"kind": "classify", "modality": "vector", "arguments": "raw, *, on_bad='stop'"} | {
    "id": "str(i)", "label": "i % 2", "part": "i / 60",
}  # fmt: skip


def test_a_data_set_in_python_is_tried_on_ten_rows(project):
    """In the project's own code, which is what `ibma` runs there."""
    values = yaml.safe_load((project / "profiles/twin.yaml").read_text())
    mlp = {"name": "mlp", "hidden": [8]}
    bert = {"name": "bert", "vocab_size": 512, "hidden_size": 16, "layers": 1, "heads": 2}
    values["datasets"]["parity"] = {"source": "real"}
    values["tasks"]["parity"] = {
        "dataset": "parity", "batch_size": 16, "encoders": {"a": mlp, "b": bert},
    }  # fmt: skip
    (project / "params.yaml").write_text(yaml.safe_dump(values))

    def check(**changed) -> tuple[int, str]:
        code = CONTRACT.format(**RIGHT | changed)
        (project / "src/ibma/datasets/parity.py").write_text(code)
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # of one second Python may take the older code
        done = subprocess.run(
            [sys.executable, "-m", "ibma", "check", "parity"],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.stderr.count("\n") == bool(done.returncode), done.stderr
        return done.returncode, done.stdout + done.stderr

    code, out = check()
    assert code == 0 and "9: test, group g9, label 1: a float32 [1]; b int32 [128]" in out
    assert out.endswith("10 rows are as they should be\n")
    wrong = {
        "CARD.kind 'classification': expected one of classify": {"kind": "classification"},
        "CARD.modalities: 'a' is 'picture': expected one of": {"modality": "picture"},
        "samples: argument 'size': expected samples(raw, *": {
            "arguments": "raw, size=3, on_bad=''"
        },
        "expected samples(raw, *, on_bad='stop', ...)": {"arguments": "raw"},
        "sample 0: this id is there twice": {"id": "'0'"},
        "sample 0: label True: expected a whole number": {"label": "True"},
        "sample 0: 'a': ('x',) is no vector": {"part": "'x'"},
    }
    for line, changed in wrong.items():
        code, out = check(**changed)
        assert code == 1 and line in out, out


# --- docs/own-data.md ----------------------------------------------------------------------------

PAGE = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def shown(start: str) -> str:
    """The block of the page that begins so."""
    return next(block for _, block in BLOCKS if block.startswith(start))


def test_every_block_of_the_page_says_what_happens(tmp_path, monkeypatch):
    """But for `dvc repro` and what follows it, which the next test runs."""
    monkeypatch.chdir(tmp_path)
    command = tmp_path / "bin/ibma"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ibma "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))

    def run(block: str) -> str:
        done = subprocess.run(block, shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(shown("ibma init"))
    monkeypatch.chdir(tmp_path / "project")
    table = own_data.write(Path(), own_data.example())
    assert table.read_text().startswith(shown("X-ray file"))
    assert run(shown("ibma new")) == shown("profiles/clinic.yaml is written")
    assert run(shown("ibma check clinic")) == shown("clinic.csv: 58")
    (clinic,) = params.load().tasks.values()
    changed = clinic.as_dict()
    *lines, mine = (block for kind, block in BLOCKS if kind == "yaml")
    for block, reader in zip(lines, ("mlp", "auto"), strict=True):
        for key, entry in yaml.safe_load(block).items():
            changed[key] |= entry
        assert reader in params.TaskParams.model_validate(changed).features["pic"].readers

    Path("src/ibma/datasets/mine.py").write_text(shown("from ibma.datasets"))
    values = yaml.safe_load(Path("profiles/twin.yaml").read_text())
    for key, entry in yaml.safe_load(mine).items():
        values[key] |= entry
    twin = values["tasks"]["crema_d"]
    assert set(values["tasks"]["mine"]) == set(twin), "DVC wants every key of a task"
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert run(shown("ibma check mine")).endswith("10 rows are as they should be\n")
    assert {kind for kind, _ in BLOCKS} == {"sh", "text", "yaml", "python"} and len(BLOCKS) == 14


def test_every_option_of_new_is_on_the_page():
    options = {name for name in inspect.signature(cli.new).parameters if name != "name"}
    assert {f"--{name}" for name in options} <= set(re.findall(r"--\w+", PAGE))


# --- the whole way -------------------------------------------------------------------------------


def stages(*names: str) -> None:
    for name in names:
        done = subprocess.run(
            [sys.executable, f"stages/{name.split()[0]}.py", *name.split()[1:]],
            capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_table_becomes_a_report_and_predictions(project, ibma):
    table = own_data.rows()
    table[1][5] = ""
    own_data.write(project, table)
    told(ibma, *own_data.NEW)
    for path in (project / "profiles/clinic.yaml", project / "params.yaml"):
        own_data.shrink(path)
    dvc = [sys.executable, "-m", "dvc", "repro"]
    done = subprocess.run(dvc, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout

    out = project / "reports/clinic"
    tables = {path.stem for path in (out / "tables").glob("*.md")}
    assert {"leaderboard", "real_clinic", "real_claims"} <= tables
    assert not [name for name in tables if name[:2].isdigit() or name == "audit"], "the paper's"
    page = (out / "index.html").read_text()
    assert "Is IBMA better on these data?" in page and "Where the networks look" in page
    text = re.sub('src="[^"]*"', "", page)  # without figures
    gaps = set(re.findall("not run[^<]*", html.unescape(text)))
    assert gaps == {"not run: 'pic' is image, no vector"}, "of logistic regression alone"
    assert "The paper's tables" not in page
    assert [path.name for path in (project / "reports").iterdir()] == ["clinic"]

    # a changed table is seen, one that is as it was trains nothing
    again = subprocess.run(dvc, capture_output=True, text=True)
    assert "Running stage 'tables@clinic'" in again.stdout
    assert again.stdout.count("Running stage") == 1
    _, _, weights, *options = shlex.split(shown("ibma predict"))
    assert shown("dvc repro") == "dvc repro\n" and options[::2] == ["--input", "--output"]
    _predicts(project, ibma, weights)
    (project / "clinic.csv").write_text((project / "clinic.csv").read_text().replace("lungs", "x"))
    subprocess.run([*dvc, "extract@clinic"], capture_output=True, check=True)
    assert "stale, parameters, data or code are others now" in refused(
        ibma, "predict", weights, "--input", "clinic.csv", "--output", "p.csv"
    )


def _predicts(project: Path, ibma, weights: str) -> None:
    """Every row of a new table gets a line, whatever is wrong with it."""
    out = told(ibma, "predict", weights, "--input", "clinic.csv", "--output", "p.csv")
    assert out == "p.csv: 60 rows predicted, 0 not\n"
    found = list(csv.DictReader((project / "p.csv").open()))
    record = json.loads((project / "runs/train_ibma/clinic/ibma/seed_0.json").read_text())
    test = [row for row in own_data.rows() if row[4] == "test"]
    answers = {row["id"]: row["predicted"] for row in found}
    right = sum(answers[row[0]] == row[2] for row in test) / len(test)
    assert right == pytest.approx(record["metrics"]["accuracy"]), "what the record says of test"
    for row in found:
        assert abs(float(row["p(mass)"]) + float(row["p(normal)"]) - 1) < 1e-5
        assert (row["record"], row["ibma"], row["reason"]) == (record["key"], "0.1.0", "")

    new = own_data.rows(3000)
    for row in new:
        row[1] = f"x{int(row[0]) % 60}.png"
    new[0][1], new[1][5], new[2][2], new[3][1] = "gone.png", "", "cyst", ""
    new[4][1] = new[4][5] = ""
    new[5].append("one cell too many")
    new[2999][0] = "0001"
    own_data.write(project, [row for row in new if row[1] == "none"], "new.csv")
    with (project / "new.csv").open("a", newline="") as file:
        csv.writer(file).writerows(new)
    out = told(ibma, "predict", f"{weights}.safetensors", "--input", "new.csv", "--output", "q.csv")
    assert "1 rows with a label that was not learnt: Dx (final) 'cyst'" in out
    assert out.endswith("q.csv: 2996 rows predicted, 4 not: column `reason` says why\n")
    lines = list(csv.DictReader((project / "q.csv").open()))
    assert len(lines) == 3000
    reasons = {row["id"]: row["reason"] for row in lines if row["reason"]}
    assert reasons == {
        "0000": "pictures/gone.png: no such file, named in column 'pic'",
        "0004": "no modality is there",
        "line 7": "8 cells, expected 7",
        "line 3001": "'0001' is already in line 3",
    }
    assert all(not row["predicted"] for row in lines if row["reason"])

    ids = ["0012", "NA", "None", "1e3"]
    texts = "".join(f"{name},round opacity\n" for name in ids)
    (project / "texts.csv").write_text(f"X-ray file,Hx\n{texts}")
    out = told(ibma, "predict", weights, "--input", "texts.csv", "--output", "t.csv")
    assert "no column 'pic': every row is predicted without pic" in out
    assert "4 rows predicted" in out
    assert [row["id"] for row in csv.DictReader((project / "t.csv").open())] == ids
    (project / "ids.csv").write_text("Hx\nx\n")
    arguments = ("--output", "t.csv")
    assert "no column 'X-ray file', the ids" in refused(
        ibma, "predict", weights, "--input", "ids.csv", *arguments
    )
    (project / "other.csv").write_text("X-ray file\nx\n")
    assert "none of the columns pic, Hx" in refused(
        ibma, "predict", weights, "--input", "other.csv", *arguments
    )
    line = refused(ibma, "predict", project.parent / weights, "--input", "clinic.csv", *arguments)
    assert "not of the project in this folder" in line
    for wrong in ("seed_0", "models/train_ibma/clinic/ibma", "models/train/clinic/concat/seed_9"):
        line = refused(ibma, "predict", wrong, "--input", "clinic.csv", *arguments)
        assert "expected models/<stage>" in line or "the record of" in line
    bare = (project / "texts.csv").read_text().replace(",", ";")  # as a spreadsheet saves it
    (project / "texts.csv").write_text(f"\ufeff{bare}")
    assert "4 rows predicted" in told(ibma, "predict", weights, "--input", "texts.csv", *arguments)
    (project / "link.csv").symlink_to("texts.csv")
    inputs = {name: (project / name).read_bytes() for name in ("texts.csv", "clinic.csv")}
    for name in ("texts.csv", "link.csv", "clinic.csv"):
        line = refused(ibma, "predict", weights, "--input", "texts.csv", "--output", name)
        assert f"{name}: is an input, it would be lost" in line
    assert inputs == {name: (project / name).read_bytes() for name in inputs}
    for name, line in (("pictures", "is a folder, pipe"), ("texts.csv/p.csv", "expected a folder")):
        assert line in refused(ibma, "predict", weights, "--input", "texts.csv", "--output", name)
    moved = ("--folder", "Hx=pictures")
    assert "expected MODALITY=FOLDER of pic" in refused(
        ibma, "predict", weights, "--input", "clinic.csv", *arguments, *moved
    )


def test_a_relative_table_is_the_projects_also_in_an_experiments_copy(project, monkeypatch):
    copy = project / paths.EXPERIMENTS / "tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    table = TableData("clinic", own_data.spec())
    assert table.path == project / "clinic.csv"
    assert len(list(table.samples(table.path))) == 60


def test_a_block_that_says_two_things_at_once_is_one_line(project, ibma):
    told(ibma, *own_data.NEW)
    values = yaml.safe_load((project / "profiles/clinic.yaml").read_text())
    wrong = {
        "tables.clinic.folds: expected 2 or more without": {"split": None, "splits": {}},
        "tables.clinic.splits.dev: expected train": {"splits": {"dev": "training"}},
        "tables.clinic.label: expected one column": {"label": ["Fold", "Hx"]},
        "tables.clinic.range: expected [lowest": {"kind": "sentiment"},
        "tables.clinic.classes: expected two classes": {"classes": ["mass"]},
        "tables.clinic.classes: expected names that differ and": {"classes": ["é", "e\u0301"]},
        "tables.clinic.classes: expected names that differ": {"classes": ["", "mass"]},
        "tasks.clinic.encoders: expected the modalities": {
            "modalities": {"Hx": {"kind": "text", "columns": ["Hx"]}}
        },
    }
    for line, changed in wrong.items():
        block = {"clinic": values["tables"]["clinic"] | changed}
        with pytest.raises(IbmaError) as caught:
            params.parse(values | {"tables": block}, Path("params.yaml"))
        assert line in str(caught.value), caught.value
