"""Generated pages say what docstrings and cards say."""

import re
from pathlib import Path

import pytest

from ibma import datasets, docs, methods
from ibma.methods.ibma import BOUNDS

HERE = Path(__file__).parent
GOLDEN = {path.stem for path in (HERE / "golden").glob("*.npz")}


@pytest.mark.parametrize(
    ("path", "page"), [(docs.METHODS, docs.methods_page), (docs.DATASETS, docs.datasets_page)]
)
def test_the_committed_pages_are_the_generated_ones(path, page):
    assert (HERE.parent / path).read_text(encoding="utf-8") == page(), "run `ibma docs` and commit"


def test_every_data_set_is_described_and_its_link_leads_to_it():
    page = docs.datasets_page()
    headings = {docs._anchor(line[3:]) for line in page.splitlines() if line.startswith("## ")}
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert set(links) == headings and len(links) == len(datasets.names())
    for name in datasets.names():
        card = datasets.load(name).CARD
        assert card.licence in page and all(note in page for note in card.notes)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_tells_every_field(name):
    page = docs.methods_page()
    assert f"(`{name}`)" in page  # a missing field is a KeyError


def test_every_bound_is_listed():
    page = docs.methods_page()
    assert all(f"| `{key}` |" in page for key in BOUNDS)


def test_fields_are_paragraphs():
    text = "Title.\n\nCitation: a\nb.\n\nNo field: c.\n\nParity: x."
    assert docs.fields(text) == {"Citation": "a b.", "Parity": "x."}


def test_stored_values_named_under_parity_exist():
    page = docs.methods_page()
    for name in GOLDEN - {"atd_evaluate", "deepsvdd_one-class", "deepsvdd_center_eps"}:
        assert name in page, f"{name}: no docstring names it under Parity"
