"""Write docs/parameters.md: every key of params.yaml, from the schema that editors read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ibma import params
from ibma.errors import one_line
from ibma.params import MOST

PATH = Path("docs/parameters.md")
COLUMNS = ("Key", "Values", "Default", "What it is")
SECTIONS = {  # model of the schema -> where its keys stand
    "Engine": "`engine`",
    "DatasetParams": "`datasets.<name>`",
    "TableParams": "`tables.<name>`",
    "TableModality": "`tables.<name>.modalities.<modality>`",
    "TaskParams": "`tasks.<name>`",
    "SoundFeature": "`tasks.<name>.features.<modality>`: sound",
    "PictureFeature": "`tasks.<name>.features.<modality>`: pictures and films",
    "TextFeature": "`tasks.<name>.features.<modality>`: text",
    "ResNetEncoder": "`tasks.<name>.encoders.<modality>`: `resnet`",
    "ViTEncoder": "`tasks.<name>.encoders.<modality>`: `vit`",
    "BertEncoder": "`tasks.<name>.encoders.<modality>`: `bert`",
    "AutoEncoder": "`tasks.<name>.encoders.<modality>`: `auto`",
    "MLPEncoder": "`tasks.<name>.encoders.<modality>`: `mlp`",
    "Training": "`training`",
    "Tune": "`tune`",
    "Grid": "`tune.grid`",
    "MethodParams": "Entries of `train`, `train_ibma`, `ablation`, `bounds`",
    "Sensitivity": "`sensitivity`",
    "Regimes": "`regimes`",
    "NoiseStudy": "`noise`",
    "Timing": "`timing`",
    "Probe": "`probe`",
    "GradCam": "`gradcam`",
}
ONES = {"integer": "a whole number", "number": "a number", "string": "text"}
MANY = {"integer": "whole numbers", "number": "numbers", "string": "names"}
ENDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def page() -> str:
    """Write a table of the keys of each block."""
    schema = params.schema()
    lines = [
        "# Parameters",
        "",
        "Every key of `params.yaml`. `ibma docs` makes this page and `params.schema.json` from the "
        "same models, so an editor that knows YAML schemas shows the same words as you type. A key "
        "without a default must be given. In a task DVC also needs `options`, `on_bad` and "
        "`features` to be there. An unknown key or a wrong value ends in one line. "
        "[Methods](methods.md) lists the hyper-parameters of each method, [Data sets](datasets.md) "
        "the `options` of each data set.",
        "",
        "## The whole file",
        "",
        *_table(schema),
    ]
    for name, title in SECTIONS.items():
        model = schema["$defs"][name]
        lines += ["", f"## {title}", "", model["description"], "", *_table(model)]
    return "\n".join(lines) + "\n"


def _table(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of a model's keys."""
    cells = (
        (f"`{key}`", _values(one), _default(one), _meaning(one))
        for key, one in model["properties"].items()
    )
    rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    yield tabulate(rows, COLUMNS, tablefmt="github", disable_numparse=True)


def _meaning(one: Mapping[str, Any]) -> str:
    """Return what a key is; a block of known keys has a section of its own."""
    return one_line(one.get("description", "see below")).replace("<", "&lt;")


def _default(one: Mapping[str, Any]) -> str:
    return f"`{json.dumps(one['default'])}`" if "default" in one else ""


def _values(one: Mapping[str, Any], words: Mapping[str, str] = ONES) -> str:
    """Say in words what a key accepts."""
    if "anyOf" in one:
        return " or ".join(_values(each, words) for each in one["anyOf"])
    allowed = one.get("enum", [one["const"]] if "const" in one else [])
    if allowed:
        return ", ".join(f"`{json.dumps(value)[1:-1]}`" for value in allowed)
    kind = one.get("type", "object")
    if kind == "array":
        return f"a list of {_values(one['items'], MANY)}"
    if kind in ("object", "boolean", "null"):
        return {"object": "a block", "boolean": "true or false", "null": "null"}[kind]
    ends = [f"{word} {one[end]:g}" for end, word in ENDS.items() if one.get(end, MOST) != MOST]
    return ", ".join([words[kind], *([" and ".join(ends)] if ends else [])])
