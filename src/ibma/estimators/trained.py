"""Store a trained network in a folder that predicts wherever ibma is installed.

The folder holds the weights as safetensors and everything else as JSON; nothing is pickled, so that
reading it runs no code from it. It needs neither params.yaml nor stored features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

import ibma
from ibma import methods
from ibma.errors import IbmaError
from ibma.estimators import inputs, seeds
from ibma.estimators.inputs import Reader
from ibma.estimators.loss import BadArgument
from ibma.files import make_folder, read_json, required, write_json
from ibma.network import tasks
from ibma.network.centroids import Assignment
from ibma.network.method import Method, Modality, Spec
from ibma.training.cell import Setting
from ibma.training.loop import represent, select_device

if TYPE_CHECKING:
    import pandas as pd

    from ibma.training.cell import Cell
    from ibma.training.record import Record

NAME, WEIGHTS = "network.json", "weights.safetensors"
FORMAT = 2
READER = ("name", "kind", "features", "encoder", "shape", "dtype")  # what a pipeline's reader needs
SEPARATOR = ";"  # between several labels, unless a table has its own
PLAIN = ("width", "heads", "epochs", "systems", "eta", "weight_factor", "refresh")  # of a `Spec`
Read = tuple[str, Mapping[str, Any]]  # kind of a modality, and parameters of `media.compute`


def write(
    folder: Path,
    cell: Cell,
    one: Record,
    read: Mapping[str, Read],
    place: Callable[[Path], object],
    *,
    scale: Sequence[float] | None = None,
    separator: str = SEPARATOR,
) -> None:
    """Write the network of a run.

    Args:
        folder: where; it is made.
        cell: the run's cell, whose features and centroids are here.
        one: its record.
        read: modality -> how its files, texts or numbers become features.
        place: puts its weights at a path, for example by a link: they are large.
        scale: what the lowest and the highest score stand for; None where scores are the labels.
        separator: text between several labels.
    """
    setting = Setting.of(one.params)
    spec = cell.build(one.seed, setting, cell.epochs, one.seed, torch.device("cpu")).spec
    stored = cell.open().modalities
    readers = [
        Reader(name, kind, dict(given), {}, stored[name].shape, stored[name].dtype)
        for name, (kind, given) in read.items()
    ]
    content = {
        "format": FORMAT,
        "ibma": ibma.__version__,
        "run": {"task": one.task, "method": one.method, "seed": one.seed, "record": one.key},
        "weights": one.weights,
        "method": {"file": cell.method_file, "parameters": dict(cell.hparams)},
        "task": {"kind": spec.task.kind, "classes": spec.task.classes},
        "labels": {"scale": scale, "separator": separator},
        "readers": [
            {name: getattr(reader, name) for name in READER}
            | {"encoder": dict(spec.modalities[reader.name].encoder)}
            for reader in readers
        ],
        "network": {name: getattr(spec, name) for name in PLAIN}
        | {"beta": spec.assignment.beta, "normalise": spec.assignment.normalise}
        | {"u": dict(spec.u), "input_widths": dict(spec.input_widths)},
    }
    make_folder(folder)
    place(folder / WEIGHTS)
    write_json(folder / NAME, content)


@dataclass(frozen=True)
class Trained:
    """A trained network with what turns a table into its input.

    Args:
        model: in evaluation mode, on `device`.
        readers: modality -> how its values become arrays.
        scale, separator: of labels, see `write`.
    """

    model: Method
    readers: Mapping[str, Reader]
    device: torch.device
    scale: Sequence[float] | None
    separator: str

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Trained:
        """Read what `write` wrote, from wherever the folder lies now.

        Raises:
            IbmaError: the folder is incomplete, damaged, or of another version.
        """
        path, again = folder / NAME, "delete the run in MLflow and run `ibma track`"
        content = read_json(path, {}, again)
        if content.get("format") != FORMAT:
            raise IbmaError(f"{path}: format {content.get('format')}: expected {FORMAT}: {again}")
        weights = required(folder / WEIGHTS, content["weights"], again).read_bytes()
        readers = [Reader(**one | {"shape": tuple(one["shape"])}) for one in content["readers"]]
        on = select_device(device)
        with seeds.alone():
            model = methods.build(
                content["method"]["file"],
                _spec(content, readers),
                **content["method"]["parameters"],
            )
        model.load_state_dict(load(weights))
        known = {one.name: one for one in readers}
        return cls(model.to(on).eval(), known, on, **content["labels"])

    def predict(self, frame: Any) -> pd.DataFrame:
        """Predict every row of a table.

        Args:
            frame: a data frame (or a dictionary) with a column for each modality. A cell is a text,
                a row of numbers, or the path of a picture, a sound or a film; None, or a text of
                spaces alone, where the sample lacks the modality.

        Returns:
            A row for each, with its index. `predicted`: a class, the labels that are likelier than
            not, or the expected score; beside it `p(<class>)` of every class or label. Of
            one-class data `distance` alone, which grows with how odd a sample is.

        Raises:
            BadArgument: a column that is missing, or a value that is none of its kind.
        """
        import pandas as pd

        lacking = [name for name in self.readers if name not in frame]
        if lacking:
            known = ", ".join(self.readers)
            raise BadArgument(f"no column {', '.join(lacking)}: expected one for each of {known}")
        read = {name: one.read(_cells(name, frame[name])) for name, one in self.readers.items()}
        problem = self.model.spec.task
        n = inputs.count({name: known for name, (_, known) in read.items()})
        empty = np.zeros((n, len(problem.classes)))
        features = inputs.gathered(self.readers, read, problem.kind, empty, None)
        logits = represent(self.model, features.everything(), self.device)["logits"].double()
        return pd.DataFrame(self._said(logits), index=getattr(frame, "index", None))

    def _said(self, logits: torch.Tensor) -> dict[str, NDArray[Any]]:
        """Return the columns of a prediction."""
        problem = self.model.spec.task
        if problem.kind == "one_class":
            return {"distance": problem.loss_per_sample(logits, logits).numpy()}
        chances = tasks.per_class(problem, problem.log_probabilities(logits).exp()).numpy()
        columns = {f"p({name})": chances[:, place] for place, name in enumerate(problem.classes)}
        names = np.array(problem.classes, dtype=object)
        if isinstance(problem, tasks.Sentiment):
            ends = [-problem.bound, problem.bound]
            predicted = np.interp(problem.score(logits).numpy(), ends, self.scale or ends)
        elif problem.kind == "multilabel":
            likely = chances >= tasks.LIKELY
            predicted = np.array([self.separator.join(names[row]) for row in likely], dtype=object)
        else:
            predicted = names[chances.argmax(1)]
        return {"predicted": predicted} | columns


def _cells(name: str, column: Any) -> Any:
    """Return the cells of a column; a text of spaces alone is none, as in a table of `ibma new`.

    Raises:
        BadArgument: it is no column.
    """
    inputs.names_of(column, "the table")
    cells = inputs.positional(name, column)
    return [None if isinstance(one, str) and not one.strip() else one for one in cells]


def _spec(content: Mapping[str, Any], readers: list[Reader]) -> Spec:
    known, task = content["network"], content["task"]
    return Spec(
        modalities={one.name: Modality(one.stored_kind, one.shape, one.encoder) for one in readers},
        task=tasks.build(task["kind"], task["classes"]),
        assignment=Assignment(known["beta"], known["normalise"]),
        u=known["u"],
        input_widths=known["input_widths"],
        **{name: known[name] for name in PLAIN if name != "systems"},
        systems=(known["systems"][0], known["systems"][1]),
    )


def _load_pyfunc(folder: str) -> Trained:
    """Let MLflow read the folder; it looks for a function of this name."""
    return Trained.load(Path(folder))
