"""From records to tables, files and page: the same numbers everywhere, TWIN marked, gaps named."""

import csv
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import record_of

from ibma import params
from ibma.files import write_json, write_plain_json
from ibma.paper import audit, published
from ibma.report import (
    figures,
    formatting,
    inputs,
    numbers,
    page,
    paper_tables,
    pictures,
    plots,
    real_tables,
    table,
    verdict,
)
from ibma.report.paper_tables import Line, Verdict
from ibma.report.table import Column, Mark, Number, Row, Table
from ibma.results import forms, records, significance
from ibma.results.records import Results
from ibma.training.record import Record, RunId

ROOT = Path(__file__).parent.parent
PROFILE = params.load(ROOT / "profiles/twin.yaml")
ACCURACY = {"concat": 0.50, "ce3": 0.60, "omib": 0.55, "ibma": 0.65, "ibma_no_align": 0.62}
AWKWARD = ("50% effusion", "b|c (left)", "<script>alert(1)</script>", "$% and $^", "a_b\\*[c]\n`d`")


def fake(task: str, method: str, seed: int, **changed: object) -> Record:
    """Make a record whose accuracy grows by 1 point a seed for IBMA, by 2 for the others."""
    value = ACCURACY[method] + 0.01 * seed * (1 if method == "ibma" else 2)
    if task == "chexpert":
        metrics = {"mauc": value, "auc/Edema": value, "auc/Consolidation": None, "mauc_defined": 4}
        ib = {"image": -0.01 * seed, "text": -0.02, "fused": -0.03}
    else:
        metrics, ib = {"accuracy": value}, {"audio": -0.01, "fused": -0.02}
    made = record_of(
        key=f"{task}/{method}/{seed}",
        weights=f"{task}/{method}/{seed}",
        stage=PROFILE.stage_of(method),
        task=task,
        method=method,
        seed=seed,
        source="real" if task == "split_digits" else "twin",
        metrics=metrics,
        ib=ib,
        ib_before=ib,
        history={"task": [2.0, 1.0 + value]},
    )
    eta = {"eta": 0.5 if "ibma" in method else None}
    own = made.params | eta | dict(PROFILE.method(method).hparams)
    return replace(made, **({"params": own} | changed), digest="")


def write(root: Path, one: Record) -> None:
    one.write(root / one.id.record)


def fill(root: Path) -> Path:
    """Write records of some methods on every task, and what the stages around them leave."""
    for task in PROFILE.tasks:
        for method in ACCURACY:
            for seed in range(PROFILE.seeds):
                write(root, fake(task, method, seed))
        meta = {"source": "real" if task == "split_digits" else "twin", "classes": list("abc")}
        meta |= {"counts": {"train": 10, "test": 5}, "dropped": 2, "folds": 0}
        write_json(root / "data/features" / task / "meta.json", meta)
    return root


def derive(root: Path) -> None:
    """Write what stages `significance` and `audit` make of the records."""
    tests = significance.run(PROFILE, records.load(PROFILE, root), published.load())
    write_json(root / "data/significance.json", significance.to_json(tests))
    write_json(root / "data/audit.json", [asdict(c) for c in audit.run(published.load())])


@pytest.fixture(autouse=True)
def current(monkeypatch):
    """Count every record: no key of a made-up record fits."""
    monkeypatch.setattr(records, "is_current", lambda *_: True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records, tests and a report; nothing may change it."""
    root = fill(tmp_path_factory.mktemp("made"))
    write_json(root / "data/track.json", {"runs/train_ibma/crema_d/ibma/seed_1.json": "8f3b"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "is_current", lambda *_: True)
        patch.setattr(pictures, "_draw_curves", lambda *_: None)  # slow, and no part of the page
        derive(root)
        page.write(PROFILE, root)
    return root


@pytest.fixture
def project(made, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "project")
    return tmp_path / "project"


def read(root: Path) -> inputs.Inputs:
    return inputs.load(PROFILE, root)


def lines(root: Path, number: int) -> list[Line]:
    return paper_tables.lines_of(read(root), number)


def line(root: Path, number: int, start: str, column: str = "") -> Line:
    own = (x for x in lines(root, number) if x.row.startswith(start))
    return next(x for x in own if not x.other_reading and x.column.startswith(column))


def tables(root: Path) -> dict[str, Table]:
    return {made.key: made for made in numbers.build(read(root)).tables}


def by_heading(made: Table) -> list[dict[str, object]]:
    """Return the rows of a table, each by the headings of its columns."""
    headings = [column.heading for column in made.columns]
    return [dict(zip(headings, row.values, strict=True)) for row in made.rows]


# --- numbers -------------------------------------------------------------------------------------


def test_a_line_holds_numbers_and_no_text_of_them(made):
    one = line(made, 2, "IBMA")
    assert one.published == Number(65.4, "percent", sd=0.4, mark=Mark.BEST)
    ours = one.ours
    assert (round(ours.value, 6), round(ours.sd, 6), ours.n, ours.mark) == (66, 1, 3, Mark.BEST)
    assert (round(ours.low, 3), round(ours.high, 3)) == (63.516, 68.484)  # 66 -+ 4.3027 / sqrt 3
    assert one.flat()["difference"] == pytest.approx(0.6)
    assert one.verdict == Verdict.TWIN and one.source == "runs/train_ibma/crema_d/ibma"


def test_real_records_get_a_verdict_and_one_run_gets_none(project):
    for seed in range(3):
        for method in ACCURACY:
            write(project, fake("crema_d", method, seed, source="real"))
        write(project, fake("crema_d", "concat", seed, source="real", metrics={"accuracy": 0.9}))
    assert line(project, 2, "IBMA").verdict == Verdict.INSIDE  # 65.4 in [63.5, 68.5]
    assert line(project, 2, "Concat").verdict == Verdict.OUTSIDE
    for seed in (1, 2):
        (project / RunId("train_ibma", "crema_d", "ibma", seed).record).unlink()
    assert line(project, 2, "IBMA").verdict == Verdict.ONE_RUN
    cells = [
        row.values for row in tables(project)["02"].rows if str(row.values[0]).startswith("IBMA")
    ]
    assert "no verdict: one run" in str(cells)


def test_a_published_number_at_the_end_of_an_interval_is_inside(made):
    given = read(made)
    given = replace(given, results=replace(given.results, runs={}))
    target = given.paper.table(2).target("ibma", "crema_d.accuracy")
    ours = Number(65.0, low=60.0, high=70.0, n=3)
    for value, said in ((60.0, "inside"), (70.0, "inside"), (59.9, "outside"), (70.1, "outside")):
        assert paper_tables._verdict(given, target, Number(value), ours).value == said


def test_the_interval_of_a_percentage_stays_between_0_and_100(project):
    """Three runs at 20, 90 and 100 %: the t interval alone would reach from -37 to 177 %."""
    for seed, value in enumerate((0.2, 0.9, 1.0)):
        write(project, fake("crema_d", "concat", seed, metrics={"accuracy": value}))
    ours = line(project, 2, "Concat").ours
    assert (ours.low, ours.high) == (0, 100)
    assert "cut at 0 and 100" in tables(project)["02"].legend


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (Number(50.0, low=40.0, high=60.0), "95 % t interval of the mean, cut at 0"),
        (Number(-3.0, low=-5.0, high=1.0, signed=True), "95 % interval of the difference."),
        (Number(0.2, "times", low=0.1, high=0.4), "range."),
        (Number(9.0, "seconds", low=8.0, high=9.5), "quartiles of times."),
    ],
)
def test_a_legend_says_what_an_interval_is_of(number, said):
    table = Table("any", "", "", False, (Column("A"),), (Row((number,)),))
    assert table.legend.startswith(f"[..]: {said}")


def test_units_stand_with_their_column_and_never_with_another(made):
    """Table 5 mixes nats and percent; `nats` over mAUC would be wrong."""
    built = tables(made)
    headings = [column.heading for column in built["05"].columns]
    assert "mAUC (%): ours" in headings and "Textual IB loss (nats): paper" in headings
    assert not [name for name in headings if "mAUC" in name and "nats" in name]
    columns = [column.heading for column in built["06"].columns]
    assert columns[1:3] == ["Minutes/epoch: paper", "Minutes/epoch: ours"]


def test_table_5_has_a_row_for_each_data_set_and_says_what_ibb_is(project):
    labels = [row.values[0] for row in tables(project)["05"].rows]
    assert {"IBMA (Ours), MIMIC-CXR", "IBMA (Ours), CheXpert"} < set(labels)
    for seed in range(3):
        history = {"ibb/image|text": [0.9, 0.3 + 0.1 * seed]}  # weighted by eta = 0.5
        one = fake("chexpert", "ibma", seed)
        write(project, replace(one, history=history, ib=one.ib | {"u/image": 0.06}, digest=""))
    made = tables(project)["05"]
    assert "Bold: best of its data set" in made.legend
    note = next(n for n in made.notes if n.startswith("CheXpert: IBB"))
    assert "image|text 0.8000" in note and "that training does not change: image 0.0600." in note


def test_table_8_shows_only_the_eta_that_was_run(project):
    for seed in range(2):
        one = fake("crema_d", "ibma", seed)
        write(project, replace(one, stage="sensitivity", method="ibma_eta_0.5", digest=""))
    run, other = (line(project, 8, "", f"eta={eta}") for eta in (0.5, 0.3))
    assert (run.verdict, run.ours.n) == (Verdict.TWIN, 2)
    assert run.source == "runs/sensitivity/crema_d/ibma_eta_0.5"
    assert (other.ours, other.reason) == (None, "not run: no record")
    assert "n = 2" in numbers.build(read(project)).texts["tables/table_08.md"]
    table = tables(project)["08"]
    assert "Bold: best of the row" in table.legend and "marked" not in str(table.notes)


def test_table_16_shows_what_was_probed(project):
    assert line(project, 16, "IBMA (Ours)").reason == "not run: not probed in this profile"
    rows = [
        {"method": "ibma", "seed": seed, "modality": "image", "metrics": {"mauc": 0.8 + seed / 100}}
        for seed in range(3)
    ]
    write_json(project / "data/probe.json", rows)
    image = line(project, 16, "IBMA (Ours)")
    assert (round(image.ours.value, 6), image.ours.n, image.source) == (81, 3, "data/probe.json")
    whole = line(project, 16, "IBMA (Ours)", "chexpert.mauc")
    assert lines(project, 16)[-1].target.method == "ce3" and whole.published.value == 89.2


def test_times_come_from_the_timing_stage(project):
    assert line(project, 9, "Concat", "crema_d.min").reason == "not run: not timed in this profile"
    names = ("concat", "ce3", "ibma_club")
    methods = dict.fromkeys(names, {"median": 6.0, "low": 5.4, "high": 6.6})
    timed = {"task": "crema_d", "source": "twin", "device": "cpu", "threads": 1, "rounds": 3}
    write_json(project / "data/timing.json", timed | {"methods": methods})
    after = line(project, 9, "Concat", "crema_d.min")
    assert (
        after.ours == Number(0.1, "minutes", low=5.4 / 60, high=6.6 / 60)
        and after.published.value == 1.5
    )
    assert after.verdict == Verdict.TWIN
    assert line(project, 9, "CE3", "crema_d.min").verdict == Verdict.CONTROL
    notes = tables(project)["09"].notes
    assert any("median and quartiles of 3 epochs after warm-up" in note for note in notes)
    by_moments = [key for key, one in tables(project).items() if "by moments" in str(one.notes)]
    assert by_moments == ["06"], "where CLUB has a row"


def test_the_control_has_both_readings_of_acc2(project):
    metrics = {"acc2": 0.8, "f1": 0.8, "acc2_has0": 0.7, "f1_has0": 0.7}
    for seed in range(3):
        write(project, fake("mosi", "ce3", seed, metrics=metrics))
    ours = [one for one in lines(project, 3) if one.target.method == "ce3" and one.ours]
    by_reading = {one.other_reading: one.ours.value for one in ours if "acc2" in one.target.metric}
    assert by_reading == {False: 80, True: 70}


def test_mib_is_its_best_form_by_the_score_inside_train(project):
    folds = {"mib_e": (0.8, 0.1), "mib_l": (0.7, 0.6), "mib_c": (0.6, 0.6)}
    for (form, scores), test in zip(folds.items(), (0.9, 0.4, 0.8), strict=True):
        choice = {"choices": [{"score": score} for score in scores], "scores": []}
        write_json(project / f"data/tune/crema_d/{form}.json", choice)
        write(
            project,
            replace(
                fake("crema_d", "concat", 0), method=form, metrics={"accuracy": test}, digest=""
            ),
        )
    one = line(project, 2, "MIB")
    assert (one.ours.value, one.source) == (40, "runs/train/crema_d/mib_l")
    assert forms.best_forms(read(project).results) == {"crema_d": "mib_l"}


def test_forms_of_mib_that_nothing_chose_have_a_row_each(project):
    """One-class training data gives no score, so the first form is no better than the others."""
    names = {"mib_e": "E-MIB", "mib_l": "L-MIB", "mib_c": "C-MIB"}
    metric = "auc/10x-hBC-A"
    for form in names:
        choice = {"choices": [{"score": None}] * 4, "scores": []}
        write_json(project / f"data/tune/tissue/{form}.json", choice)
        one = replace(fake("tissue", "concat", 0), method=form, metrics={metric: 0.6}, digest="")
        write(project, one)
    assert forms.best_forms(read(project).results) == {}
    printed = line(project, 7, "MIB", f"tissue.{metric}")
    assert printed.published and not printed.ours and printed.reason.startswith("no form chosen")
    for name in names.values():
        added = line(project, 7, f"{name} (added here)", f"tissue.{metric}")
        assert (added.ours.value, added.published) == (0.6, None)
    notes = " ".join(paper_tables._metrics(read(project), published.load().table(7)).notes)
    assert "no form of MIB is chosen" in notes and "E-MIB)" not in notes


def test_undefined_metrics_are_left_out_and_never_stop_the_report(project):
    write(project, fake("chexpert", "ibma", 2, metrics={"mauc": None}))
    assert line(project, 4, "IBMA", "chexpert").ours.n == 2
    for seed in range(3):
        write(project, fake("split_digits", "omib", seed, metrics={"accuracy": None}))
        write(project, fake("chexpert", "ce3", seed, metrics={"mauc": None}))
    assert not [
        x for x in lines(project, 4) if x.row.startswith("CE3") and x.target.task == "chexpert"
    ]
    assert "undefined" in numbers.build(read(project)).texts["tables/real_split_digits.md"]


def test_sizes_are_those_of_run_0_where_there_are_folds(project):
    counts = {f"fold{k}": 10 + k for k in range(5)}
    meta = {"source": "real", "classes": list("abc"), "counts": counts, "dropped": 0, "folds": 5}
    write_json(project / "data/features/split_digits/meta.json", meta)
    sizes = by_heading(tables(project)["01"])
    row = next(row for row in sizes if str(next(iter(row.values()))).startswith("Split digits"))
    assert (row["Training size: ours"].value, row["Test size: ours"].value) == (50, 10)


# --- gaps ----------------------------------------------------------------------------------------


def test_validation_rows_are_in_neither_size_and_fold_0_is_the_test_of_run_0():
    fixed = {"folds": 0, "counts": {"train": 10, "valid": 3, "test": 5}}
    assert paper_tables._split_sizes(fixed) == {"train": 10, "test": 5}
    folds = {"folds": 3, "counts": {"fold0": 4, "fold1": 6, "fold2": 7}}
    assert paper_tables._split_sizes(folds) == {"train": 13, "test": 4}


def test_minutes_and_etas_are_those_of_the_task_that_was_measured():
    timed = {"m": {"median": 120.0, "low": 60.0, "high": 180.0}}
    run = record_of(stage="s", task="a", method="m", seed=0, metrics={"accuracy": 0.5})
    given = SimpleNamespace(
        timing={"task": "a", "methods": timed},
        params=SimpleNamespace(sensitivity=SimpleNamespace(task="a")),
        results=SimpleNamespace(at_eta=lambda method, eta: [run], of=lambda task, method: ()),
    )
    there, other = (published.Target(task, "m", "accuracy", 0.3) for task in ("a", "b"))
    found = paper_tables._timed(given, there)
    assert (found.value, found.low, found.high) == (2, 1, 3)
    assert paper_tables._timed(given, other) is None
    assert paper_tables._timed(given, replace(there, method="n")) is None
    assert paper_tables._measured(given, there, "percent")[0].value == 50
    assert paper_tables._measured(given, other, "percent")[0] is None
    assert paper_tables._measured(given, replace(there, eta=None), "percent")[0] is None


def test_a_cell_without_records_is_not_run_and_nothing_else_changes(project):
    """Concat is neither best nor second nor tested: no mark and no test depends on it."""
    for task, expected in (("crema_d", {2, 9}), ("chexpert", {4})):
        whole = read(project)
        shutil.rmtree(project / "runs/train" / task / "concat")
        less = read(project)
        for number in paper_tables.METRIC_TABLES:
            old, new = (paper_tables.lines_of(given, number) for given in (whole, less))
            changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
            assert bool(changed) == (number in expected)
            for was, now in changed:
                assert was.source == f"runs/train/{task}/concat"
                gone = {"ours": None, "verdict": Verdict.NOT_RUN, "source": ""}
                assert now == replace(was, **gone, reason="not run: no record")


def test_the_best_cell_leaves_its_mark_to_the_next(project):
    shutil.rmtree(project / "runs/train_ibma/chexpert/ibma")
    marks = {
        x.row: x.ours.mark for x in lines(project, 4) if x.target.task == "chexpert" and x.ours
    }
    assert marks["OMIB (Wu et al., 2025)"] == Mark.BEST
    assert marks["Concat (Perez et al., 2018)"] == Mark.SECOND
    assert marks["CE3 (no bound) (added here)"] == Mark.NONE, "a row of ours is no rival"


def test_a_task_whose_data_is_gone_says_so_in_its_tables(project):
    missing = {"source": "real", "missing": "data/raw/chexpert is empty", "counts": {}}
    write_json(project / "data/features/chexpert/meta.json", missing)
    assert not records.load(PROFILE, project).of_task("chexpert")
    assert line(project, 4, "IBMA", "chexpert").reason == "not run: data/raw/chexpert is empty"


def test_a_key_that_cannot_be_computed_fits_nothing(tmp_path, monkeypatch):
    monkeypatch.undo()
    one = fake("crema_d", "ibma", 0)
    assert not records.is_current(PROFILE, tmp_path, one), "no features, no choice: stale"


# --- significance --------------------------------------------------------------------------------


def test_tables_of_tests_name_the_opponent_and_twins_get_no_verdict(made):
    tests = [t for t in read(made).tests if (t.table, t.compared.task) == ("10", "crema_d")]
    assert [(t.opponent, t.rival) for t in tests] == [("best baseline", "omib"), ("ce3", "ce3")]
    assert all(t.holm >= t.paired.p for t in tests)
    built = tables(made)
    first = by_heading(built["10"])[0]
    assert (first["Paper: opponent"], first["Ours: opponent"]) == ("OMIB", "OMIB")
    assert first["Paper: its mean"].value == 63.6 and "Ours: p over runs" in first
    for number in significance.TABLES:
        table_ = built[f"{number:02d}"]
        assert table_.twin and table_.rows
        assert "verdict" not in {column.label for column in table_.columns}
        assert {row.get("verdict") for row in table_.flat()} <= {Verdict.TWIN.value, None}
        chosen = any(note.startswith("Our best baseline") for note in table_.notes)
        assert chosen == (number not in significance.OPPONENTS), "how the opponent is chosen"
    text = (made / "reports/twin/index.html").read_text().partition("What a verdict means")[0]
    assert "direction holds" not in text and "direction fails" not in text


def test_the_direction_of_a_real_difference_is_judged_only_where_one_is_shown(made):
    given = read(made)
    real = {
        cell: [replace(run, source="real") for run in runs]
        for cell, runs in given.results.runs.items()
        if cell[1] == "crema_d"
    }
    given = replace(given, results=replace(given.results, runs=real))
    row = given.paper.table(10).row("crema_d")
    main, control = (t for t in given.tests if (t.table, t.compared.task) == ("10", "crema_d"))
    for holm, difference, expected in (
        (0.04, 1.0, Verdict.SAME),
        (0.04, -1.0, Verdict.OPPOSITE),
        (0.05, 1.0, Verdict.EQUAL),
        (None, 0.0, Verdict.NO_TEST),
    ):
        test = replace(main, holm=holm, paired=replace(main.paired, difference=difference))
        assert paper_tables._test_verdict(given, row, test) == expected
    assert paper_tables._test_verdict(given, row, control) == Verdict.CONTROL
    cells = row.cells | {"ours": row.cells["baseline"], "baseline": row.cells["ours"]}
    for difference, expected in ((1.0, Verdict.OPPOSITE), (-1.0, Verdict.SAME)):
        test = replace(main, holm=0.04, paired=replace(main.paired, difference=difference))
        worse = replace(row, cells=cells)  # in the paper
        assert paper_tables._test_verdict(given, worse, test) == expected
    shown = next(t for t in numbers.build(given).tables if t.key == "10")
    assert shown.columns[-1].label == "verdict"


# --- marks ---------------------------------------------------------------------------------------


def test_marks_follow_printed_numbers_and_ties_share_them():
    best, second, none = Mark.BEST, Mark.SECOND, Mark.NONE
    for unit, lower, values, expected in (
        ("percent", False, (60.0, 70.0, 65.0), (none, best, second)),
        ("minutes", True, (0.2, 0.1), (second, best)),
        ("nats", True, (-0.1, -0.2, 0.0), (second, best, none)),
        ("percent", False, (70.04, 70.0, 65.0), (best, best, second)),
        ("percent", False, (70.0, 65.0, 65.01), (best, second, second)),
        ("percent", False, (None, 65.0), (None, none)),
        ("percent", False, (65.0, 65.02), (none, none)),
        ("minutes", True, (0.0011, 0.0012, 0.00114), (best, second, best)),
    ):
        given = [None if value is None else Number(value, unit) for value in values]
        marked = table.mark(given, lower_is_better=lower)
        assert [n and n.mark for n in marked] == list(expected), (unit, values)


def test_numbers_are_printed_with_their_digits_and_no_minus_zero():
    for value, unit, sign, expected in (
        (-0.00001, "nats", False, "0.0000"),
        (0.04, "percent", True, "+0.0"),
        (223414, "count", False, "223,414"),
        (0.0011392, "minutes", False, "0.0011"),
        (2.0, "minutes", False, "2.0"),
        (1.2e-06, "p", False, "1.2e-06"),
        (66.25 - 1e-14, "percent", False, formatting.number(66.25, "percent")),
    ):
        assert formatting.number(value, unit, sign=sign) == expected


# --- files ---------------------------------------------------------------------------------------


def rows_of_markdown(text: str) -> list[list[str]]:
    """Return the cells of its table as a reader sees them, marks taken off."""
    rows = [re.split(r"(?<!\\)\|", x)[1:-1] for x in text.splitlines() if x.startswith("|")]
    marks = r"\*\*([^*]*)\*\*|<u>([^<]*)</u>"
    plain = [[unescape(re.sub(marks, r"\1\2", cell.strip())) for cell in row] for row in rows]
    return [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in plain[:1] + plain[2:]]


def rows_of_latex(text: str) -> list[list[str]]:
    """Return the cells of its parts side by side, marks taken off."""
    whole: list[list[str]] = []
    for part in text.split("\\endfoot\n")[1:]:
        body = part.split("\\end{longtable}")[0].strip().splitlines()
        rows = [[_plain(cell) for cell in re.split(r" & ", row[: -len(" \\\\")])] for row in body]
        whole = [a + b[1:] for a, b in zip(whole, rows, strict=True)] if whole else rows
    return whole


def _plain(cell: str) -> str:
    cell = cell.replace(r"\allowbreak{}", "").replace(r"$\pm$", "±").replace(r"\textbar{}", "|")
    cell = re.sub(r"\\(?:textbf|underline)\{((?:[^{}]|\{[^}]*\})*)\}", r"\1", cell)
    cell = re.sub(r"\$([<>])\$", r"\1", cell.replace("{[}", "[").replace("{]}", "]"))
    return re.sub(r"\\([&%$#_{}])", r"\1", cell).strip()


class Page(HTMLParser):
    """Collect tables by their labels, ids, links, headings, images and unclosed tags."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.images, self.ids, self.links, self.headings = [], [], {}, [], []
        self.tables, self.headers, self.label = {}, [], ""
        self.feed(text)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag not in ("meta", "img", "link", "input", "br"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(named)
        elif tag == "div" and named.get("role") == "region":
            self.label = named["aria-label"]
            self.tables[self.label] = []
        elif tag == "tr":
            self.tables[self.label].append([])
        elif tag in ("td", "th"):
            self.tables[self.label][-1].append("")
            self.headers += [named.get("scope")] if tag == "th" else []
        elif tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if "href" in named:
            self.links.append(named["href"])
        if "id" in named:
            assert named["id"] not in self.ids, f"id {named['id']} is there twice"
            self.ids[named["id"]] = tag

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[self.label][-1][-1] += data


def test_markdown_and_latex_say_the_same_in_every_cell_and_csv_has_every_number(made):
    built = numbers.build(read(made))
    marked = 0
    for table_ in built.tables:
        stem = made / "reports/twin/tables" / table_.name
        markdown, latex = (stem.with_suffix(suffix).read_text() for suffix in (".md", ".tex"))
        if not table_.rows:
            continue
        head, *rows = rows_of_markdown(markdown)
        assert head == [column.heading for column in table_.columns]
        shown = [[table._plain(value) for value in row.values] for row in table_.rows]
        assert rows == shown
        assert rows_of_latex(latex) == shown
        with stem.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
            flat = list(csv.DictReader(file))
        assert len(flat) == len(table_.flat()) and flat
        marked += markdown.count("**") // 2 + markdown.count("<u>")
    assert marked > 50, "published and ours"


def test_ours_are_marked_as_the_paper_marks_its_own(made):
    """Concat 52, OMIB 57, IBMA 66; the control's 62 is no rival."""
    stem = made / "reports/twin/tables/table_02"
    markdown = " ".join(stem.with_suffix(".md").read_text().split())
    assert "| **66.0 ± 1.0** [63.5, 68.5] |" in markdown
    assert "| <u>57.0 ± 2.0</u> [52.0, 62.0] |" in markdown
    assert r"& \textbf{66.0 $\pm$ 1.0} {[}63.5, 68.5{]} &" in stem.with_suffix(".tex").read_text()


def test_twin_stands_in_the_title_of_every_twin_table(made):
    folder = made / "reports/twin/tables"
    for name in ("table_01", "table_02", "table_04", "table_05", "table_10", "table_12"):
        for suffix in ("md", "tex"):
            assert "(TWIN)" in (folder / f"{name}.{suffix}").read_text().splitlines()[0]
    assert "TWIN" not in (folder / "real_claims.md").read_text().splitlines()[0]


def test_every_table_from_1_to_16_has_rows(made):
    built = numbers.build(read(made)).tables
    keys = [f"{number:02d}" for number in range(1, 17)]
    assert [x.key for x in built[:19]] == [*keys, "audit", "leaderboard", "real_claims"]
    assert all(x.rows for x in built[:19])


def test_a_long_name_of_a_panel_is_set_in_two_lines(made, tmp_path):
    methods = {"IBMA with the released bound": records.load(PROFILE, made).of("crema_d", "ibma")}
    figures.training_curves("CREMA-D", methods, tmp_path / "curves")
    assert "released bound<" not in (tmp_path / "curves.svg").read_text()


def test_the_same_records_give_the_same_curves(made, tmp_path):
    methods = {"IBMA": records.load(PROFILE, made).of("crema_d", "ibma")}
    for name in ("one", "two"):
        figures.training_curves("CREMA-D", methods, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "CREMA-D: training curves" in (tmp_path / "one.svg").read_text()


def test_the_same_records_give_the_same_files_and_other_tasks_leave_them(project, monkeypatch):
    monkeypatch.setattr(pictures, "_draw_curves", lambda *_: None)
    folder = project / "reports/twin"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    page.write(PROFILE, project)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "evidence").mkdir()
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    raw["tasks"] = {"split_digits": raw["tasks"]["split_digits"]}
    for stage in ("timing", "sensitivity", "probe"):
        raw[stage]["task"] = "split_digits"
    raw["gradcam"]["tasks"] = {}
    page.write(params.parse(raw, Path("params.yaml")), project)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    others = [task for task in PROFILE.tasks if task != "split_digits"]
    assert not [name for name in names for task in others if task in name]
    assert "evidence" in names and "metrics/split_digits.json" in names
    for suffix in ("md", "tex"):
        assert "not run: no task" in (folder / f"tables/table_02.{suffix}").read_text()


def test_metrics_have_a_file_a_task_and_bars_a_row_a_cell(made):
    metrics = json.loads((made / "reports/twin/metrics/crema_d.json").read_text())
    assert set(metrics) == set(ACCURACY) & set(numbers.SHOWN)
    assert metrics["ibma"] == pytest.approx(66)
    bars = (made / "reports/twin/plots/metrics.csv").read_text().splitlines()
    assert bars[0] == "cell,percent,low,high" and "chexpert/ibma,66,63.516,68.484" in bars
    assert sum(row.startswith("chexpert/") for row in bars) == len(ACCURACY)


def test_plots_of_dvc_hold_eta_regime_and_confusion(project):
    counts = [[3, 1, 0], [0, 4, 0], [1, 0, 3]]
    for seed in range(3):
        regime = {"share/audio": [0.0, 0.1 * seed], "share/fused": [0.1, 0.0], "v/fused": [9, 9]}
        write(project, fake("crema_d", "ibma", seed, regime=regime, confusion=counts))
        own = {"stage": "sensitivity", "method": PROFILE.sensitivity.name("ibma", 0.5)}
        write(project, replace(fake("crema_d", "ibma", seed), **own, digest=""))
    rows = plots.build(read(project))
    assert rows["plots/regime.csv"] == [
        {"curve": "CREMA-D", "epoch": 1, "share": 0.1},
        {"curve": "CREMA-D", "epoch": 2, "share": 0.1},
    ]
    confused = {
        (row["truth"], row["predicted"]): row["count"] for row in rows["plots/confusion.csv"]
    }
    assert confused[("a", "b")] == 3 and confused[("c", "c")] == 9 and len(confused) == 9
    assert rows["plots/eta.csv"][0]["curve"] == "IBMA, CREMA-D"
    assert {row["eta"] for row in rows["plots/eta.csv"]} == {0.5}


@pytest.mark.slow
def test_dvcs_own_commands_fit_120_columns(project, monkeypatch):
    """With every task and every method that the default profile shows."""
    for name in ("dvc.yaml", ".dvc/config", ".dvc/plots"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (project / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, project / name)
    shutil.copy(ROOT / "profiles/twin.yaml", project / "params.yaml")
    files = [project / f"reports/twin/metrics/{task}.json" for task in PROFILE.tasks]
    for file in files:
        write_plain_json(file, dict.fromkeys(numbers.SHOWN, 91.667))
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")

    def run(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "before")):
        run("git", "-c", "user.name=n", "-c", "user.email=m", *words)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("eta: null", "eta: 0.3"))
    for file in files:
        write_plain_json(file, dict.fromkeys(numbers.SHOWN, 90.001))
    page_ = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(dvc (?:dag|metrics|params|plots|exp show)[^#\n]*)", page_, re.M)
    assert {words.split()[1] for words in commands} == {"dag", "metrics", "params", "plots", "exp"}
    for command in commands:
        shown = run(*shlex.split(command)).splitlines()
        assert shown and max(map(len, shown)) <= 120, command


def test_the_bars_of_dvc_say_how_many_revisions_they_show():
    chart = json.loads((ROOT / ".dvc/plots/cells.json").read_text())
    assert chart["title"] == "<DVC_METRIC_TITLE>", "true for one revision and for several"
    words = chart["layer"][-1]["transform"][-1]["calculate"]
    assert words == "datum.revisions > 1 ? 'cells that differ between revisions' : 'every cell'"


def test_runs_are_a_file_of_records_and_their_mlflow_runs(made):
    with (made / "reports/twin/runs.csv").open(newline="") as file:
        runs = {row["record"]: row["mlflow run"] for row in csv.DictReader(file)}
    assert runs["runs/train_ibma/crema_d/ibma/seed_1.json"] == "8f3b"
    assert runs["runs/train_ibma/crema_d/ibma/seed_2.json"] == "not tracked"
    assert len(runs) == len(PROFILE.tasks) * len(ACCURACY) * PROFILE.seeds
    assert all((made / name).exists() for name in runs)


# --- names that a writer cannot hold -------------------------------------------------------------


def awkward(twin: bool = False) -> Table:
    rows = tuple(Row((name, Number(50.0, note=name), name)) for name in AWKWARD)
    columns = (Column("Class"), *(Column(name, AWKWARD[0]) for name in AWKWARD[1:3]))
    return Table("awkward", AWKWARD[3], AWKWARD[4], twin, columns, rows, AWKWARD)


def test_any_name_is_text_in_markdown_and_csv(tmp_path):
    made = awkward()
    text = table.as_markdown(made)
    assert "<script>" not in text and not re.search(r"(?<!\\)\$", text)
    rows = rows_of_markdown(text.replace("&lt;", "<").replace("&gt;", ">"))
    seen = [formatting.one_line(name) for name in AWKWARD]
    assert [row[0] for row in rows[1:]] == seen and [row[2] for row in rows[1:]] == seen
    assert all(len(row) == 3 for row in rows)
    table.write_csv(made.flat(), tmp_path / "awkward.csv")
    with (tmp_path / "awkward.csv").open(newline="") as file:
        assert [row["Class"] for row in csv.DictReader(file)] == list(AWKWARD)


def test_any_name_is_text_in_figures(tmp_path):
    by_name = {name: [50.0, 60.0] for name in AWKWARD}
    figures.comparison(AWKWARD[3], AWKWARD[1], by_name, False, tmp_path / "comparison")
    picture = {"picture": [[[0, 0, 0]] * 4] * 4, "maps": {AWKWARD[3]: [[0.5] * 4] * 4}}
    example = picture | {"class": AWKWARD[2], "text": AWKWARD[3], "id": AWKWARD[4]}
    curve = {"deletion": [1.0, 0.5], "random": [1.0, 0.7], "energy": None}
    explained = {"examples": [example], "methods": {AWKWARD[3]: curve}, "n": 1, "source": "real"}
    figures.attention(AWKWARD[1], explained, {}, tmp_path / "attention")
    for name in ("comparison", "attention"):
        text = (tmp_path / f"{name}.svg").read_text()
        assert (
            "$% and $^" in text and "<script>" not in text and (tmp_path / f"{name}.png").exists()
        )


def test_a_report_with_awkward_classes_is_written(project):
    """Class names reach metrics, tables and pages."""
    metrics = {"accuracy": 0.5} | {f"auc/{name}": 0.5 for name in AWKWARD}
    for method in ACCURACY:
        for seed in range(3):
            write(project, fake("split_digits", method, seed, metrics=metrics))
    text = page.write(PROFILE, project).read_text()
    assert "<script>alert" not in text
    headers = next(t for k, t in Page(text).tables.items() if "of Split digits" in k)[0]
    assert "AUC b|c (left)" in headers and "AUC $% and $^" in headers


LATEX = r"""\documentclass{article}
\usepackage{array,booktabs,longtable}
\usepackage[a4paper,landscape,margin=1.5cm]{geometry}
\begin{document}
%s
\end{document}
"""
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AXE = importlib.util.find_spec("axe_playwright_python")  # brings axe.min.js
COMMITTED = {folder.parent.name: folder for folder in sorted(ROOT.glob("reports/*/tables"))}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here: .ci/run installs it")
@pytest.mark.parametrize("source", ["fresh", *COMMITTED])
def test_latex_compiles(made, tmp_path, source):
    """Every table in one document, as a reader would \\input them; nothing sticks out."""
    folder = COMMITTED.get(source, made / "reports/twin/tables")
    (tmp_path / "awkward.tex").write_text(table.as_latex(awkward()))
    paths = [*sorted(folder.glob("*.tex")), tmp_path / "awkward.tex"]
    assert len(paths) >= 18
    text = LATEX % "\n".join(rf"\input{{{path.as_posix()}}}" for path in paths)
    (tmp_path / "all.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    too_wide = re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)
    assert max(map(float, too_wide), default=0) < 5, "points beyond the margin"


# --- the page ------------------------------------------------------------------------------------


def test_the_page_is_one_offline_file_that_can_be_read_aloud(made):
    text = (made / "reports/twin/index.html").read_text()
    found = Page(text)
    assert not re.search(r'(src|href)="https?:|url\((?!%23)', text), (
        "%23: a place in the same figure"
    )
    assert found.images and all(image["alt"] for image in found.images)
    assert all(image["src"].startswith("data:") for image in found.images)
    assert set(found.headers) <= {"col", "row", "colgroup"}, "every header says what it heads"
    assert found.headings[0] == 1 and found.headings.count(1) == 1
    steps = zip(found.headings, found.headings[1:], strict=False)
    assert all(below <= above + 1 for above, below in steps), "no level is skipped"
    assert 'lang="en"' in text and "prefers-color-scheme: dark" in text and "@media print" in text


def test_no_link_of_the_page_is_dead(made):
    found = Page((made / "reports/twin/index.html").read_text())
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    files = [link for link in found.links if not link.startswith("#")]
    for link in files:
        target = made / "reports/twin" / link
        place = ROOT / link.removeprefix("../../") if link.startswith("../../") else target
        assert place.exists(), link
    assert not [link for link in files if "/runs/" in link], "git holds no runs/"


def test_the_answer_counts_no_twin_and_says_ties(project):
    said = verdict.answer(read(project))
    assert said.headline.startswith("This profile cannot say. The data of 8 of its 9 tasks is gen")
    assert "Real data: Split digits." in said.data and "raw vectors, beta 1" in said.data
    assert said.points[0].startswith("Of 1 real task, IBMA has the highest mean alone on 1.")
    assert said.points[1].startswith("No published number is judged")
    for seed in range(3):
        write(project, fake("split_digits", "omib", seed, metrics={"accuracy": 0.6604}))  # 66.0
        write(project, fake("split_digits", "ibma", seed, metrics={"accuracy": 0.66}))
    tied = verdict.answer(read(project)).points[0]
    assert "highest mean alone on 0, shares it on 1." in tied


def on_paper(profile: params.Params, root: Path, of: Callable[..., dict]) -> inputs.Inputs:
    """Make inputs of a profile whose records have `of(task, method, value)` changed in them."""
    runs: dict[records.Cell, list[Record]] = {}
    for task in profile.tasks:
        for place, (method, mean) in enumerate(ACCURACY.items()):
            cell = (profile.stage_of(method), task, method)
            for seed in range(3):
                value = mean + 0.001 * (seed * place % 7)
                made = {"source": "real", "profile": profile.profile} | of(task, method, value)
                runs.setdefault(cell, []).append(fake(task, method, seed, **made))
    given = inputs.load(profile, root)
    return inputs.rederive(replace(given, results=Results(profile, runs, {}, {})))


SLIDES = [f"10x-hBC-{letter}" for letter in "ABCD"]
SENTIMENT = ("acc7", "acc2", "f1", "acc2_has0", "f1_has0")
METRICS = {"mosi": SENTIMENT, "meld_sentiment": SENTIMENT}
METRICS |= dict.fromkeys(("mimic_cxr", "chexpert"), ("mauc",))
METRICS |= {"tissue": tuple(f"{kind}/{of}" for kind in ("auc", "f1") for of in (*SLIDES, "mean"))}


def better_on_the_paper(task: str, method: str, value: float) -> dict:
    """IBMA is above every other method on the paper's tasks, and below on the digits."""
    value -= 0.3 * (task == "split_digits" and method == "ibma")
    return {"metrics": dict.fromkeys(METRICS.get(task, ("accuracy",)), value)}


def test_the_answer_counts_the_papers_tasks_where_they_are_real(tmp_path):
    """A task of several tests counts where all agree; its slides are no tasks of their own."""
    paper = params.load(ROOT / "profiles/paper.yaml")
    found = on_paper(paper, tmp_path, better_on_the_paper)
    said = verdict.answer(found)
    assert said.headline == (
        "In part. Of 9 tasks (8 of the paper), IBMA is better than the best baseline on 8 and "
        "worse on 1; alignment helps on 2 of 3; IBMA beats the same network without a bound on 8."
    )
    assert "Tissue has 4 tests against the best baseline" in said.points[1]
    assert "The paper's tasks have Tables 10 to 15." in real_tables._claims(found).notes

    def one_slide_is_worse(task: str, method: str, value: float) -> dict:
        made = better_on_the_paper(task, method, value)
        worse = {"auc/10x-hBC-B": value - 0.3} if (task, method) == ("tissue", "ibma") else {}
        return {"metrics": made["metrics"] | worse}

    mixed = verdict.answer(on_paper(paper, tmp_path, one_slide_is_worse)).headline
    assert "(8 of the paper), IBMA is better than the best baseline on 7 and worse on 1;" in mixed


def test_the_answer_says_where_no_test_is_possible(tmp_path):
    """Scores of 100 % in every run are neither better nor worse."""
    paper = params.load(ROOT / "profiles/paper.yaml")

    def all_equal(task: str, method: str, value: float) -> dict:
        return {"metrics": dict.fromkeys(METRICS.get(task, ("accuracy",)), 1.0)}

    assert verdict.answer(on_paper(paper, tmp_path, all_equal)).headline == (
        "This profile cannot say: runs of IBMA and of the best baselines do not differ among "
        "themselves on any task, so there is no test."
    )

    def digits_are_equal(task: str, method: str, value: float) -> dict:
        digits = task == "split_digits"
        return (all_equal if digits else better_on_the_paper)(task, method, value)

    some = verdict.answer(on_paper(paper, tmp_path, digits_are_equal)).headline
    assert "on 8 and worse on 0 (no test is possible on 1); alignment" in some


def test_the_answer_counts_no_twin_beside_real_tasks_of_the_paper(tmp_path):
    twins = {"crema_d", "tissue", "chexpert"}

    def some_are_twins(task: str, method: str, value: float) -> dict:
        source = "twin" if task in twins else "real"
        return better_on_the_paper(task, method, value) | {"source": source}

    paper = params.load(ROOT / "profiles/paper.yaml")
    said = verdict.answer(on_paper(paper, tmp_path, some_are_twins))
    assert said.headline == (
        "In part. Of 6 tasks (5 of the paper), IBMA is better than the best baseline on 5 and "
        "worse on 1; alignment helps on 1 of 2; IBMA beats the same network without a bound on 5."
    )
    assert not any("Tissue" in point for point in said.points)


def test_the_answer_needs_no_task_beyond_the_paper_and_says_what_is_unfair(tmp_path):
    small = params.load(ROOT / "profiles/paper_small.yaml")
    said = verdict.answer(on_paper(small, tmp_path, better_on_the_paper)).headline
    assert said.startswith(
        "Yes. Of 4 tasks (4 of the paper), IBMA is better than the best baseline"
    )
    assert "open data" not in said
    tuned = fake("crema_d", "ibma", 0).tuned

    def tuned_apart(task: str, method: str, value: float) -> dict:
        rule = tuned | {"folds": 9 if method == "ibma" else 3}
        return better_on_the_paper(task, method, value) | {"tuned": rule}

    said = verdict.answer(on_paper(small, tmp_path, tuned_apart)).headline
    assert said.endswith("IBMA and the best baselines were tuned by unequal rules.")


def test_a_published_number_is_counted_once(tmp_path):
    """Tables 5, 6, 9 and 16 repeat Tables 2 and 4; Acc-2 and F1 have two readings of ours."""
    paper = params.load(ROOT / "profiles/paper.yaml")
    found = on_paper(paper, tmp_path, better_on_the_paper)
    printed = {  # OMIB, IBMA and Concat in Tables 2, 3, 4 and 7
        (task, method, metric)
        for task in paper.tasks
        if task != "split_digits"
        for method in ("concat", "omib", "ibma")
        for metric in METRICS.get(task, ("accuracy",))
        if not metric.endswith("_has0") and (task, metric) != ("meld_sentiment", "acc7")
    }
    no_align = {(task, "ibma_no_align", "mauc") for task in ("mimic_cxr", "chexpert")}  # Table 5
    losses = 3 * (3 + 1)  # Table 5: methods, and modalities of the made-up records of its tasks
    points = [point for point in verdict.answer(found).points if point.startswith("Published")]
    counted = sum(map(int, re.findall(r"(\d+) (?:in|out)side", points[0])))
    assert counted == len(printed | no_align) + losses


def test_a_profile_that_never_ran_says_so_and_shows_the_papers_numbers(tmp_path):
    text = page.write(params.load(ROOT / "profiles/paper.yaml"), tmp_path).read_text()
    assert "Nothing was run yet" in text and "tleaderboard" not in Page(text).ids
    assert "Concat (Perez et al., 2018)" in text and "not run" in text


def test_a_leaderboard_marks_and_ranks_real_data_only(made):
    board = tables(made)["leaderboard"]
    headings = [column.heading for column in board.columns]
    assert headings[0] == "Method" and "Mean rank" not in headings, "one real task is no ranking"
    for place, heading in enumerate(headings[1:], 1):
        values = [row.values[place] for row in board.rows]
        marks = {value.mark for value in values if value not in ("not run", None)}
        assert (marks == {Mark.NONE}) == ("(TWIN)" in heading), heading
    gaps = {row.values[0]: row.values[1:] for row in board.rows if None in row.values}
    assert gaps and all(method.startswith("Only ") for method in gaps), "no such modality"


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here: .ci/run installs it")
def test_the_page_fits_its_screens_and_axe_finds_nothing(made, tmp_path):
    """Under 12,000 px at 1600 with folds closed, nothing wider than the screen, 20 pages."""
    page_ = made / "reports/twin/index.html"
    for width, most in ((1600, 12_000), (400, 25_000)):
        found = in_browser(page_, tmp_path, width)
        assert found["height"] < most and found["width"] <= width and found["board"] < 900
        assert found["smallest"] >= 9, "pixels of the smallest text in a figure"
        assert found["stops"] < 200, "tab stops before the first table"
        assert found["violations"] == []
    pdf = tmp_path / "page.pdf"
    outline = "--generate-pdf-document-outline"  # says where on its page every heading is
    chromium(tmp_path, outline, f"--print-to-pdf={pdf}", page_.as_uri())
    printed = pdf.read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) < 20
    heights = [float(y) for y in re.findall(rb"/Dest \[\d+ 0 R /XYZ [\d.]+ ([\d.]+) 0\]", printed)]
    margin, lines = 31, 4 * 10  # points: a heading, and what it is about, stand above the margin
    assert len(heights) >= 15 and min(heights) > margin + lines, "a heading alone at a page's foot"


def chromium(folder: Path, *arguments: str) -> str:
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    quiet += ["--disable-sync", "--no-first-run", f"--user-data-dir={folder / 'browser'}"]
    command = [str(CHROMIUM), *quiet, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


MEASURE = """async () => {
  const text = (image) => decodeURIComponent(image.src.slice(image.src.indexOf(",") + 1));
  const shrunk = (image) => {
    const [, wide] = /viewBox="0 0 ([\\d.]+)/.exec(text(image));
    const sizes = [...text(image).matchAll(/font(?:-size)?:[^;"]*?([\\d.]+)px/g)];
    return (Math.min(...sizes.map((size) => size[1])) * image.clientWidth) / wide;
  };
  const shown = [...document.querySelectorAll("figure img")].filter((image) => image.clientWidth);
  const first = document.querySelector("table");
  const stops = [...document.querySelectorAll("a, button, summary, input, [tabindex='0']")];
  return {
    height: document.documentElement.scrollHeight,
    width: document.documentElement.scrollWidth,
    board: document.querySelector("#tleaderboard").getBoundingClientRect().top,
    smallest: Math.min(...shown.map(shrunk)),
    stops: stops.filter((stop) => first.compareDocumentPosition(stop) & 2).length,
    violations: window.axe ? (await axe.run()).violations.map((one) => one.id) : [],
  };
}"""


def in_browser(page_: Path, folder: Path, width: int) -> dict:
    """Measure a page in a frame of a width: a window of Chromium is never below 500 pixels."""
    axe = Path(AXE.submodule_search_locations[0]) / "axe.min.js" if AXE else None
    library = axe.read_text().replace("</script>", "<\\/script>") if axe else ""
    told = f"parent.postMessage(JSON.stringify(await ({MEASURE})()), '*')"
    tail = f"<script>{library}</script><script>addEventListener('load', async () => {{{told}}})"
    copy = folder / "page.html"
    copy.write_text(page_.read_text().replace("</body>", f"{tail}</script></body>"))
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe src="{copy.name}" style="width:{width}px;height:900px;border:0"></iframe><script>'
        "addEventListener('message', (e) => document.body.append(`@${e.data}@`))</script>"
    )
    size = ("--window-size=1700,1000", "--virtual-time-budget=60000")
    return json.loads(
        unescape(chromium(folder, *size, "--dump-dom", frame.as_uri()).split("@")[-2])
    )


def test_dots_are_named_for_what_they_are(project, tmp_path):
    drawn = list(pictures._draw_comparisons(read(project), tmp_path))
    assert "dots are seeds" in (tmp_path / "comparison_split_digits.svg").read_text()
    assert len(drawn) == len(PROFILE.tasks)
    for seed in range(3):
        for method in ACCURACY:
            write(project, fake("split_digits", method, seed, fold=seed))
    list(pictures._draw_comparisons(read(project), tmp_path))
    svg = (tmp_path / "comparison_split_digits.svg").read_text()
    assert "dots are runs on several test folds" in svg
