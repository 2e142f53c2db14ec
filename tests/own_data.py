"""A table of one's own in a project of one's own, small enough for tests."""

import csv
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from ibma.commands import project
from ibma.params import TableParams

ROOT = Path(__file__).parent.parent
COLUMNS = ("X-ray file", "pic", "Dx (final)", "Patient No.", "Fold", "Hx", "age")
WORDS = {"mass": "round opacity", "normal": "clear lungs"}
NEW = (
    *("new", "clinic", "--csv", "clinic.csv", "--id", "X-ray file", "--label", "Dx (final)"),
    *("--group", "Patient No.", "--split", "Fold", "--map", "dev=valid"),
    *("--image", "pic@pictures/", "--text", "Hx"),
)


def rows(count: int = 60) -> list[list[str]]:
    """Rows of two classes; patients of two rows each; three in five train."""
    found = []
    for i in range(count):
        dx = ("mass", "normal")[i % 2]
        fold = ("train", "train", "dev", "test", "train")[i // 2 % 5]
        cells = (f"{i:04d}", f"x{i}.png", dx, f"P{i // 2}", fold, f"{WORDS[dx]} {i}", str(20 + i))
        found.append(list(cells))
    return found


def write(folder: Path, table: list[list[str]], name: str = "clinic.csv", delimiter: str = ","):
    """Write a table and a picture for each of its rows."""
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir(exist_ok=True)
    for row in table:
        if row[1].endswith(".png"):
            level = 150 if row[2] == "mass" else 80
            pixels = rng.normal(level, 20, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / row[1])
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([COLUMNS, *table])
    return folder / name


def spec(**changed: object) -> TableParams:
    """The block that `ibma new` writes for this table, with other values."""
    block = {
        "file": "clinic.csv",
        "id": "X-ray file",
        "label": ["Dx (final)"],
        "kind": "classify",
        "classes": ["mass", "normal"],
        "group": "Patient No.",
        "split": "Fold",
        "splits": {"dev": "valid"},
        "modalities": {
            "pic": {"kind": "image", "columns": ["pic"], "folder": "pictures"},
            "Hx": {"kind": "text", "columns": ["Hx"]},
        },
    }
    return TableParams.model_validate(block | changed)


def start(folder: Path) -> Path:
    """Lay out a project as `ibma init` does."""
    project.create(folder)
    return folder


def shrink(path: Path) -> None:
    """Make a profile of `ibma new` small: one seed, few epochs, few methods."""
    values = yaml.safe_load(path.read_text())
    values["seeds"] = 2
    values["training"] |= {"epochs": 2, "width": 16, "heads": 2}
    values["tune"] |= {"folds": 2, "epochs": 1}
    values["train"] = {"concat": {}}
    values["sensitivity"]["etas"] = [0.5]
    values["timing"]["rounds"] = 2
    (task,) = values["tasks"].values()
    task["features"] = {"pic": {"size": 16}, "Hx": {"max_length": 8, "vocab_size": 64}}
    task["encoders"]["pic"] |= {"hidden_sizes": [8], "depths": [1], "embedding_size": 4}
    task["encoders"]["Hx"] = {"name": "bert", "vocab_size": 64, "max_length": 8}
    task["encoders"]["Hx"] |= {"hidden_size": 16, "layers": 1, "heads": 2}
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def example() -> list[list[str]]:
    """The table of docs/own-data.md: one label and one text missing, one picture gone."""
    table = rows()
    table[9][2], table[10][5], table[12][1] = "", "", "gone.jpg"
    return table
