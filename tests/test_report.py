"""From records to tables and page: the same numbers everywhere, TWIN marked, gaps named."""

import csv
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ibma import params
from ibma.files import write_json
from ibma.paper import audit, published
from ibma.report import figures, formatting, paper_tables
from ibma.report import page as report
from ibma.results import records, significance
from ibma.training import record
from ibma.training.record import Record

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
    return fill(tmp_path)


def fill(tmp_path: Path) -> Path:
    """Records of some methods on every task, and what the stages around them leave."""
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
    rows = significance.run(PROFILE, records.cells(PROFILE, tmp_path), published.load())
    write_json(tmp_path / "data/significance.json", rows)
    checks = [asdict(check) for check in audit.run(published.load())]
    write_json(tmp_path / "data/audit.json", checks)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Training curves are files beside the page, and half of the time that a report takes."""
    monkeypatch.setattr(report, "_draw_curves", lambda *_: None)


def lines(root: Path, key: str) -> list[paper_tables.Line]:
    return next(t for t in paper_tables.build(PROFILE, root) if t.key == key).lines


def row(root: Path, key: str, start: str) -> paper_tables.Line:
    return next(line for line in lines(root, key) if line.row.startswith(start))


def test_a_cell_holds_published_ours_difference_and_interval(project):
    line = row(project, "02", "IBMA")
    assert (line.published, line.ours, line.n) == ("65.4 ± 0.4 (best)", "66.0 ± 1.0 (best)", "3")
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
    drawn = report._write_evidence(PROFILE, project, project / "figures")
    assert "eta" in [name for _, name in drawn] and (project / "figures/eta.png").exists()


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
    built = report.build(PROFILE, project)
    keys = [f"{number:02d}" for number in range(1, 17)]
    assert [table.key for table in built[:19]] == [*keys, "audit", "real_data", "real_claims"]
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
    assert after[0].ours == "0.10000 (0.09000 to 0.11000)"
    assert after[0].verdict == "no verdict: TWIN"
    assert after[-1].row.startswith("CE3") and after[-1].verdict == "control"
    table = next(t for t in paper_tables.build(PROFILE, project) if t.key == "09")
    assert any("median and quartiles of 3 epochs after warm-up" in note for note in table.notes)


def test_mib_is_its_best_form_by_the_score_inside_train(project):
    for form, score, test in (("mib_e", 0.5, 0.9), ("mib_l", 0.7, 0.4), ("mib_c", 0.6, 0.8)):
        choice = {"choices": [{"score": score}]}
        write_json(project / f"data/tune/crema_d/{form}.json", choice)
        one = replace(fake("crema_d", "concat", 0), method=form, metrics={"accuracy": test})
        one.write(project / "runs/crema_d" / form)
    line = row(project, "02", "MIB")
    assert line.ours == "40.0" and line.records == "runs/crema_d/mib_l"
    table = next(t for t in paper_tables.build(PROFILE, project) if t.key == "02")
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


def every_line(root: Path) -> list[tuple[str, object]]:
    return [
        (table.key, line) for table in paper_tables.build(PROFILE, root) for line in table.lines
    ]


@pytest.mark.parametrize(
    ("task", "keys"),
    [("crema_d", ["02", "09"]), ("chexpert", ["04"])],
)
def test_deleting_a_cells_records_turns_it_into_not_run_and_nothing_else(project, task, keys):
    """Concat is neither best nor second nor tested: no mark and no test depends on it."""
    before = every_line(project)
    shutil.rmtree(project / "runs" / task / "concat")
    changed = [(a, b) for a, b in zip(before, every_line(project), strict=True) if a != b]
    assert [key for (key, _), _ in changed] == keys
    for (_, line), (_, now) in changed:
        assert line.records == f"runs/{task}/concat" and line.ours
        empty = dict.fromkeys(("ours", "n", "difference", "interval", "records"), "")
        assert now == replace(line, **empty, verdict="not run: no record")


def test_deleting_one_record_changes_the_numbers_of_its_cell_alone(project):
    before = every_line(project)
    (project / "runs/crema_d/concat/seed_1.json").unlink()
    changed = [(a, b) for (_, a), (_, b) in zip(before, every_line(project), strict=True) if a != b]
    assert {(a.records, a.n, b.n) for a, b in changed} == {("runs/crema_d/concat", "3", "2")}


def test_deleting_the_best_cell_moves_the_marks_of_ours_and_no_number(project):
    before = {(x.row, x.measure): x for x in lines(project, "04")}
    shutil.rmtree(project / "runs/chexpert/ibma")
    after = {(x.row, x.measure): x for x in lines(project, "04")}
    changed = {place for place in before if before[place] != after[place]}
    moved = {row: after[row, "chexpert: CheXpert"].ours for row, _ in changed}
    assert moved == {
        "IBMA (Ours)": "",
        "OMIB (Wu et al., 2025)": "57.0 ± 2.0 (best)",
        "Concat (Perez et al., 2018)": "52.0 ± 2.0 (second)",
    }


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
def test_a_cell_without_one_defined_metric_does_not_stop_the_report(project, quick, task, method):
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
    assert formatting.number(-0.00001, "nats") == "0.0000"


def test_notes_count_labels_and_name_the_control(project):
    notes = {table.key: " ".join(table.notes) for table in paper_tables.build(PROFILE, project)}
    assert "mean over the 4 labels" in notes["04"]
    assert "against ce3" in notes["10"] and "against ce3" in notes["12"]


def test_a_table_without_a_task_says_so_in_markdown_and_latex(project, quick):
    only = replace(PROFILE, tasks={"split_digits": PROFILE.tasks["split_digits"]})
    report.write(only, project)
    for suffix in ("md", "tex"):
        assert (
            "not run: no task" in (project / f"reports/twin/tables/table_02.{suffix}").read_text()
        )


def test_records_are_listed_when_mlflow_knows_none(project, quick):
    write_json(project / "data/track.json", {})
    text = report.write(PROFILE, project).read_text()
    assert "runs/crema_d/ibma/seed_2.json" in text and "not tracked" in text


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
        if tag not in ("meta", "img", "link"):
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
            assert named["id"] not in self.ids, f"id {named['id']} stands twice"
            self.ids[named["id"]] = tag

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[self.label][-1][-1] += data


def of_markdown(text: str) -> list[list[str]]:
    """Its rows below the head, with words for marks."""
    rows = [x.strip("|").split("|") for x in text.splitlines() if x.startswith("|")][2:]
    marks = {r"\*\*(.*)\*\*": r"\1 (best)", "<u>(.*)</u>": r"\1 (second)"}
    return [[_in_words(cell.strip(), marks) for cell in row] for row in rows]


def of_latex(text: str) -> list[list[str]]:
    """Its rows below the head, with words for marks."""
    body = text.split("\\endfoot\n")[1].split("\\end{longtable}")[0].replace(r"\allowbreak{}", "")
    marks = {r"\\textbf\{(.*)\}(.*)": r"\1\2 (best)", r"\\underline\{(.*)\}(.*)": r"\1\2 (second)"}
    marks |= {r"\$\\pm\$": "±", r"\$([<>])\$": r"\1", r"\\([&%$#_{}])": r"\1"}
    rows = [row.removesuffix(r"\\").split(" & ") for row in body.splitlines()]
    return [[_in_words(cell.strip(), marks) for cell in row] for row in rows]


def _in_words(cell: str, marks: dict[str, str]) -> str:
    for mark, words in marks.items():
        cell = re.sub(mark, words, cell)
    return cell


def test_markdown_csv_latex_and_html_say_the_same_in_every_cell(project, quick):
    page = Page(report.write(PROFILE, project).read_text())
    marked = 0
    for table in report.build(PROFILE, project):
        stem = project / "reports/twin/tables" / table.name
        with stem.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
            title, head, *rows = csv.reader(file)
        assert [tuple(row) for row in rows] == [paper_tables.cells_of(line) for line in table.lines]
        assert of_markdown(stem.with_suffix(".md").read_text()) == rows
        assert of_latex(stem.with_suffix(".tex").read_text()) == rows
        if rows:
            assert page.tables[table.heading] == [head, *rows]
        assert title == [f"# {table.heading}"] and ("TWIN" in title[0]) == table.twin
        marked += sum(cell.endswith(paper_tables.MARKS) for row in rows for cell in row)
    assert marked > 50, "published and ours"


def test_ours_are_marked_as_the_paper_marks_its_own(project, quick):
    """Concat 52, OMIB 57, IBMA 66; the control's 62 is no rival."""
    ours = {x.row: x.ours for x in lines(project, "02") if x.measure.startswith("crema_d")}
    marked = {row: text for row, text in ours.items() if text.endswith(paper_tables.MARKS)}
    assert marked == {
        "IBMA (Ours)": "66.0 ± 1.0 (best)",
        "OMIB (Wu et al., 2025)": "57.0 ± 2.0 (second)",
    }
    page = report.write(PROFILE, project).read_text()
    stem = project / "reports/twin/tables/table_02"
    assert "| **66.0 ± 1.0** |" in stem.with_suffix(".md").read_text()
    assert "| <u>57.0 ± 2.0</u> |" in stem.with_suffix(".md").read_text()
    assert r"& \textbf{66.0 $\pm$ 1.0} &" in stem.with_suffix(".tex").read_text()
    assert r"& \underline{57.0 $\pm$ 2.0} &" in stem.with_suffix(".tex").read_text()
    assert '<td><b>66.0 ± 1.0<span class="spoken"> (best)</span></b></td>' in page
    assert ",57.0 ± 2.0 (second)," in stem.with_suffix(".csv").read_text()


def marks(metric: str, *ours: str) -> list[str]:
    """What `_marked` appends to numbers of one measure."""
    target = published.Target("task", "method", metric, None)
    given = [(target, paper_tables.Line("", "", "", text, "", "", "", "", "")) for text in ours]
    return [
        line.ours.removeprefix(text)
        for line, text in zip(paper_tables._marked(given), ours, strict=True)
    ]


@pytest.mark.parametrize(
    ("metric", "ours", "expected"),
    [
        (
            "accuracy",
            ("60.0 ± 1.0", "70.0", "65.0 ± 9.0"),
            ("", paper_tables.BEST, paper_tables.SECOND),
        ),
        (
            "minutes_per_epoch",
            ("0.2 (0.1 to 0.3)", "0.1"),
            (paper_tables.SECOND, paper_tables.BEST),
        ),
        (
            "ib/image",
            ("-0.1000", "-0.2000", "0.0000"),
            (paper_tables.SECOND, paper_tables.BEST, ""),
        ),
        (
            "accuracy",
            ("70.0 ± 1.0", "70.0", "65.0"),
            (paper_tables.BEST, paper_tables.BEST, paper_tables.SECOND),
        ),
        (
            "accuracy",
            ("70.0", "65.0", "65.0"),
            (paper_tables.BEST, paper_tables.SECOND, paper_tables.SECOND),
        ),
        ("accuracy", ("", "65.0"), ("", "")),
        ("accuracy", ("65.0", "65.0 ± 2.0"), ("", "")),
    ],
)
def test_marks_follow_printed_numbers_and_ties_share_them(metric, ours, expected):
    assert marks(metric, *ours) == list(expected)


def test_twin_stands_in_title_and_file_header_of_every_twin_table(project, quick):
    report.write(PROFILE, project)
    for name in ("table_01", "table_02", "table_04", "table_05", "table_10", "table_12"):
        for suffix in ("md", "csv", "tex"):
            first = (project / f"reports/twin/tables/{name}.{suffix}").read_text().splitlines()[0]
            assert "(TWIN)" in first
    first = (project / "reports/twin/tables/real_data.md").read_text().splitlines()[0]
    assert "TWIN" not in first


def test_the_page_is_one_offline_file_that_can_be_read_aloud(project, quick):
    text = report.write(PROFILE, project).read_text()
    page = Page(text)
    assert not re.search(r'(src|href)="https?:|url\(', text)
    assert page.images and all(image["alt"] for image in page.images)
    assert all(image["src"].startswith("data:") for image in page.images)
    assert set(page.headers) == {"col", "row"}, "every header says what it heads"
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(below <= above + 1 for above, below in steps), "no level is skipped"
    assert 'lang="en"' in text and "prefers-color-scheme: dark" in text and "@media print" in text


def test_a_cell_links_to_its_record_files_and_mlflow_runs_on_the_page(project, quick):
    for seed in range(2):
        fake("crema_d", "ibma", seed).write(project / "runs/crema_d/ibma_eta_0.5")
    write_json(project / "data/track.json", {"runs/crema_d/ibma/seed_1.json": "8f3b"})
    write_json(
        project / "data/probe.json",
        [{"method": "ibma", "seed": 0, "modality": "image", "metrics": {"mauc": 0.8}}],
    )
    page = Page(report.write(PROFILE, project).read_text())
    inside = {link[1:] for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids), "no link on the page leads nowhere"
    named = {line.records for _, line in every_line(project) if getattr(line, "records", "")}
    assert named <= inside and {"runs/crema_d/ibma_eta_0.5", "data/probe.json"} <= named
    behind = dict(page.tables["Records and their MLflow runs"])
    assert behind["runs/crema_d/ibma"].split() == [
        *("seed_0.json", "not", "tracked"),
        *("seed_1.json", "8f3b"),
        *("seed_2.json", "not", "tracked"),
    ]
    files = {link.removeprefix("../../") for link in page.links if link.startswith("../../")}
    records = {str(p.relative_to(project)) for p in project.glob("runs/*/*/*.json")}
    assert records <= files and all(
        (project / name).exists() for name in files - {"docs/findings.md"}
    )


def test_the_page_of_the_largest_grid_stays_below_a_megabyte(tmp_path, quick, monkeypatch):
    """Profile `open`: ten seeds of every method."""
    profile = params.load(ROOT / "profiles/open.yaml")
    methods, runs = [*profile.methods, *profile.variants], {}
    monkeypatch.setattr(sys.modules[__name__], "ACCURACY", dict.fromkeys(methods, 0.5))
    for task, method, seed in itertools.product(profile.tasks, methods, range(profile.seeds)):
        one = replace(fake(task, method, seed), profile="open", source="real")
        path = one.write(tmp_path / "runs" / task / method)
        runs[path.relative_to(tmp_path).as_posix()] = f"{len(runs):032x}"
    write_json(tmp_path / "data/track.json", runs)
    assert report.write(profile, tmp_path).stat().st_size < 1_000_000


def test_lean_pictures_keep_what_they_refer_to(tmp_path):
    cells = {"concat": [50.0, 60.0], "ibma": [70.0]}
    figures.comparison("task", "accuracy", cells, "real", tmp_path / "comparison")
    svg = (tmp_path / "comparison.svg").read_text()
    found = set(re.findall(r' id="([^"]*)"', svg))
    used = set(re.findall(r'(?:href="|url\()#([^")]*)', svg))
    assert used and used <= found
    assert "concat" in svg and "accuracy on test (%)" in svg and svg.count("<use") > 5
    ElementTree.fromstring(svg)


LATEX = r"""\documentclass{article}
\usepackage{array,booktabs,longtable}
\usepackage[a4paper,landscape,margin=1.5cm]{geometry}
\begin{document}
%s
\end{document}
"""


COMMITTED = {folder.parent.name: folder for folder in sorted(ROOT.glob("reports/*/tables"))}


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here: .ci/run installs it")
@pytest.mark.parametrize("of", ["fresh", *COMMITTED])
def test_latex_compiles(project, of):
    """Every table in one document, as a reader would \\input them; nothing sticks out."""
    folder = COMMITTED.get(of, project / "tables")
    if of == "fresh":
        report._write_tables(report.build(PROFILE, project), folder)
    paths = sorted(folder.glob("*.tex"))
    assert len(paths) >= 18
    text = LATEX % "\n".join(rf"\input{{{path.as_posix()}}}" for path in paths)
    (project / "all.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    too_wide = re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)
    assert max(map(float, too_wide), default=0) < 5, "points beyond the margin"


def test_the_same_records_give_the_same_files(project):
    report.write(PROFILE, project)
    folder = project / "reports/twin"
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report.write(PROFILE, project)
    assert first == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_metrics_and_bars_for_dvc(project, quick):
    report.write(PROFILE, project)
    metrics = json.loads((project / "reports/twin/metrics.json").read_text())
    assert metrics["crema_d"]["ibma"] == pytest.approx(66.0)
    bars = (project / "reports/twin/plots/metrics.csv").read_text().splitlines()
    assert bars[0] == "cell,percent" and "chexpert/ibma,66.0" in bars


def test_latex_marks_are_escaped():
    assert report._latex("50 % of a_b & c") == r"50 \% of a\_\allowbreak{}b \& c"


def test_a_record_survives_its_file(tmp_path):
    one = fake("crema_d", "ibma", 0)
    assert asdict(record.read(one.write(tmp_path))) == asdict(one)


def test_the_summary_is_five_lines_made_of_records(project):
    """Ours is .65 and more everywhere, its control .60: best on every task."""
    here, built = records.cells(PROFILE, project), report.build(PROFILE, project)
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
    notes = next(t for t in paper_tables.build(PROFILE, project) if t.key == "05").notes
    note = next(note for note in notes if note.startswith("chexpert: IBB"))
    assert "image|text 0.7000; of it U, which no training moves: image 0.0600." in note
