"""Methods: `<name>.py` in this folder defines one, as a class called `Model`.

Methods never import each other; what they share is in `ibma.network`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from ibma.errors import IbmaError
from ibma.network.method import Method, Spec


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
        IbmaError: an unknown method, or a parameter that it does not have.
    """
    try:
        return find(name)(spec, **hparams)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise IbmaError(f"params.yaml: method '{name}': {error}: remove or correct it") from None
