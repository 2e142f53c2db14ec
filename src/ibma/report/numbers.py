"""All numbers of a report as data, and the files that hold them: what `ibma verify` compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ibma.files import write_bytes, write_plain_json
from ibma.report import paper_tables, plots, question_tables, real_tables, study_tables, table
from ibma.report.inputs import Inputs
from ibma.report.table import Rows, Scalar, Table

SHOWN = ("ibma", "ibma_no_align", "ibma_vib", "ibma_club", "ce3", "omib")


@dataclass(frozen=True)
class Numbers:
    """The files of a report that hold numbers, by their names below its folder.

    Attributes:
        tables: every table, those without a row last.
        rows: name of a CSV file -> its rows.
        metrics: name of a JSON file -> method -> percent, of those that the claims are about.
        texts: name of a Markdown or LaTeX file -> its text.
    """

    tables: list[Table]
    rows: Mapping[str, Rows]
    metrics: Mapping[str, Mapping[str, float]]
    texts: Mapping[str, str]

    def write(self, out: Path) -> None:
        """Write every file below `out`."""
        for name, rows in self.rows.items():
            table.write_csv(rows, out / name)
        for name, metrics in self.metrics.items():
            write_plain_json(out / name, metrics)
        for name, text in self.texts.items():
            write_bytes(out / name, text.encode())


def build(inputs: Inputs) -> Numbers:
    """Compute every number of a report."""
    theirs = [] if inputs.own else paper_tables.build(inputs)
    tables = [*theirs, *real_tables.build(inputs), *question_tables.build(inputs)]
    tables += study_tables.build(inputs)
    tables.sort(key=lambda made: not made.rows)
    rows = {f"tables/{made.name}.csv": made.flat() for made in tables}
    texts = {f"tables/{made.name}.md": table.as_markdown(made) for made in tables}
    texts |= {f"tables/{made.name}.tex": table.as_latex(made) for made in tables}
    return Numbers(
        tables=tables,
        rows=rows | plots.build(inputs) | {"tuning.csv": list(_trials(inputs))},
        metrics=_metrics(inputs),
        texts=texts,
    )


def _metrics(inputs: Inputs) -> dict[str, dict[str, float]]:
    """Return what `dvc metrics show` prints: a row a task, a column a method.

    CHOICE: IBMA and what it is compared with by name. 27 methods would be 419 characters wide; all
    of them are in `plots/metrics.csv` and in the leaderboard.
    """
    means = real_tables.scores(inputs, inputs.tasks)
    return {
        f"metrics/{task}.json": {name: round(by[name], 3) for name in SHOWN if name in by}
        for task, by in means.items()
    }


def _trials(inputs: Inputs) -> Iterator[dict[str, Scalar]]:
    """Yield every fold's score of every trial of stage `tune`, and whether it was chosen."""
    setting = ("run_fold", "lr", "weight_decay", "eta", "weight_factor")
    for (task, method), tuned in inputs.results.choices.items():
        chosen = {tuple(choice[name] for name in setting) for choice in tuned["choices"]}
        for trial in tuned["scores"]:
            yield {
                "task": task,
                "method": method,
                "metric": tuned["metric"],
                **{name: trial[name] for name in ("run_fold", "fold", *setting[1:], "score")},
                "chosen": "yes" if tuple(trial[name] for name in setting) in chosen else "",
            }
