"""From records to tables and page: the same numbers everywhere, TWIN marked, gaps named."""

import csv
import json
import re
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ibma import params, published, record, report, results, significance, tables
from ibma.jsonfile import write_json
from ibma.record import Record

ROOT = Path(__file__).parent.parent
PROFILE = params.load(ROOT / "profiles/twin.yaml")
ACCURACY = {"concat": 0.50, "ce3": 0.60, "omib": 0.55, "ibma": 0.65, "ibma_no_align": 0.62}


def fake(task: str, method: str, seed: int) -> Record:
    wobble = 0.01 * seed * (1 if method == "ibma" else 2)
    value = ACCURACY[method] + wobble
    if task == "chexpert":
        metrics = {"mauc": value, "auc/Edema": value, "auc/Consolidation": None, "mauc_defined": 4}
        ib = {"image": -0.01 * seed, "text": -0.02, "fused": -0.03}
    else:
        metrics, ib = {"accuracy": value}, {"audio": -0.01, "fused": -0.02}
    eta = 0.5 if method.startswith("ibma") else None
    return Record(
        key="k",
        profile="twin",
        task=task,
        method=method,
        seed=seed,
        source="real" if task == "split_digits" else "twin",
        fold=None,
        n_train=10,
        n_test=5,
        params={"lr": 0.001, "weight_decay": 0.0, "eta": eta},
        metrics=metrics,
        ib=ib,
        ib_before=ib,
        history={"task": [2.0, 1.0 + wobble]},
        volatile={"device": "cpu", "seconds_per_epoch": [0.1, 0.1], "git_commit": None},
    )


@pytest.fixture
def project(tmp_path):
    for task in PROFILE.tasks:
        for method in ACCURACY:
            for seed in range(PROFILE.seeds):
                fake(task, method, seed).write(tmp_path / "runs" / task / method)
        source = "real" if task == "split_digits" else "twin"
        meta = {
            "source": source,
            "classes": list("abc"),
            "counts": {"train": 10, "test": 5},
            "dropped": 2,
            "folds": 0,
        }
        write_json(tmp_path / "data/features" / task / "meta.json", meta)
    rows = significance.run(PROFILE, results.cells(PROFILE, tmp_path), published.load())
    write_json(tmp_path / "data/significance.json", rows)
    return tmp_path


def lines(root: Path, key: str) -> list[tables.Line]:
    return next(t for t in tables.build(PROFILE, root) if t.key == key).lines


def row(root: Path, key: str, start: str) -> tables.Line:
    return next(line for line in lines(root, key) if line.row.startswith(start))


def test_a_cell_holds_published_ours_difference_and_interval(project):
    line = row(project, "02", "IBMA")
    assert (line.published, line.ours, line.n) == ("65.4 ± 0.4 (best)", "66.0 ± 1.0", "3")
    assert (line.difference, line.interval) == ("+0.6", "[63.5, 68.5]")
    assert line.verdict == "no verdict: TWIN" and line.records == "runs/crema_d/ibma"


def test_real_records_get_a_verdict(project):
    for seed in range(3):
        one = replace(fake("crema_d", "ibma", seed), source="real")
        one.write(project / "runs/crema_d/ibma")
        other = replace(fake("crema_d", "concat", seed), source="real")
        other.write(project / "runs/crema_d/concat")
    assert row(project, "02", "IBMA").verdict == "inside"  # 65.4 in [63.5, 68.5]
    concat = replace(fake("crema_d", "concat", 0), source="real", metrics={"accuracy": 0.9})
    for seed in range(3):
        replace(concat, seed=seed).write(project / "runs/crema_d/concat")
    assert row(project, "02", "Concat").verdict == "outside"


def test_table_8_shows_only_the_eta_that_was_run(project):
    for seed in range(2):
        one = fake("crema_d", "ibma", seed)
        one.write(project / "runs/crema_d/ibma_eta_0.5")
    by_eta = {line.measure: line for line in lines(project, "08")}
    run = by_eta["crema_d: eta = 0.5"]
    assert (run.verdict, run.n) == ("no verdict: TWIN", "2")
    assert run.records == "runs/crema_d/ibma_eta_0.5"
    assert by_eta["crema_d: eta = 0.3"].verdict == "not run: no record at this eta"


def test_table_16_shows_what_was_probed(project):
    before = row(project, "16", "IBMA (Ours)")
    assert before.verdict == "not run: not probed in this profile"
    rows = [
        {"method": "ibma", "seed": seed, "modality": "image", "metrics": {"mauc": 0.8 + seed / 100}}
        for seed in range(3)
    ]
    write_json(project / "data/probe.json", rows)
    image = row(project, "16", "IBMA (Ours)")
    assert (image.published, image.ours, image.n) == ("89.2 (best)", "81.0 ± 1.0", "3")
    assert image.records == "data/probe.json"
    whole = [x for x in lines(project, "16") if x.row == image.row][-1]
    assert whole.records == "runs/chexpert/ibma", "both modalities: the records"


def test_every_table_from_1_to_16_is_there_and_none_is_empty(project):
    built = tables.build(PROFILE, project)
    keys = [f"{number:02d}" for number in range(1, 17)]
    assert [table.key for table in built] == [*keys, "real_data", "audit"]
    assert all(table.lines for table in built[:16])


def test_times_come_from_the_timing_stage(project):
    summary = {"median": 6.0, "low": 5.4, "high": 6.6, "seconds": [5.4, 6.0, 6.6]}
    timed = {"task": "crema_d", "source": "twin", "device": "cpu", "threads": 1, "rounds": 3}
    before = next(x for x in lines(project, "09") if x.measure.endswith("epoch"))
    assert before.verdict == "not run: not timed in this profile"
    methods = {"concat": summary, "ce3": summary}
    write_json(project / "data/timing.json", timed | {"methods": methods})
    after = [x for x in lines(project, "09") if x.measure.endswith("epoch")]
    assert after[0].row.startswith("Concat") and after[0].published == "1.5"
    assert after[0].ours == "median 0.10000 (quartiles 0.09000 to 0.11000)"
    assert after[0].verdict == "no verdict: TWIN"
    assert after[-1].row.startswith("CE3") and after[-1].verdict == "control"
    table = next(t for t in tables.build(PROFILE, project) if t.key == "09")
    assert any("median of 3 epochs after warm-up" in note for note in table.notes)


def test_mib_is_its_best_form_by_the_score_inside_train(project):
    for form, score, test in (("mib_e", 0.5, 0.9), ("mib_l", 0.7, 0.4), ("mib_c", 0.6, 0.8)):
        choice = {"choices": [{"score": score}]}
        write_json(project / f"data/tune/crema_d/{form}.json", choice)
        one = replace(fake("crema_d", "concat", 0), method=form, metrics={"accuracy": test})
        one.write(project / "runs/crema_d" / form)
    line = row(project, "02", "MIB")
    assert line.ours == "40.0" and line.records == "runs/crema_d/mib_l"
    table = next(t for t in tables.build(PROFILE, project) if t.key == "02")
    assert any("crema_d: mib_l" in note for note in table.notes)
    assert any(note.startswith("DCLF is our reading") for note in table.notes)


def test_table_6_shows_the_bounds_and_ours_beside_them(project):
    for method in ("ibma_plugin", "ibma_vib"):
        replace(fake("crema_d", "ibma", 0), method=method).write(project / "runs/crema_d" / method)
    rows = [line.row for line in lines(project, "06") if line.ours]
    assert any(name.startswith("VIB") for name in rows)
    assert any(name.startswith("Plug-in IB") for name in rows)


def test_the_control_stands_in_every_table_of_metrics(project):
    for key in ("02", "04", "05"):
        assert any(line.verdict == "control" for line in lines(project, key))


def test_significance_names_the_best_baseline_and_the_direction(project):
    rows = json.loads((project / "data/significance.json").read_text())
    best = next(r for r in rows if r["opponent"] == "best baseline" and r["task"] == "crema_d")
    assert best["baseline"] == "omib", "the control is not a baseline"
    assert best["holm"] >= best["p"]
    difference = [line for line in lines(project, "10") if line.measure.startswith("difference")]
    assert difference and {line.verdict for line in difference} == {"direction holds"}


def test_deleting_records_turns_one_cell_into_not_run_and_nothing_else(project):
    before = lines(project, "04")
    shutil.rmtree(project / "runs/chexpert/concat")
    after = lines(project, "04")
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1].verdict == "not run: no record" and not changed[0][1].ours


def test_records_of_another_profile_do_not_count(project):
    for seed in range(3):
        one = replace(fake("crema_d", "omib", seed), profile="paper")
        one.write(project / "runs/crema_d/omib")
    assert row(project, "02", "OMIB").verdict == "not run: no record"


def test_undefined_metrics_are_left_out(project):
    one = replace(fake("chexpert", "ibma", 2), metrics={"mauc": None})
    one.write(project / "runs/chexpert/ibma")
    ours = (x for x in lines(project, "04") if x.row.startswith("IBMA"))
    line = next(x for x in ours if x.measure.startswith("chexpert"))
    assert line.n == "2"


@pytest.mark.parametrize(("task", "method"), [("chexpert", "ce3"), ("split_digits", "omib")])
def test_a_cell_without_one_defined_metric_does_not_stop_the_report(project, task, method):
    for seed in range(3):
        one = fake(task, method, seed)
        replace(one, metrics=dict.fromkeys(one.metrics)).write(project / "runs" / task / method)
    assert report.write(PROFILE, project).exists()


def test_one_run_has_no_verdict(project):
    replace(fake("crema_d", "ibma", 0), source="real").write(project / "runs/crema_d/ibma")
    for seed in (1, 2):
        (project / f"runs/crema_d/ibma/seed_{seed}.json").unlink()
    assert row(project, "02", "IBMA").verdict == "no verdict: one run"


def test_sizes_of_a_task_with_folds_are_those_of_run_0(project):
    counts = {f"fold{k}": 10 + k for k in range(5)}
    meta = {"source": "real", "classes": list("abc"), "counts": counts, "dropped": 0, "folds": 5}
    write_json(project / "data/features/split_digits/meta.json", meta)
    sizes = {x.measure: x.ours for x in lines(project, "01") if x.row.startswith("Split digits")}
    assert (sizes["train"], sizes["test"]) == ("50", "10")


def test_a_loss_that_rounds_to_zero_has_no_sign():
    assert tables._format(-0.00001, "nats") == "0.0000"


def test_notes_count_labels_and_name_the_control(project):
    notes = {table.key: " ".join(table.notes) for table in tables.build(PROFILE, project)}
    assert "mean over the 4 labels" in notes["04"]
    assert "against ce3" in notes["10"] and "against ce3" in notes["12"]


def test_a_table_without_a_task_says_so_in_markdown_and_latex(project):
    only = replace(PROFILE, tasks={"split_digits": PROFILE.tasks["split_digits"]})
    report.write(only, project)
    for suffix in ("md", "tex"):
        assert (
            "not run: no task" in (project / f"reports/twin/tables/table_02.{suffix}").read_text()
        )


def test_records_are_listed_when_mlflow_knows_none(project):
    write_json(project / "data/track.json", {})
    text = report.write(PROFILE, project).read_text()
    assert "runs/crema_d/ibma/seed_2.json" in text and "not tracked" in text


class Page(HTMLParser):
    """Collect table cells, headings and unclosed tags."""

    def __init__(self):
        super().__init__()
        self.cells, self.open, self.images = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "a"):
            self.cells.append(data)


def test_the_same_numbers_stand_in_markdown_csv_latex_and_html(project):
    page = Page()
    text = report.write(PROFILE, project).read_text()
    page.feed(text)
    assert not page.open, "every tag is closed"
    for table in tables.build(PROFILE, project):
        stem = f"table_{table.key}" if table.key.isdigit() else table.key
        folder = project / "reports/twin/tables"
        markdown = (folder / f"{stem}.md").read_text()
        latex = (folder / f"{stem}.tex").read_text()
        with (folder / f"{stem}.csv").open() as file:
            rows = list(csv.reader(file))[2:]
        assert [tuple(r) for r in rows] == [tables.cells_of(line) for line in table.lines]
        for line in table.lines:
            strings = tables.cells_of(line)
            assert f"| {' | '.join(strings)} |" in markdown
            assert " & ".join(report._latex(s) for s in strings) in latex
            assert all(s in page.cells for s in strings if s)
        assert ("TWIN" in markdown.splitlines()[0]) == table.twin


def test_twin_stands_in_title_and_file_header_of_every_twin_table(project):
    report.write(PROFILE, project)
    for name in ("table_01", "table_02", "table_04", "table_05", "table_10", "table_12"):
        for suffix in ("md", "csv", "tex"):
            first = (project / f"reports/twin/tables/{name}.{suffix}").read_text().splitlines()[0]
            assert "(TWIN)" in first
    first = (project / "reports/twin/tables/real_data.md").read_text().splitlines()[0]
    assert "TWIN" not in first


def test_the_page_is_one_offline_file_with_alt_texts(project):
    text = report.write(PROFILE, project).read_text()
    page = Page()
    page.feed(text)
    assert not re.search(r'(src|href)="https?:', text)
    assert page.images and all(image["alt"] for image in page.images)
    assert all(image["src"].startswith("data:") for image in page.images)
    assert 'lang="en"' in text and "prefers-color-scheme: dark" in text and 'scope="row"' in text


def test_the_same_records_give_the_same_files(project):
    report.write(PROFILE, project)
    folder = project / "reports/twin"
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report.write(PROFILE, project)
    assert first == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_metrics_and_bars_for_dvc(project):
    report.write(PROFILE, project)
    metrics = json.loads((project / "reports/twin/metrics.json").read_text())
    assert metrics["crema_d"]["ibma"] == pytest.approx(66.0)
    bars = (project / "reports/twin/plots/metrics.csv").read_text().splitlines()
    assert bars[0] == "cell,percent" and "chexpert/ibma,66.0" in bars


def test_latex_marks_are_escaped():
    assert report._latex("50 % of a_b & c") == r"50 \% of a\_b \& c"


def test_a_record_survives_its_file(tmp_path):
    one = fake("crema_d", "ibma", 0)
    assert asdict(record.read(one.write(tmp_path))) == asdict(one)


def test_the_summary_is_five_lines_made_of_records(project):
    """Ours is .65 and more everywhere, its control .60: best on every task."""
    here, built = results.cells(PROFILE, project), tables.build(PROFILE, project)
    lines_ = report._summary(PROFILE, project, here, built)
    assert len(lines_) == 5
    count = len(PROFILE.tasks)
    assert f"highest mean on {count} of {count} tasks" in lines_[1]
    assert lines_[1].endswith(f"without a bound (ce3) on {count}.")
    assert lines_[2].startswith(
        "Against the best baseline of each comparison, after Holm: better in"
    )


def test_table_5_says_what_ibb_is_and_which_part_is_constant(project):
    for seed in range(2):
        one = fake("chexpert", "ibma", seed)
        history = {"ibb/image|text": [0.4, 0.3 + 0.1 * seed]}  # weighted by eta = 0.5
        ib = one.ib | {"u/image": 0.06}
        replace(one, history=history, ib=ib).write(project / "runs/chexpert/ibma")
    (project / "runs/chexpert/ibma/seed_2.json").unlink()
    notes = next(t for t in tables.build(PROFILE, project) if t.key == "05").notes
    note = next(note for note in notes if note.startswith("chexpert: IBB"))
    assert "image|text 0.7000; of it U, which no training moves: image 0.0600." in note
