"""`ibma verify`: committed tables against records."""

import csv
from pathlib import Path

import pytest
from test_report import PROFILE, fake, project  # noqa: F401

from ibma import report, tables, verify
from ibma.errors import IbmaError


@pytest.fixture
def reported(project):  # noqa: F811
    report._write_tables(tables.build(PROFILE, project), project / "reports/twin/tables")
    return project


def test_fresh_reports_agree_and_changed_ones_are_named(reported: Path) -> None:
    compared, differences = verify.verify(PROFILE, reported)
    assert compared > 1000 and differences == []
    path = reported / "reports/twin/tables/table_02.csv"
    rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
    place = next(i for i, row in enumerate(rows) if row[0].startswith("IBMA") and row[3])
    rows[place][3] = rows[place][3].replace("66.0", "67.0")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    (difference,) = verify.verify(PROFILE, reported)[1]
    assert difference.table == "table_02" and difference.place.endswith("Ours (mean, sd)")
    assert (difference.committed[:4], difference.recomputed[:4]) == ("67.0", "66.0")


def test_a_record_that_is_gone_or_another_shows(reported: Path) -> None:
    (reported / "runs/crema_d/ibma/seed_0.json").unlink()
    found = verify.verify(PROFILE, reported)[1]
    assert found and all("crema_d" in one.place or "CREMA-D" in one.place for one in found)
    fake("crema_d", "ibma", 0).write(reported / "runs/crema_d/ibma")
    assert verify.verify(PROFILE, reported)[1] == []


def test_a_missing_table_is_named(reported: Path) -> None:
    (reported / "reports/twin/tables/table_05.csv").unlink()
    with pytest.raises(IbmaError, match=r"table_05.csv: missing: `dvc repro report`"):
        verify.verify(PROFILE, reported)


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
def test_agreement_is_up_to_the_last_digit(one, other, agree):
    assert verify._agree(one, other) is agree
