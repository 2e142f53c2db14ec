"""Generated pages say what docstrings and cards say."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ibma import datasets, methods
from ibma.errors import IbmaError
from ibma.methods.ibma import bound_names
from ibma.paper import audit, published
from ibma.report import docs, licences, results_page
from ibma.report.licences import licence as licence_of

HERE = Path(__file__).parent
GOLDEN = {path.stem for path in (HERE / "golden").glob("*.npz")}


@pytest.mark.parametrize(
    ("path", "page"),
    [
        (docs.METHODS, docs.methods_page),
        (docs.DATASETS, docs.datasets_page),
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


def test_no_link_of_the_readme_or_the_docs_is_dead():
    pages = [HERE.parent / "README.md", *sorted((HERE.parent / "docs").glob("*.md"))]
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if link.startswith(("http:", "https:", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target.suffix == ".md":
                assert anchor in headings_of(target), f"{page.name}: {link}"


def test_the_site_holds_every_page_and_has_no_dead_link(tmp_path):
    """Built as `make docs` does, where mkdocs is installed: requirements-docs.txt."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (HERE.parent / "docs").rglob("*.md"):
        name = page.relative_to(HERE.parent / "docs").with_suffix("")
        assert (tmp_path / name / "index.html").exists(), name
    assert "class_weight" in (tmp_path / "api/index.html").read_text(encoding="utf-8")


def test_every_pinned_package_is_listed_with_a_licence():
    page = (HERE.parent / licences.PAGE).read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\S+) \| \S+ \| (\S[^|]*) \|$", page, re.M))
    pins = licences.pinned(HERE.parent / licences.PINS)
    assert len(pins) > 150 and [name for name, _ in pins] == [
        name for name in listed if name not in ("Package", "---")
    ]
    assert licence_of("numpy").startswith("BSD-3-Clause")
    assert licence_of("no-such-package").startswith("not installed")


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
