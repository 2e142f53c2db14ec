"""docs/methods.md says what the docstrings say."""

from pathlib import Path

import pytest

from ibma import docs, methods
from ibma.methods.ibma import BOUNDS

HERE = Path(__file__).parent
GOLDEN = {path.stem for path in (HERE / "golden").glob("*.npz")}


def test_the_committed_page_is_the_generated_one():
    page = HERE.parent / docs.METHODS
    assert page.read_text(encoding="utf-8") == docs.methods_page(), "run `ibma docs` and commit"


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
