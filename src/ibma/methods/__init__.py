"""Methods: `<name>.py` in this folder defines one, as a class called `Model`.

Methods never import each other; what they share is in `ibma.network`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from inspect import Parameter, signature
from typing import cast

from ibma.errors import IbmaError
from ibma.network.method import Method, Spec
from ibma.params import check_arguments

NAMED, REST = Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD


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


def build(name: str, spec: Spec, **hparams: object) -> Method:
    """Build a freshly initialised network of method `name`.

    Raises:
        IbmaError: an unknown method, a parameter that it does not have, or one of another type.
    """
    model = find(name)
    check_arguments(_constructor(model), hparams, f"method {name}")
    return model(spec, **hparams)


def _constructor(model: type[Method]) -> Callable[..., None]:
    """Return the constructor that names a method's parameters; others pass them on."""
    own = [vars(cls)["__init__"] for cls in model.__mro__ if "__init__" in vars(cls)]
    kinds = [{one.kind for one in signature(made).parameters.values()} for made in own]
    naming = (made for made, of in zip(own, kinds, strict=True) if NAMED in of or REST not in of)
    return cast(Callable[..., None], next(naming))
