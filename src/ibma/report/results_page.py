"""Write docs/results.md, whose numbers are cells of the tables of profile `open`.

The text is `templates/results.md.jinja`; `ibma docs` fills it from the committed tables, `ibma
verify open` from the records, and compares. So no number in it can differ from its table.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ibma import paths
from ibma.errors import IbmaError
from ibma.paper import published
from ibma.report import formatting
from ibma.report.real_tables import Verdict
from ibma.report.study_tables import NOISE_APART
from ibma.report.templates import environment
from ibma.results import claims, significance

PATH, PROFILE = Path("docs/results.md"), "open"

Rows = Sequence[Mapping[str, object]]


def committed(root: Path) -> str:
    """Fill the page from the committed tables."""
    tables, report = {}, root / paths.REPORTS / PROFILE
    for path in (*sorted((report / "tables").glob("*.csv")), report / "tuning.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            tables[path.stem] = list(csv.DictReader(file))
    return page(tables)


def claimed() -> list[float]:
    """Return the differences that the paper tests, in points, the smallest first."""
    paper = published.load()
    tables = [paper.table(number) for number in significance.TABLES]
    return sorted(
        (row.cells["ours"].value - row.cells["baseline"].value)
        * (1 if table.column("ours").unit == "percent" else 100)
        for table in tables
        for row in table.rows
    )


def page(tables: Mapping[str, Rows]) -> str:
    """Fill the page.

    Args:
        tables: name -> rows, as the CSV file of that name holds them.
    """
    theirs = [formatting.number(points, "percent") for points in claimed()]
    template = environment().get_template("results.md.jinja")
    return str(template.render(told=Told(tables), theirs=theirs, verdicts=Verdict))


class Told:
    """What the text asks of the tables; every number of it goes through here."""

    def __init__(self, tables: Mapping[str, Rows]) -> None:
        self._tables = tables

    def _rows(self, table: str, **where: object) -> list[Mapping[str, object]]:
        """Return the rows of a table that hold some values, column -> value."""
        return [
            row
            for row in self._tables.get(table, ())
            if all(str(row.get(name)) == str(value) for name, value in where.items())
        ]

    def column(self, table: str, column: str, **where: object) -> list[float]:
        """Return the numbers of a column, in the rows that hold some values elsewhere."""
        cells = (row.get(column) for row in self._rows(table, **where))
        return [float(str(cell)) for cell in cells if cell not in ("", None)]

    def names(self, table: str, column: str, **where: object) -> str:
        """List the texts of a column, in the rows that hold some values elsewhere."""
        return ", ".join(str(row[column]) for row in self._rows(table, **where)) or "none"

    def tried(self, setting: str) -> str:
        """Print the values of a setting that tuning tried, the smallest first."""
        return ", ".join(f"{one:g}" for one in sorted(set(self.column("tuning", setting))))

    def span(self, table: str, column: str, unit: str, **where: object) -> tuple[str, str]:
        """Print the smallest and the largest number of a column."""
        found = self.column(table, column, **where)
        return formatting.number(min(found), unit), formatting.number(max(found), unit)

    def regimes(self, rival: str) -> dict[str, tuple[int, int]]:
        """Return task -> number of regimes where IBMA is better, and worse, than a rival."""
        column, pairs = f"IBMA minus {rival}: better / worse", {}
        for row in self._tables["regimes"]:
            better, _, worse = str(row[column]).partition(" / ")
            pairs[str(row["Task"])] = int(better), int(worse)
        return pairs

    def noise(self, where: str) -> tuple[int, int, int]:
        """Count the cells of the table of noise, and those where IBMA gains and loses.

        It gains or loses on its control where the 95 % interval of the difference leaves out 0.
        """
        ends = ("low", "high")
        low, high = (
            self.column("noise", f"{NOISE_APART} {end}", **{"Noise in": where}) for end in ends
        )
        return len(low), sum(one > 0 for one in low), sum(one < 0 for one in high)

    def lowered(self, method: str) -> int:
        """Count the tasks where training lowers the mean fused IB loss of a method."""
        rows = self._rows("real_ib", Term="fused", Method=method)
        return sum(float(str(row["After"])) < float(str(row["Before"])) for row in rows)

    def above_logistic(self) -> dict[str, str]:
        """Return task -> mean of IBMA minus that of logistic regression, in points."""
        apart = {}
        for row in self._rows("leaderboard", method=claims.OURS):
            place = {"method": "logistic_regression", "metric": row["metric"]}
            if found := self.column(f"real_{row['task']}", "mean", **place):
                difference = float(str(row["mean"])) - found[0]
                apart[str(row["task"])] = formatting.number(difference, "percent", sign=True)
        return apart

    def cell(self, table: str, column: str, **where: object) -> str:
        """Return the one cell of a column whose row holds some values elsewhere.

        Raises:
            IbmaError: no row has them, or several do.
        """
        found = self._rows(table, **where)
        if len(found) != 1 or column not in found[0]:
            shown = ", ".join(f"{name} {value}" for name, value in where.items())
            raise IbmaError(
                f"results.md.jinja: {table}.csv: {column} of {shown}: {len(found)} rows: name one "
                "that the table has"
            )
        return str(found[0][column])

    def value(self, table: str, column: str, **where: object) -> float:
        """Return one cell as a number, to compare it."""
        return float(self.cell(table, column, **where))

    def number(self, table: str, column: str, unit: str = "percent", **where: object) -> str:
        """Print one cell with the digits of its unit."""
        return formatting.number(self.value(table, column, **where), unit)

    def mean_apart(self, table: str, column: str, **where: object) -> str:
        """Print a mean difference in points, with its 95 % interval."""
        parts = (f"{column}{part}" for part in ("", " low", " high"))
        return self._apart(*(self.value(table, part, **where) for part in parts))

    def _apart(self, difference: float, low: float, high: float) -> str:
        shown = formatting.number(difference, "percent", sign=True)
        return f"{shown} {formatting.interval(low, high, 'percent')}"

    def mean(self, task: str, method: str) -> str:
        """Print a method's mean on a task in percent."""
        return self.number("leaderboard", "mean", task=task, method=method)

    def rival(self, opponent: str, task: str) -> str:
        """Name the method that an opponent such as the best baseline is on a task."""
        return claims.method_name(self.cell("real_claims", "method", opponent=opponent, task=task))

    def best(self, opponent: str, task: str) -> str:
        """Print the mean of an opponent such as the best baseline on a task, in percent."""
        return self.mean(task, self.cell("real_claims", "method", opponent=opponent, task=task))

    def gap(self, opponent: str, task: str) -> str:
        """Print IBMA minus an opponent in points, with its 95 % interval."""
        parts = ("difference", "total low", "total high")
        return self._apart(
            *(self.value("real_claims", name, opponent=opponent, task=task) for name in parts)
        )

    def count(self, opponent: str, *verdicts: str) -> int:
        """Count the tasks on which the comparison with an opponent has one of these verdicts."""
        return sum(row["opponent"] == opponent for row in self._claims(verdicts))

    def standing(self, *verdicts: str) -> list[Mapping[str, object]]:
        """Return the comparisons with one of these verdicts that hold for all claims together."""
        rows = self._claims(verdicts)
        return [row for row in rows if float(str(row["holm page"])) < significance.ALPHA]

    def named(self, rows: Rows) -> str:
        """Name verdict, task and opponent of some comparisons."""
        words = (f"{row['verdict']} on `{row['task']}` ({row['opponent']})" for row in rows)
        return ", ".join(words)

    def all(self, *verdicts: str) -> int:
        """Count the comparisons that have one of these verdicts."""
        return len(self._claims(verdicts))

    def _claims(self, verdicts: Sequence[str]) -> Rows:
        return [row for row in self._tables["real_claims"] if row["verdict"] in verdicts]

    def among(self, opponents: Sequence[str], *verdicts: str) -> int:
        """Count the comparisons with several opponents that have one of these verdicts."""
        return sum(self.count(opponent, *verdicts) for opponent in opponents)

    def largest(self, opponent: str) -> str:
        """Name the task with the largest difference from an opponent; empty for no comparison."""
        rows = self._rows("real_claims", opponent=opponent)
        compared = [row for row in rows if row["difference"] not in ("", None)]
        largest = max(compared, key=lambda row: abs(float(str(row["difference"]))), default=None)
        return str(largest["task"]) if largest else ""
