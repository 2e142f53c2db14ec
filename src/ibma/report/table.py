"""Tables of numbers, and the writers that print them as Markdown, LaTeX and CSV.

A number stays a number until a writer prints it. Knows neither records nor the paper.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from ibma.files import write_bytes
from ibma.report import formatting
from ibma.results.stats import Summary

NOT_RUN = "not run"
NO_TASK = "not run: no task of this table is in this profile"
WIDE = 7  # columns next to the first that a LaTeX page holds; more are split into several parts
T_INTERVAL = (
    "95 % t interval of the mean, cut at 0 and 100 for a percentage, at 0 and 1 for a fraction"
)
OF_A_DIFFERENCE = "95 % interval of the difference"  # over what, tables say themselves
INTERVALS = {  # of units whose interval is another one
    "minutes": "quartiles of times",
    "seconds": "quartiles of times",
    "effect": "95 % BCa bootstrap interval of d_z",
    "times": "range",
}

Scalar = str | int | float | None
Rows = list[dict[str, Scalar]]  # of a CSV file


class Mark(StrEnum):
    """How a number ranks in its column; the paper prints best bold and second best underlined."""

    NONE = ""
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True)
class Number:
    """A number, how sure it is, and how it ranks.

    Attributes:
        value: the number, in `unit`.
        unit: decides the digits, see `formatting`.
        sd: standard deviation over runs.
        n: runs.
        low: lower end of an interval: 95 % of a mean, or quartiles of times.
        high: its upper end.
        mark: rank in the column.
        signed: whether it is a difference, which has a plus before positive values.
        note: a word after the number, such as a verdict.
    """

    value: float
    unit: str = "percent"
    sd: float | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    mark: Mark = Mark.NONE
    signed: bool = False
    note: str = ""

    @property
    def printed(self) -> str:
        """The value and its standard deviation."""
        text = formatting.number(self.value, self.unit, sign=self.signed)
        return text if self.sd is None else f"{text} ± {formatting.number(self.sd, self.unit)}"

    @property
    def interval(self) -> str:
        """The interval, empty where there is none."""
        return formatting.interval(self.low, self.high, self.unit)

    def flat(self) -> dict[str, Scalar]:
        """Return every part by its name; the value has none."""
        parts = {"sd": self.sd, "n": self.n, "low": self.low, "high": self.high}
        return {"": self.value, **parts, "mark": self.mark.value, "note": self.note}


Value = str | int | Number | None


@dataclass(frozen=True)
class Column:
    """A column of a table; neighbours of one `group` share a heading."""

    label: str
    group: str = ""

    @property
    def heading(self) -> str:
        """Group and label in one line."""
        return (
            f"{self.group}: {self.label}" if self.group and self.label else self.group or self.label
        )


@dataclass(frozen=True)
class Row:
    """Values in the order of the columns.

    Attributes:
        values: one for each column.
        source: where the numbers come from.
        ours: whether it is the row of IBMA, which the page sets off.
    """

    values: tuple[Value, ...]
    source: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        key: two digits for a table of the paper, else a word; names the files.
        title: heading without its mark.
        caption: what it shows, in a sentence.
        twin: whether generated data made any number in it.
        columns: the columns; the first one names the rows.
        rows: the rows, as they are printed.
        notes: what a reader must know.
        data: every number of the table as flat rows, where that is more than `rows` print.
        best_of: among which numbers the bold one is best.
    """

    key: str
    title: str
    caption: str
    twin: bool
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    data: tuple[Mapping[str, Scalar], ...] = ()
    best_of: str = "the column"

    @property
    def name(self) -> str:
        """What its files are called, without their endings."""
        return f"table_{self.key}" if self.key.isdigit() else self.key

    @property
    def heading(self) -> str:
        """The title with its mark."""
        return f"{self.title} (TWIN)" if self.twin else self.title

    @property
    def legend(self) -> str:
        """What its marks and signs mean."""
        numbers = [value for row in self.rows for value in row.values if isinstance(value, Number)]
        intervals = dict.fromkeys(
            OF_A_DIFFERENCE if number.signed else INTERVALS.get(number.unit, T_INTERVAL)
            for number in numbers
            if number.low is not None
        )
        words = [f"[..]: {'; '.join(intervals)}."] if intervals else []
        if any(number.sd is not None for number in numbers):
            words.insert(0, "Mean ± sample standard deviation over runs.")
        if any(number.mark for number in numbers):
            words.append(f"Bold: best of {self.best_of}. Underlined: second best.")
        return " ".join(words)

    def flat(self) -> Rows:
        """Return every number with its parts, one mapping a row."""
        if self.data:
            return [dict(row) for row in self.data]
        flat: Rows = []
        for row in self.rows:
            parts: dict[str, Scalar] = {}
            for column, value in zip(self.columns, row.values, strict=True):
                if isinstance(value, Number):
                    parts |= {f"{column.heading} {k}".strip(): v for k, v in value.flat().items()}
                else:
                    parts[column.heading] = value
            flat.append(parts | {"source": row.source})
        used = {key for row in flat for key, value in row.items() if value not in (None, "")}
        keys = [key for key in dict.fromkeys(k for row in flat for k in row) if key in used]
        return [{key: row.get(key) for key in keys} for row in flat]


def grouped(columns: Sequence[Column]) -> list[tuple[str, list[tuple[int, Column]]]]:
    """Gather neighbouring columns of one group, each with its place; others stand alone."""
    groups = groupby(enumerate(columns), key=lambda pair: pair[1].group or pair[0])
    return [(own[0][1].group, own) for own in (list(members) for _, members in groups)]


def mean(summary: Summary | None, unit: str) -> Number | None:
    """Make a number of a summary over runs; None of none."""
    if summary is None:
        return None
    return Number(summary.mean, unit, summary.sd, summary.n, summary.low, summary.high)


def signed(one: Summary | None) -> Value:
    """Return a mean difference in points, with its interval; `NOT_RUN` for None."""
    if one is None:
        return NOT_RUN
    return Number(one.mean, "percent", None, one.n, one.low, one.high, signed=True)


def mark(numbers: Sequence[Number | None], *, lower_is_better: bool = False) -> list[Number | None]:
    """Mark the best and the second best of some numbers, as the paper marks its own.

    Numbers that are printed alike share their mark. With fewer than two different ones there is no
    mark.
    """

    def rounded(number: Number) -> float:
        return formatting.rounded(number.value, number.unit)

    ranked = sorted({rounded(n) for n in numbers if n}, reverse=not lower_is_better)
    if len(ranked) < 2:
        return list(numbers)
    marks = dict(zip(ranked, (Mark.BEST, Mark.SECOND), strict=False))
    return [n and replace(n, mark=marks.get(rounded(n), Mark.NONE)) for n in numbers]


# --- writers -------------------------------------------------------------------------------------


def write_csv(rows: Sequence[Mapping[str, Scalar]], path: Path) -> None:
    """Write flat rows; floats have ten significant digits, which no processor moves."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv(value) for key, value in row.items()} for row in rows)
    write_bytes(path, text.getvalue().encode())


def _csv(value: Scalar) -> Scalar:
    return f"{value:.10g}" if isinstance(value, float) else value


def as_markdown(table: Table) -> str:
    """Print a table as GitHub reads it."""
    from tabulate import tabulate

    head = [formatting.markdown(column.heading) for column in table.columns]
    body = [[_markdown(value) for value in row.values] for row in table.rows]
    plain = {"tablefmt": "github", "disable_numparse": True}
    grid = tabulate(body, head, **plain) if body else NO_TASK
    notes = "\n".join(f"- {formatting.markdown(note)}" for note in table.notes)
    words = formatting.markdown(f"{table.caption} {table.legend}".strip())
    parts = [f"# {formatting.markdown(table.heading)}", words, grid, notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(value: Value) -> str:
    if not isinstance(value, Number):
        return "" if value is None else formatting.markdown(str(value))
    forms = {Mark.BEST: "**{}**", Mark.SECOND: "<u>{}</u>", Mark.NONE: "{}"}
    rest = f"{value.interval} {formatting.markdown(value.note)}".strip()
    return f"{forms[value.mark].format(value.printed)} {rest}".strip()


def as_latex(table: Table) -> str:
    """Print a table as a `longtable`, split into parts where it is too wide for a page."""
    from ibma.report.templates import environment

    parts = [_part(table, [0, *places]) for places in _chunks(table.columns[1:])]
    return str(environment().get_template("table.tex.jinja").render(table=table, parts=parts))


@dataclass(frozen=True)
class Part:
    """Some columns of a table in LaTeX: relative widths, headings, and rows of cells."""

    widths: list[str]
    head: list[str]
    rows: list[list[str]]


def _chunks(columns: Sequence[Column]) -> Iterator[list[int]]:
    """Yield the places of columns that stand on one page; groups are never split."""
    chunk: list[int] = []
    for _, members in grouped(columns):
        places = [place + 1 for place, _ in members]
        if chunk and len(chunk) + len(places) > WIDE:
            yield chunk
            chunk = []
        chunk = chunk + places
    yield chunk


def _part(table: Table, places: Sequence[int]) -> Part:
    head = [formatting.latex(table.columns[place].heading) for place in places]
    rows = [[_latex(row.values[place]) for place in places] for row in table.rows]
    plain = [[len(table.columns[place].heading) / 2 for place in places]]
    plain += [[len(_plain(row.values[place])) for place in places] for row in table.rows]
    letters = [min(28.0, 2 + max(column)) for column in zip(*plain, strict=True)]
    return Part([f"{count / sum(letters):.4f}" for count in letters], head, rows)


def _plain(value: Value) -> str:
    """Print a value without marks."""
    if isinstance(value, Number):
        return f"{value.printed} {value.interval} {value.note}".strip()
    return "" if value is None else str(value)


def _latex(value: Value) -> str:
    if not isinstance(value, Number):
        return "" if value is None else formatting.latex(str(value))
    forms = {Mark.BEST: r"\textbf{%s}", Mark.SECOND: r"\underline{%s}", Mark.NONE: "%s"}
    rest = formatting.latex(f"{value.interval} {value.note}".strip())
    return f"{forms[value.mark] % formatting.latex(value.printed)} {rest}".strip()
