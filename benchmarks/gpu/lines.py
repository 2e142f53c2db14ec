"""The lines of a record, their goals, and the table that is made of them.

A line is a JSON object: what was measured, on which card and with which settings, and a row of the
table. A line without a row says why something was not measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Goal, Row, Spread, table

Line = dict[str, Any]

PAPER_EPOCH = 120.0  # seconds of IBMA on CREMA-D, an A100 (Table 9)
MIMIC_PAIRS = 227_835  # studies of MIMIC-CXR, an image and a report each
GOALS: Mapping[tuple[str, str | None], Goal] = {  # (measure, task) -> what an H100 should reach
    ("epoch", "crema_d"): Goal("at least", PAPER_EPOCH / 2.0),  # two seconds
    ("epoch", "mimic_cxr"): Goal("at most", 110.0),
    ("compiled epoch", "crema_d"): Goal("at least", PAPER_EPOCH / 2.0),
    ("compiled epoch", "mimic_cxr"): Goal("at most", 110.0),
    ("limit", "crema_d"): Goal("at least", 0.90),
    ("ibb", "crema_d"): Goal("at most", 0.02),
    ("club", "crema_d"): Goal("at most", 1.05),
}


def of(measure: str, row: Row, facts: Mapping[str, Any]) -> Line:
    """Return a line.

    Args:
        measure: with the task, names its goal.
        facts: numbers, sizes, card and settings.
    """
    shown = {
        "label": row.measure,
        "ours": row.ours,
        "reference": row.reference,
        "ratio": [row.ratio.low, row.ratio.median, row.ratio.high],
        "unit": row.unit,
    }
    return {"measure": measure, **shown, **facts}


def row_of(line: Line) -> Row:
    """Return the row of a line, with its goal; sizes for tests have none."""
    goal = None if line["tiny"] else GOALS.get((line["measure"], line.get("task")))
    return Row(
        line["label"], line["ours"], line["reference"], Spread(*line["ratio"]), line["unit"], goal
    )


def read(path: Path) -> list[Line]:
    """Read a record; a last line that was cut off is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def render(records: Sequence[Sequence[Line]]) -> str:
    """Return records as Markdown: each machine, its table, and what the latest left out.

    Args:
        records: the latest first; what it measured again is left out of those before.
    """
    parts: list[str] = []
    shown: set[str] = set()
    for lines in records:
        taken = [line for line in lines if "label" in line and line["label"] not in shown]
        shown |= {line["label"] for line in taken}
        parts += [machine(lines[0]), table(map(row_of, taken))]
    skipped = [line for line in records[0] if "skipped" in line]
    missing = [f"- {line['measure']}: {line['skipped']}" for line in skipped]
    if missing:
        parts.append("Not measured in the latest run:\n\n" + "\n".join(missing))
    return "\n\n".join(parts)


def machine(line: Line) -> str:
    """Say when and on what a line was measured."""
    return (
        f"{line['date']}, {line['device']}, driver {line['driver'] or 'none'}, "
        f"torch {line['torch']}, CUDA {line['cuda'] or 'none'}, "
        f"transformers {line['transformers']}."
    )
