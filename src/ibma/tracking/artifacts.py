"""Write predictions and confusion as tables that MLflow's page shows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibma import paths
from ibma.errors import IbmaError
from ibma.files import read_json
from ibma.training import predictions, record

if TYPE_CHECKING:
    from ibma.training.predictions import Predictions
    from ibma.training.record import Record

OUTCOMES = ("true negative", "false positive", "false negative", "true positive")


def tables(one: Record, root: Path) -> dict[str, str]:
    """Return name -> CSV of a run; nothing of one whose predictions or classes are not here."""
    meta = read_json(root / paths.meta(one.task), {})
    said = _predictions(one, root)
    found = {}
    if "classes" in meta and one.confusion:
        found["confusion.csv"] = _csv(_confusion(meta, one.confusion))
    if "classes" in meta and said is not None:
        found["predictions.csv"] = _csv(_rows(meta, said))
    return found


def _predictions(one: Record, root: Path) -> Predictions | None:
    """Read them from the stage's folder, or from the store while the stage still runs."""
    own, kept = root / one.id.predictions, paths.kept(one.key).with_suffix(record.PREDICTIONS)
    try:
        return predictions.read(own if own.exists() else kept, one.predictions)
    except IbmaError:
        return None


def _confusion(meta: Mapping[str, Any], counts: Sequence[Sequence[int]]) -> Iterator[list[Any]]:
    """Yield a row for every class; of several labels one for each label."""
    multilabel = meta["kind"] == "multilabel"
    yield ["label", *OUTCOMES] if multilabel else ["true \\ predicted", *meta["classes"]]
    for name, row in zip(meta["classes"], counts, strict=True):
        yield [name, *row]


def _rows(meta: Mapping[str, Any], said: Predictions) -> Iterator[tuple[Any, ...]]:
    """Yield sample, group, truth and prediction of every test row."""
    names, kind = np.array(meta["classes"], dtype=object), meta["kind"]
    truth, predicted = said.labels[:, 0], said.scores[:, -1]  # sentiment: the expected score
    heading = "predicted"
    if kind == "multilabel":
        truth, predicted = (
            np.array([";".join(names[row]) for row in rows], dtype=object)
            for rows in (said.labels == 1, said.scores > 0)
        )
    elif kind != "sentiment":
        truth = names[said.labels[:, 0].astype(int)]
    if kind == "classify":
        predicted = names[said.scores.argmax(1)]
    elif kind == "one_class":
        heading = "distance over the largest"
    yield ("id", "group", "truth", heading)
    yield from zip(said.ids, said.groups, truth, predicted, strict=True)


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
