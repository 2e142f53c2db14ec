"""`ibma verify`: committed reports against committed evidence, or against the records here."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import test_report
import yaml
from test_report import ROOT, fake, fill

from ibma import cli, params
from ibma.errors import IbmaError
from ibma.evidence import archive, verify
from ibma.evidence.verify import Difference
from ibma.report import inputs, numbers, page
from ibma.results import records
from ibma.training.record import RunId


def keep_methods(path: Path) -> params.Params:
    """Leave the methods of which the fixture has records."""
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    raw["train"] = {name: {} for name in ("concat", "omib")}
    raw["bounds"], raw["train_ibma"] = {}, {"ibma": {}}
    raw["regimes"]["tasks"], raw["noise"]["tasks"] = [], {}
    path.write_text(yaml.safe_dump(raw))
    return params.load(path)


@pytest.fixture(autouse=True)
def current(monkeypatch):
    monkeypatch.setattr(records, "is_current", lambda *_: True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records, the report made of them, and their evidence."""
    root = fill(tmp_path_factory.mktemp("made"))
    profile = keep_methods(root / "params.yaml")
    for name, variant in profile.variants("sensitivity", "crema_d").items():
        for seed in range(profile.seeds):
            one = fake("crema_d", "ibma", seed, params={"lr": 0.001, "eta": variant.eta})
            one = replace(one, stage="sensitivity", method=name, digest="")
            one.write(root / one.id.record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "is_current", lambda *_: True)
        patch.setattr(test_report, "PROFILE", profile)
        test_report.derive(root)
        page.write(profile, root)
        assert archive.pack(profile, root, archive.folder(root, "twin")) == []
    return root


@pytest.fixture(scope="module")
def recomputed(made) -> numbers.Numbers:
    """What the evidence gives, computed once."""
    return numbers.build(inputs.rederive(verify.read("twin", made)[0]))


@pytest.fixture
def reported(made, tmp_path):
    """Records and a report; nothing committed."""
    shutil.copytree(made, tmp_path / "reported")
    shutil.rmtree(archive.folder(tmp_path / "reported", "twin"))
    return tmp_path / "reported"


@pytest.fixture
def cloned(made, tmp_path):
    """What git would carry: a report with evidence, neither runs/ nor data/."""
    shutil.copytree(made / "reports", tmp_path / "cloned/reports")
    return tmp_path / "cloned"


def differences(root: Path) -> tuple[Difference, ...]:
    return verify.verify("twin", root).differences


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_clone_without_runs_or_data_is_confirmed_by_its_evidence(cloned):
    assert verify.profiles(cloned) == ["twin"]
    found = verify.verify("twin", cloned)
    assert found.differences == () and found.compared > 3000 and found.source == "evidence"
    profile = params.load(archive.folder(cloned, "twin") / "params.yaml")
    assert found.runs == len(list(profile.cells())) * profile.seeds


def compare(root: Path, recomputed: numbers.Numbers) -> list[Difference]:
    places = verify._compare(root / "reports/twin", recomputed)
    return [place for place in places if place.committed != place.recomputed]


def test_a_changed_number_is_found_in_every_file(cloned, recomputed):
    reports = cloned / "reports/twin"
    for name, old, new, place in (
        ("tables/table_02.csv", ",66,", ",66.00001,", "row"),
        ("tables/table_02.md", "66.0", "66.1", "line"),
        ("tables/table_02.tex", "66.0", "66.1", "line"),
        ("tables/real_claims.csv", "IBMA better", "IBMA worse", "row"),
        ("metrics/crema_d.json", "66.0", "66.1", "ibma"),
        ("plots/metrics.csv", "crema_d/ibma,66", "crema_d/ibma,67", "row"),
    ):
        before = (reports / name).read_text()
        edit(reports / name, old, new)
        (one,) = compare(cloned, recomputed)
        assert one.file == name and one.place.startswith(place), one
        assert one.committed != one.recomputed
        (reports / name).write_text(before)


def test_numbers_are_compared_as_numbers(cloned, recomputed):
    """Another way to write a number is no difference; one part in a million is."""
    path = cloned / "reports/twin/tables/table_02.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("ours")
    place = next(i for i, row in enumerate(rows) if row[0].startswith("IBMA") and row[column])
    for text, count in (("6.6e1", 0), ("66.00006", 1), ("inside", 1)):
        rows[place][column] = text
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        assert len(compare(cloned, recomputed)) == count, text


def test_a_table_too_few_or_too_many_is_named(cloned, recomputed):
    tables = cloned / "reports/twin/tables"
    (tables / "table_05.csv").rename(tables / "old.csv")
    files = {one.file for one in compare(cloned, recomputed)}
    assert files == {"tables/table_05.csv", "tables/old.csv"}


def test_a_missing_seed_is_named(reported):
    (reported / RunId("train", "iemocap", "omib", 2).record).unlink()
    found = Difference("records", "train/iemocap/omib", "1 of 3 runs not run: no record", "")
    assert found in differences(reported)


def test_records_here_serve_where_nothing_is_committed(reported):
    assert verify.profiles(reported) == ["twin"]
    assert verify.verify("twin", reported).source == "records" and not differences(reported)
    one = fake("crema_d", "ibma", 0)
    (reported / one.id.record).unlink()
    assert any("table_02" in other.file for other in differences(reported))
    one.write(reported / one.id.record)
    assert not differences(reported)


def test_a_changed_record_is_refused(reported):
    path = reported / RunId("train_ibma", "crema_d", "ibma", 0).record
    edit(path, '"accuracy": 0.65', '"accuracy": 0.99')
    with pytest.raises(IbmaError, match="changed since it was written"):
        differences(reported)


def test_nothing_to_check_is_one_line(tmp_path, reported):
    with pytest.raises(IbmaError, match="neither reports/<profile>/evidence/ nor records"):
        verify.profiles(tmp_path / "empty")
    with pytest.raises(IbmaError, match="no evidence of profile 'open' is committed"):
        verify.verify("open", reported)


def test_the_command_counts_and_fails_in_one_line(cloned, monkeypatch, capsys):
    monkeypatch.chdir(cloned)
    monkeypatch.setattr("sys.argv", ["ibma", "verify"])
    (cloned / "reports/paper/tables").mkdir(parents=True)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "profile twin: " in said and "places of the committed reports agree with" in said
    assert "profile paper: not checked" in said
    metrics = cloned / "reports/twin/metrics/crema_d.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"ibma": 70.0}))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    assert stopped.value.code == 1 and said.err.count("\n") == 1
    assert "crema_d.json" in said.out and "the first in metrics/crema_d.json" in said.err


@pytest.mark.parametrize(
    "profile", [p.parent.parent.name for p in ROOT.glob("reports/*/evidence/SHA256SUMS")]
)
def test_the_committed_reports_are_those_of_their_evidence(profile):
    found = verify.verify(profile, ROOT)
    assert found.differences == () and found.compared > 10_000
