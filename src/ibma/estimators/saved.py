"""Keep a fitted estimator in a folder: weights as safetensors, everything else as JSON.

Nothing is pickled: loading runs no code from the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load

import ibma
from ibma.errors import IbmaError, one_line
from ibma.estimators import seeds
from ibma.estimators.inputs import Reader
from ibma.estimators.loss import BadArgument
from ibma.estimators.tasks import Bins
from ibma.files import make_folder, read_json, required, write_bytes, write_json
from ibma.network.method import Modality, Spec
from ibma.training.run import weights_of

if TYPE_CHECKING:
    from ibma.estimators.estimator import Estimator

NAME, WEIGHTS = "estimator.json", "weights.safetensors"
FORMAT = 3
Kind = TypeVar("Kind", bound="Estimator")


def plain(value: Any) -> Any:
    """Return a parameter as JSON holds it."""
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, Mapping):
        return {"pairs": [[plain(key), plain(each)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # a generator of random numbers is no parameter that could be given again; the seed is kept
    return value if isinstance(value, str | bool | int | float | None) else None


def restored(value: Any) -> Any:
    """Return a parameter from what `plain` made of it."""
    if isinstance(value, list):
        return [restored(each) for each in value]
    if isinstance(value, dict) and "slice" in value:
        return slice(*value["slice"])
    if isinstance(value, dict):
        return {restored(key): restored(each) for key, each in value["pairs"]}
    return value


def write(estimator: Estimator, folder: Path) -> None:
    """Write a fitted estimator; a file is written whole or not at all."""
    spec = estimator.network_.spec
    weights = weights_of(estimator.network_)
    content = {
        "format": FORMAT,
        "class": type(estimator).__name__,
        "versions": {
            "ibma": ibma.__version__,
            "torch": torch.__version__,
            "scikit-learn": metadata.version("scikit-learn"),
        },
        "record_key": estimator.record_key_,
        "weights": hashlib.sha256(weights).hexdigest(),
        "parameters": {name: plain(value) for name, value in estimator.params_.items()},
        "readers": [asdict(one) | {"idf": one.idf.tolist()} for one in estimator.readers_.values()],
        "targets": _targets(estimator),
        "network": {
            "epochs": spec.epochs,
            "systems": spec.systems,
            "u": dict(spec.u),
            "input_widths": dict(spec.input_widths),
        },
        "eta": estimator.eta_,
        "seed": estimator.seed_,
        "n_epochs": estimator.n_epochs_,
        "history": estimator.history_,
        "columns": {
            name: np.array(getattr(estimator, name)).tolist()
            for name in ("n_features_in_", "feature_names_in_", "column_names_")
            if hasattr(estimator, name)
        },
    }
    make_folder(folder)
    write_bytes(folder / WEIGHTS, weights)
    write_json(folder / NAME, content)


def _targets(estimator: Estimator) -> dict[str, Any]:
    if hasattr(estimator, "bins_"):
        return asdict(estimator.bins_)
    return {"classes": estimator.classes_.tolist(), "dtype": estimator.classes_.dtype.str}


def read(cls: type[Kind], folder: Path, device: str) -> Kind:
    """Read an estimator that `write` wrote.

    Raises:
        BadArgument: the folder is incomplete, damaged, or of another estimator or version.
    """
    path, again = folder / NAME, "save the estimator again"
    try:
        content: dict[str, Any] = read_json(path, {}, again)
        if (content.get("class"), content.get("format")) != (cls.__name__, FORMAT):
            found = f"{content['class']} of format {content['format']}" if content else "nothing"
            raise IbmaError(
                f"{path}: expected {cls.__name__} of format {FORMAT}, found {found}: {again}"
            )
        weights = required(folder / WEIGHTS, content["weights"], again).read_bytes()
    except IbmaError as error:
        raise BadArgument(str(error)) from None
    try:
        return _made(cls, content, weights, device)
    except BadArgument:
        raise
    except Exception as error:  # whatever Python, torch and safetensors make of other content
        told = f"not as `save` writes it ({one_line(error)[:200]}): {again}"
        raise BadArgument(f"{path}: {told}") from None


def _made(cls: type[Kind], content: Mapping[str, Any], weights: bytes, device: str) -> Kind:
    """Make an estimator of what was read."""
    made = cls(**{name: restored(value) for name, value in content["parameters"].items()})
    made.params_, made.device = made.get_params(), device
    for name, value in content["columns"].items():
        setattr(made, name, np.array(value, object) if isinstance(value, list) else value)
    _restore(made, content)
    made.network_.load_state_dict(load(weights))
    made.network_.to(made._select_device()).eval()
    return made


def _restore(made: Estimator, content: Mapping[str, Any]) -> None:
    """Set what `fit` sets, but for the trained weights."""
    targets = content["targets"]
    if "edges" in targets:
        made.bins_ = Bins(tuple(targets["edges"]), tuple(targets["means"]))
    else:
        made.classes_ = np.array(targets["classes"], dtype=targets["dtype"])
    readers = [
        Reader(**(one | {"idf": np.array(one["idf"]), "shape": tuple(one["shape"])}))
        for one in content["readers"]
    ]
    made.readers_ = {one.name: one for one in readers}
    made.encoders_ = {one.name: one.describe() for one in readers}
    made.eta_, made.seed_, made.history_ = (content[key] for key in ("eta", "seed", "history"))
    made.n_epochs_, made.record_key_ = content["n_epochs"], content["record_key"]
    network = content["network"]
    spec = Spec(
        modalities={one.name: Modality(one.stored_kind, one.shape, one.encoder) for one in readers},
        task=made._task(),
        width=made.width,
        heads=made.heads,
        epochs=network["epochs"],
        systems=(network["systems"][0], network["systems"][1]),
        assignment=made._assignment(),
        eta=made.eta_,
        u=network["u"],
        input_widths=network["input_widths"],
    )
    with seeds.alone():
        made.network_ = made._build(spec, made.seed_)
