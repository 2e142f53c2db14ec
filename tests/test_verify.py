"""`ibma verify`: committed reports against committed evidence, or against the records here."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from test_report import PROFILE, ROOT, fake, fill

from ibma import cli
from ibma.errors import IbmaError
from ibma.evidence import archive, verify
from ibma.evidence.verify import Difference
from ibma.files import read_json, write_json
from ibma.report import page


def replace_methods(path: Path):
    """Leave the methods of which the fixture has records."""
    raw = yaml.safe_load(path.read_text())
    raw["methods"] = {name: {} for name in ("concat", "ce3", "omib")}
    raw["variants"] = {"ibma": {}, "ibma_no_align": {"align": False}}
    raw["probe"]["methods"] = raw["gradcam"]["methods"] = ["ibma"]
    path.write_text(yaml.safe_dump(raw))
    return verify.load(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records, the reports made of them, and their evidence."""
    project = fill(tmp_path_factory.mktemp("made"))
    shutil.copy(ROOT / "profiles/twin.yaml", project / "params.yaml")
    trial = {"run_fold": None, "fold": 0, "lr": 0.001, "weight_decay": 1e-6, "eta": 0.5}
    tuned = {"task": "crema_d", "method": "ibma", "metric": "accuracy"}
    tuned |= {"choices": [trial | {"score": 1 / 3}], "scores": [trial | {"score": 1 / 3}]}
    write_json(project / "data/tune/crema_d/ibma.json", tuned)
    for eta in PROFILE.sensitivity.etas:
        for seed in range(PROFILE.seeds):
            fake("crema_d", "ibma", seed).write(project / f"runs/crema_d/ibma_eta_{eta:g}")
    params = replace_methods(project / "params.yaml")
    verify._derive(params, project)
    page.write_numbers(params, project, project / "reports/twin")
    assert archive.pack(params, project, archive.folder(project, "twin")) == []
    return project


@pytest.fixture
def reported(made, tmp_path):
    """Records and reports; nothing committed."""
    here = tmp_path / "reported"
    shutil.copytree(made, here)
    shutil.rmtree(archive.folder(here, "twin"))
    return here


@pytest.fixture
def cloned(made, tmp_path):
    """What git would carry: reports with evidence, neither runs/ nor data/."""
    shutil.copytree(made / "reports", tmp_path / "cloned/reports")
    return tmp_path / "cloned"


def differences(root: Path) -> tuple[Difference, ...]:
    return verify.verify("twin", root).differences


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_clone_without_runs_or_data_is_confirmed_by_its_evidence(cloned: Path) -> None:
    assert verify.profiles(cloned) == ["twin"]
    found = verify.verify("twin", cloned)
    assert found.differences == () and found.compared > 2000 and found.source == "evidence"
    grid = len(PROFILE.tasks) * 5 * PROFILE.seeds
    assert found.runs == grid + len(PROFILE.sensitivity.etas) * PROFILE.seeds


def test_records_come_back_bit_for_bit(reported: Path, cloned: Path, tmp_path: Path) -> None:
    archive.unpack(archive.folder(cloned, "twin"), tmp_path / "again")
    inputs = ("data/tune/crema_d/ibma.json", "data/features/crema_d/meta.json")
    records = [path.relative_to(reported) for path in (reported / "runs").rglob("*.json")]
    for name in (*records, *inputs):
        assert read_json(tmp_path / "again" / name, 1) == read_json(reported / name, 2)


def test_one_last_digit_of_a_committed_number_is_found(cloned: Path) -> None:
    path = cloned / "reports/twin/tables/table_02.csv"
    rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
    place = next(i for i, row in enumerate(rows) if row[0].startswith("IBMA") and row[3])
    rows[place][3] = rows[place][3].replace("66.0", "66.1")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    (one,) = differences(cloned)
    assert one.file == f"tables/{path.name}" and one.place.endswith("Ours (mean, sd)")
    assert (one.committed[:4], one.recomputed[:4]) == ("66.1", "66.0")


@pytest.mark.parametrize("name", ["metrics.json", "tables/table_02.md", "tables/table_02.tex"])
def test_other_files_are_compared_line_by_line(cloned: Path, name: str) -> None:
    edit(cloned / "reports/twin" / name, "66.0", "66.1")
    (one,) = differences(cloned)
    assert one.file == name and one.place.startswith("line ")


def test_one_digit_of_a_record_is_found(cloned: Path) -> None:
    path = archive.folder(cloned, "twin") / "runs/crema_d/ibma.jsonl"
    edit(path, '"accuracy":0.65', '"accuracy":0.6500001')  # no table prints as much
    (one,) = differences(cloned)
    assert (one.file, one.place) == ("evidence", "runs/crema_d/ibma.jsonl")
    edit(path, '"accuracy":0.6500001', '"accuracy":0.75')
    assert any(one.file == "tables/table_02.csv" for one in differences(cloned))


def test_a_missing_seed_is_named(cloned: Path) -> None:
    path = archive.folder(cloned, "twin") / "runs/iemocap/omib.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert Difference("evidence", "iemocap/omib: seed 2", "missing", "") in differences(cloned)


def test_a_table_too_few_or_too_many_is_named(cloned: Path) -> None:
    tables = cloned / "reports/twin/tables"
    (tables / "table_05.csv").rename(tables / "old.csv")
    files = {one.file for one in differences(cloned)}
    assert files == {"tables/table_05.csv", "tables/old.csv"}


def test_a_broken_record_is_one_line(cloned: Path) -> None:
    edit(archive.folder(cloned, "twin") / "runs/crema_d/ibma.jsonl", "{", "")
    with pytest.raises(IbmaError, match=r"ibma.jsonl: line 1: not a record"):
        differences(cloned)


def test_a_cell_that_left_the_profile_leaves_the_evidence(reported: Path) -> None:
    params = verify.load(reported / "params.yaml")
    out = archive.folder(reported, "twin")
    old = out / "runs/crema_d/gone.jsonl"
    old.parent.mkdir(parents=True)
    old.write_text("{}\n")
    archive.pack(params, reported, out)
    assert not old.exists() and archive.altered(out) == []


def test_evidence_is_one_compact_line_a_seed(cloned: Path) -> None:
    lines = (archive.folder(cloned, "twin") / "runs/crema_d/ibma.jsonl").read_text().splitlines()
    assert len(lines) == PROFILE.seeds
    for line in lines:
        assert json.dumps(json.loads(line), separators=(",", ":")) == line


def test_records_here_serve_where_nothing_is_committed(reported: Path) -> None:
    assert verify.profiles(reported) == ["twin"]
    assert verify.verify("twin", reported).source == "records" and not differences(reported)
    (reported / "runs/crema_d/ibma/seed_0.json").unlink()
    found = differences(reported)
    assert found[0].place == "crema_d/ibma: seed 0"
    assert any("table_02" in one.file for one in found)
    fake("crema_d", "ibma", 0).write(reported / "runs/crema_d/ibma")
    assert not differences(reported)


def test_nothing_to_check_is_one_line(tmp_path: Path, reported: Path) -> None:
    with pytest.raises(IbmaError, match="neither reports/<profile>/evidence/ nor records"):
        verify.profiles(tmp_path / "empty")
    with pytest.raises(IbmaError, match="no evidence of profile 'open' is committed"):
        verify.verify("open", reported)


def test_the_command_counts_and_fails_in_one_line(cloned: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(cloned)
    monkeypatch.setattr("sys.argv", ["ibma", "verify"])
    (cloned / "reports/paper/tables").mkdir(parents=True)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "profile twin: " in said and "places of the committed reports agree with" in said
    assert "profile paper: not checked" in said
    edit(cloned / "reports/twin/metrics.json", "66.0", "66.1")
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    assert stopped.value.code == 1 and said.err.count("\n") == 1
    assert "metrics.json" in said.out and "the first in metrics.json" in said.err


def test_archive_writes_the_evidence_and_names_what_is_missing(reported, monkeypatch, capsys):
    (reported / "runs/crema_d/ibma/seed_0.json").unlink()
    monkeypatch.chdir(reported)
    monkeypatch.setattr("sys.argv", ["ibma", "archive"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    assert stopped.value.code == 0 and said.out.startswith("reports/twin/evidence: ")
    assert said.err == "missing: crema_d/ibma: seed 0\n"
    assert archive.altered(archive.folder(reported, "twin")) == []


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("65.4 ± 0.4", "65.5 ± 0.4", True),
        ("65.4 ± 0.4", "65.6 ± 0.4", False),
        ("p = 1.2e-06", "p = 1.3e-06", True),
        ("1,281", "1,282", False),
        ("inside", "outside", False),
        ("[1.0, 2.0]", "[1.0]", False),
        ("", "", True),
    ],
)
def test_agreement_with_records_of_another_machine_is_up_to_the_last_digit(one, other, agree):
    assert verify._agree(Difference("", "", one, other), exact=False) is agree
    assert verify._agree(Difference("", "", one, other), exact=True) is (one == other)
