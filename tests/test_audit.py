"""The audit finds what is wrong in the paper's tables, and any error planted in a copy."""

from dataclasses import replace

import pytest
import yaml

from ibma.paper import audit, published
from ibma.paper.audit import FAILS, HOLDS, Range, rounded
from ibma.paper.published import Cell


@pytest.fixture(scope="module")
def checks():
    return audit.run(published.load())


def failing(found, kind):
    return [check for check in found if check.kind == kind and check.verdict == FAILS]


def planted(tmp_path, table, row, column, **changes):
    """The checks of a copy of published.yaml in which one cell is another."""
    content = yaml.safe_load(published.PATH.read_text(encoding="utf-8"))
    rows = content["tables"][table]["rows"]
    next(r for r in rows if r["key"] == row)["cells"][column].update(changes)
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return audit.run(published.load(path))


def test_it_finds_the_mean_that_is_not_the_mean(checks):
    (check,) = failing(checks, "mean")
    assert check.where.startswith("Table 7, MIB") and check.claim == "0.602"
    assert check.found == "the mean of its 4 slides is 0.6693 to 0.6702"
    assert check.severity == "contradiction"


def test_it_finds_the_baseline_that_is_not_the_best(checks):
    (check,) = failing(checks, "tested baseline")
    assert check.where == "Table 13, 10x-hBC-C" and "0.743" in check.claim
    assert "0.765 (MMIB" in check.found


def test_it_finds_wrong_marks_and_wrong_counts(checks):
    marks = {check.where for check in failing(checks, "best and second")}
    assert marks == {"Table 6, Minutes/epoch", "Table 7, 10x-hBC-C AUC"}
    claims = [check.claim for check in failing(checks, "statement")]
    assert len(claims) == 2
    assert claims[0].startswith("eight human breast cancer data sets")
    assert claims[1].startswith("Table 14 shows that IBB beats VIB, APIB and CLUB")


def test_it_says_how_many_checks_hold(checks):
    assert len(checks) == 163
    count = sum(check.verdict == HOLDS for check in checks)
    assert audit.summary(checks).startswith(f"163 checks: {count} hold, 6 fail, 3 cannot")


def test_failures_stand_first(checks):
    verdicts = [check.verdict for check in checks]
    assert verdicts == sorted(verdicts, key=[FAILS, audit.OPEN, HOLDS].index)


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "kind"),
    [
        (2, "omib", "crema_d.accuracy", 63.7, "same number twice"),
        (2, "omib", "crema_d.accuracy", 64.2, "statement"),
        (2, "omib", "crema_d.accuracy", 63.7, "tested baseline"),
        (9, "dclf", "crema_d.accuracy", 64.0, "best and second"),
        (7, "ibma", "tissue.auc/mean", 0.9, "mean"),
        (10, "crema_d", "p_value", 0.2, "p-value"),
        (8, "ibma", "eta=0.9", 64.4, "statement"),
        (16, "ibma", "chexpert.mauc/text", 77.9, "statement"),
        (11, "mosi", "p_value", 0.04, "statement"),
    ],
)
def test_a_planted_error_is_found(tmp_path, checks, table, row, column, value, kind):
    found = planted(tmp_path, table, row, column, value=value)
    assert len(failing(found, kind)) > len(failing(checks, kind))


def test_p_range_holds_the_p_of_any_correlation():
    """Runs correlated at 1 leave the least spread, at -1 the most; independent ones lie between."""
    from scipy.stats import t

    ours, baseline = Cell(65.4, 0.4), Cell(63.6, 0.3)
    low, high = audit.p_range(ours, baseline, "percent")
    sd = (0.4**2 + 0.3**2) ** 0.5
    independent = 2 * t.sf(1.8 / (sd / 10**0.5), 9)
    assert low < independent < high
    assert audit.correlation(ours, baseline, independent) in ("0.00", "-0.00")
    assert "no correlation" in audit.correlation(ours, baseline, 0.9)
    assert "undefined" in audit.correlation(replace(ours, sd=0.0), baseline, 0.9)


def test_ranges():
    assert rounded(1.8, 1) == Range(1.75, 1.85)
    gap = rounded(2.0, 1) - rounded(1.9, 1)
    assert (round(gap.low, 9), round(gap.high, 9)) == (0.0, 0.2)
    assert rounded(2.0, 1).over(rounded(4.0, 1)).meets(Range(0.5, 0.5))
    assert not Range(0.0, 1.0).meets(Range(1.1, 2.0))
