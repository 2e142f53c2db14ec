"""Generated pages say what docstrings and cards say."""

import ast
import csv
import json
import lzma
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from ibma import datasets, methods, params
from ibma.errors import IbmaError
from ibma.methods.ibma import bound_names
from ibma.paper import audit, published
from ibma.report import docs, licences, parameters, results_page, study_tables
from ibma.report.licences import licence as licence_of

HERE = Path(__file__).parent
GOLDEN = {path.stem for path in (HERE / "golden").glob("*.npz")}


@pytest.mark.parametrize(
    ("path", "page"),
    [
        (docs.METHODS, docs.methods_page),
        (docs.DATASETS, docs.datasets_page),
        (parameters.PATH, parameters.page),
        (results_page.PATH, lambda: results_page.committed(HERE.parent)),
    ],
)
def test_the_committed_pages_are_the_generated_ones(path, page):
    assert (HERE.parent / path).read_text(encoding="utf-8") == page(), "run `ibma docs` and commit"


def test_no_result_is_typed_into_the_results_page():
    """A number with a sign, an interval, or a decimal of a percentage comes from a table."""
    text = (HERE.parent / "src/ibma/report/templates/results.md.jinja").read_text(encoding="utf-8")
    typed = re.sub(r"\{[{%].*?[%}]\}", "", text, flags=re.S)
    assert not re.findall(r"[-+]\d+\.\d|\[-?\d|\b\d+\.\d", typed)
    settings = {".1", ".5", ".9", ".05", ".75"}  # eta, the level of a test, and a fact of the data
    assert set(re.findall(r"(?<!\w)\.\d+", typed)) <= settings


def test_the_page_says_what_constant_answers_reach_on_her2st():
    file = "reports/open/evidence/runs/train/her2st/concat.jsonl.xz"
    with lzma.open(HERE.parent / file) as lines:
        spots = np.array([np.sum(json.loads(line)["confusion"], axis=1) for line in lines][:8])
    others = spots.sum(axis=0) - spots  # of each class, in the patients that are trained on
    shares = spots / spots.sum(axis=1, keepdims=True)
    of_others = shares[np.arange(8), others.argmax(axis=1)].mean()
    page = (HERE.parent / results_page.PATH).read_text(encoding="utf-8")
    for share in (of_others, shares.max(axis=1).mean()):
        assert f"{100 * share:.0f} %" in page.partition("**her2st: accuracy.**")[2][:400]


def test_the_page_says_whose_training_loss_still_falls():
    last = {}
    for method, term in (("train/{}/omib", "task"), ("ablation/{}/ce3", "ce/fused")):
        file = f"reports/open/evidence/runs/{method.format('mosi_features')}.jsonl.xz"
        with lzma.open(HERE.parent / file) as lines:
            courses = np.mean([json.loads(line)["history"][term] for line in lines], axis=0)
        last[term] = 1 - courses[-1] / courses[-2]
    assert 0.085 < last["task"] < 0.115 and last["ce/fused"] < 0.005
    page = " ".join((HERE.parent / results_page.PATH).read_text(encoding="utf-8").split())
    assert "the training loss of OMIB falls by a tenth in the last epoch, and that of `ce3`" in page


def test_a_cell_that_no_table_has_is_one_line():
    told = results_page.Told({"real_cost": [{"Method": "IBMA", "Seconds": "1"}]})
    assert told.number("real_cost", "Seconds", "times", Method="IBMA") == "1.00"
    for table, column, where in (
        ("real_cost", "Seconds", {"Method": "mine"}),
        ("real_cost", "Minutes", {"Method": "IBMA"}),
        ("mine", "Seconds", {}),
    ):
        with pytest.raises(IbmaError, match="name one that the table has"):
            told.cell(table, column, **where)


def test_the_results_page_counts_what_its_tables_say():
    apart = study_tables.NOISE_APART
    noise = [
        {"Noise in": "test", f"{apart} low": low, f"{apart} high": high}
        for low, high in ((0.1, 2.0), (-1.0, 1.0), (-3.0, -0.2))
    ]
    fused = [
        {"Term": term, "Method": "IBMA", "Before": before, "After": "0.2"}
        for term, before in (("fused", "0.3"), ("fused", "0.1"), ("audio", "0.3"))
    ]
    tables = {
        "noise": [*noise, noise[0] | {"Noise in": "training"}],
        "real_ib": fused,
        "regimes": [{"Task": "a", "IBMA minus CE3 (no bound): better / worse": "1 / 9"}],
        "tuning": [{"lr": "0.002"}, {"lr": "0.0005"}, {"lr": "0.002"}],
        "leaderboard": [
            {"task": task, "method": "ibma", "metric": "accuracy", "mean": "60"}
            for task in ("a", "b")
        ],
        "real_a": [{"method": "logistic_regression", "metric": "accuracy", "mean": "61.5"}],
        "real_b": [],
    }
    tables["real_claims"] = [
        {"verdict": verdict, "task": task, "opponent": "omib", "holm page": page}
        for verdict, task, page in (
            ("IBMA worse", "a", "0.01"),
            ("IBMA better", "b", "0.2"),
            ("no difference shown", "c", "1"),
        )
    ]
    told = results_page.Told(tables)
    shown = told.standing("IBMA better", "IBMA worse")
    assert told.named(shown) == "IBMA worse on `a` (omib)"
    assert told.all("IBMA better", "IBMA worse") == 2
    assert told.noise("test") == (3, 1, 1)
    assert told.lowered("IBMA") == 1
    assert told.regimes("CE3 (no bound)") == {"a": (1, 9)}
    assert told.tried("lr") == "0.0005, 0.002"
    assert told.above_logistic() == {"a": "-1.5"}, "b has none"


def test_the_differences_that_the_paper_tests_are_those_of_its_tables():
    found = results_page.claimed()
    assert len(found) == 14
    assert found[0] == pytest.approx(72.2 - 71.4) and found[-1] == pytest.approx(76.7 - 74.3)


def rows_of(table: str) -> list[dict[str, str]]:
    """The rows of a committed table of profile `open`."""
    path = HERE.parent / f"reports/open/tables/{table}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_of_the_study_on_hand_written_pages_are_those_of_its_tables():
    readme = " ".join((HERE.parent / "README.md").read_text(encoding="utf-8").split())
    found = [float(row["Detectable"]) for row in rows_of("real_uncertainty")]
    assert f"likely to find is {min(found):.1f} to {max(found):.1f} points" in readme
    theirs = results_page.claimed()
    assert f"paper claims {theirs[0]:.1f} to {theirs[-1]:.1f} points" in readme
    claims = rows_of("real_claims")
    for entry, rows in (("best baseline", (0, 5, 1)), ("best single modality", (2, 3, 1))):
        verdicts = [row["verdict"] for row in claims if row["opponent"] == entry]
        kinds = ("IBMA better", "no difference shown", "IBMA worse")
        assert tuple(verdicts.count(kind) for kind in kinds) == rows, f"README: {entry}"
    rivals = [row for row in claims if row["opponent"] == "best baseline"]
    assert len(rivals) == 6 and all(float(row["difference"]) < 0 for row in rivals)
    (misa,) = (
        row["mean"]
        for row in rows_of("leaderboard")
        if (row["task"], row["method"]) == ("split_digits", "misa")
    )
    page = (HERE.parent / "docs/reading-the-report.md").read_text(encoding="utf-8")
    assert f"[{float(misa):.1f} % on the same digits]" in page


def test_every_data_set_is_described_and_its_link_leads_to_it():
    page = docs.datasets_page()
    headings = {docs._anchor(line[3:]) for line in page.splitlines() if line.startswith("## ")}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert set(links) == headings and len(links) == len(datasets.names())
    for name in datasets.names():
        card = datasets.load(name).CARD
        assert card.licence in page and all(note in page for note in card.notes)


def headings_of(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {docs._anchor(title) for title in re.findall(r"^#+ (.+)$", text, flags=re.M)}


def cloned() -> set[Path]:
    """Return what a fresh clone holds: tracked files and their folders."""
    root = HERE.parent
    if not (root / ".git").exists():
        pytest.skip("sources without git: nothing says what a clone holds")
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    files = {root / line for line in listed.stdout.splitlines()}
    return files | {folder for file in files for folder in file.parents}


def test_a_clone_is_small():
    sizes = {path: path.stat().st_size for path in cloned() if path.is_file()}
    assert not [str(path) for path, size in sizes.items() if size > 1_000_000]
    assert sum(sizes.values()) < 25_000_000


def links_of(page: Path) -> set[str]:
    """Return the links of a page to files, and of Markdown to headings."""
    text = page.read_text(encoding="utf-8")
    pattern = r'href="([^"#]+)"' if page.suffix == ".html" else r"\]\(([^)\s]+)\)"
    return {link for link in re.findall(pattern, text) if not re.match("https?:|mailto:", link)}


def test_no_link_is_dead_in_a_fresh_clone():
    there = cloned()
    written = [file for file in there if file.suffix == ".md" and "evidence" not in file.parts]
    pages = [*written, *(file for file in there if file.suffix == ".html")]
    assert {"README.md", "CONTRIBUTING.md", "index.html"} <= {page.name for page in pages}
    for page in pages:
        for link in links_of(page):
            path, _, anchor = link.partition("#")
            target = Path(os.path.normpath(page.parent / unquote(path))) if path else page
            assert target in there, f"{page.relative_to(HERE.parent)}: {link}"
            if anchor and target.suffix == ".md":
                assert anchor in headings_of(target), f"{page.relative_to(HERE.parent)}: {link}"


def test_every_twin_says_what_chance_and_its_best_score_are():
    for page in (HERE.parent / "src/ibma/twins").glob("*.py"):
        if page.stem in datasets.names():
            said = ast.get_docstring(ast.parse(page.read_text(encoding="utf-8"))) or ""
            assert re.search(r"[Cc]hance", said), page.name
            assert "alone" in said and len(re.findall(r"\.\d", said)) >= 3, page.name


def test_the_first_screen_says_what_a_run_costs_and_what_it_shows():
    text = " ".join((HERE.parent / "README.md").read_text(encoding="utf-8").split())
    assert "They show that the code runs and say nothing about the paper" in text
    first = text.index("## Where to go next")
    for word in ("Linux", "Python 3.11", "GB", "minutes", "no data is downloaded", "make repro"):
        assert word in text[:first], word


def test_the_site_holds_every_page_and_has_no_dead_link(tmp_path):
    """Built as `make docs` does, where mkdocs is installed. With --quiet it counts no warning."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (HERE.parent / "docs").rglob("*.md"):
        name = page.relative_to(HERE.parent / "docs").with_suffix("")
        assert (tmp_path / name / "index.html").exists(), name
    assert "class_weight" in (tmp_path / "api/index.html").read_text(encoding="utf-8")


def test_the_menu_of_the_site_has_every_page_of_docs():
    """Where mkdocs is not installed, nothing else would notice."""
    menu = (HERE.parent / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = set(re.findall(r": (\S+\.md)$", menu, re.M))
    assert {path.name for path in (HERE.parent / "docs").glob("*.md")} <= listed


def test_every_pinned_package_is_listed_with_a_licence():
    page = (HERE.parent / licences.PAGE).read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\S+) \| \S+ \| (\S[^|]*) \|$", page, re.M))
    pins = licences.pinned(HERE.parent / licences.PINS)
    assert len(pins) > 150 and [name for name, _ in pins] == [
        name for name in listed if name not in ("Package", "---")
    ]
    assert licence_of("numpy").startswith("BSD-3-Clause")
    assert licence_of("no-such-package").startswith("not installed")


def test_every_key_of_params_yaml_and_every_hyper_parameter_is_on_a_page():
    page, schema = parameters.page(), params.schema()
    models = {"Params": schema, **schema["$defs"]}
    assert models.keys() - parameters.SECTIONS.keys() == {"Params", "PlainFeature"}  # the first has
    for name, model in models.items():  # its own section, the second has no key
        for key, one in model.get("properties", {}).items():
            assert f"| `{key}` " in page and ("description" in one or "$ref" in one), (name, key)
    listed = (HERE.parent / docs.METHODS).read_text(encoding="utf-8")
    for words in (
        "`beta=0.001`, `warm_up=0.1`",
        "`beta=0.001`, `fusion=shared`, `eval_sample=False`",
    ):
        assert f"- **Hyper-parameters**: {words}." in listed, "its own, or those of its base"


def test_every_method_and_bound_has_a_section_and_no_table_row_is_wide():
    page = docs.methods_page()  # a missing field is a KeyError
    assert all(f"(`{name}`)" in page for name in methods.names())
    assert all(f"### `{name}`" in page for name in bound_names())
    headings = {docs._anchor(line[3:]) for line in page.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) == headings
    rows = [line for text in (page, docs.datasets_page()) for line in text.splitlines()]
    assert max(len(line) for line in rows if line.startswith("|")) < 400


def test_fields_are_paragraphs():
    text = "Title.\n\nCitation: a\nb.\n\nNo field: c.\n\nParity: x."
    assert docs.fields(text) == {"Citation": "a b.", "Parity": "x."}


def test_stored_values_named_under_parity_exist():
    page = docs.methods_page()
    for name in GOLDEN - {
        "atd_evaluate",
        "deepsvdd_one-class",
        "deepsvdd_center_eps",
        "gradcam_cam",
    }:
        assert name in page, f"{name}: no docstring names it under Parity"


def test_every_test_that_the_findings_name_exists():
    text = (HERE.parent / "docs/findings.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    named = set(re.findall(r"`(?:tests/\w+\.py::)?(test_\w+)`", text))
    assert len(named) >= 9
    assert not [name for name in named if f"def {name}(" not in tests]


def test_the_findings_give_the_audits_count():
    text = (HERE.parent / "docs/findings.md").read_text(encoding="utf-8")
    checks = audit.run(published.load())
    count = Counter(check.verdict for check in checks)
    said = f"Of {len(checks)} checks {count[audit.HOLDS]} hold, {count[audit.FAILS]} fail"
    assert said in " ".join(text.split())
