"""Read an estimator's parameters: numpy's numbers and lists as Python's own, of the right type."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from ibma.estimators.loss import BadArgument

TYPES: dict[Any, Any] = {float: Real, int: Integral}  # mypy takes no int for an Integral


def native(name: str, value: Any) -> Any:
    """Return a parameter in types of Python, which JSON keeps and training reads.

    Args:
        name: of the parameter.

    Raises:
        BadArgument: it is, or holds, what cannot be kept.
    """
    if isinstance(value, Mapping):
        return {native(name, key): native(name, each) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(native(name, each) for each in value)
    if isinstance(value, list | range):
        return [native(name, each) for each in value]
    if isinstance(value, slice):
        return slice(*(native(name, each) for each in (value.start, value.stop, value.step)))
    if isinstance(value, str | bool | int | float | None):
        return value
    if hasattr(value, "tolist"):  # of numpy, pandas or torch
        return value.tolist()
    if isinstance(value, os.PathLike | torch.device):
        return str(value)
    raise BadArgument(
        f"{name}: a value of type {type(value).__name__}: expected numbers, texts, or lists and "
        "dictionaries of them"
    )


def check_types(function: Callable[..., object], given: Mapping[str, Any], where: str) -> None:
    """Raise an error if a keyword argument is of another type than a function says.

    It is what `params.check_arguments` does for params.yaml, without pydantic.

    Raises:
        BadArgument: it names the argument.
    """
    types = get_type_hints(function)
    for name, value in given.items():
        if name in types and not _fits(value, types[name]):
            expected = getattr(types[name], "__name__", str(types[name]))
            raise BadArgument(f"{where}: {name}={value!r}: expected {expected}")


def _fits(value: Any, wanted: Any) -> bool:
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if get_origin(wanted) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(wanted))
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, TYPES.get(wanted, get_origin(wanted) or wanted))
