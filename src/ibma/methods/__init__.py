"""Methods: `<name>.py` in this folder defines one, as a class called `Model`.

A method may extend another. Otherwise methods do not import each other: what they share is in
`ibma.network`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import cast

from ibma.errors import IbmaError
from ibma.network.method import Method, Spec

NAMED = Parameter.KEYWORD_ONLY


def names() -> list[str]:
    """List every method: one per module of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> type[Method]:
    """Return the class of method `name`.

    Raises:
        IbmaError: there is no such file.
    """
    if name not in names():
        raise IbmaError(
            f"params.yaml: method '{name}' has no file src/ibma/methods/{name}.py: "
            f"expected one of {', '.join(names())}"
        )
    return cast(type[Method], importlib.import_module(f"{__name__}.{name}").Model)


def lineage(name: str) -> list[str]:
    """List a method and the methods that its class extends.

    Raises:
        IbmaError: there is no such file.
    """
    folder = f"{__name__}."
    modules = [base.__module__ for base in find(name).__mro__]
    own = [module.removeprefix(folder) for module in modules if module.startswith(folder)]
    return list(dict.fromkeys(module.partition(".")[0] for module in own))


def build(name: str, spec: Spec, **hparams: object) -> Method:
    """Build a freshly initialised network of method `name`.

    Raises:
        IbmaError: an unknown method, a hyper-parameter that it does not have, or a single modality
            where it compares several.
    """
    model = find(name)
    if model.compares and len(spec.modalities) < 2:
        raise IbmaError(
            f"method '{name}': expected two modalities or more, there is one: leave it out"
        )
    for one in model.constructors(hparams):
        known = [p.name for p in signature(one.function).parameters.values() if p.kind is NAMED]
        for given in one.arguments:
            if given not in known:
                raise IbmaError(
                    f"method {name}: {one.label} has no parameter '{given}': "
                    f"expected {', '.join(known) or 'none'}"
                )
    return model(spec, **hparams)


def check(name: str, hparams: Mapping[str, object]) -> None:
    """Check the hyper-parameters that params.yaml gives to a method, types included.

    Raises:
        IbmaError: an unknown method, a parameter that it does not have, or one of another type.
    """
    from ibma.params import check_arguments  # which needs pydantic; the estimators do without

    for one in find(name).constructors(hparams):
        where = " ".join(filter(None, (f"method {name}", one.label)))
        check_arguments(one.function, one.arguments, where)
