"""The code of the tutorials runs, and their numbers are right."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ibma import IBBLoss

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["loss.md", "estimator.md"])
def test_every_block_of_a_tutorial_runs(page, tmp_path, monkeypatch):
    """In their order, in one session."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 5
    session: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number + 1}", "exec"), session)
    if page == "loss.md":
        assert session["ibb"].regime()["fused"] < 0.9, "the ten lines reach an active bound"


def best(classes: int, beta: float) -> float:
    """An alignment term of perfectly separated, balanced classes."""
    y = torch.arange(classes).repeat_interleave(4)
    corners = F.normalize(torch.eye(classes) - 1 / classes)
    z = {name: corners[y] for name in ("a", "b")}
    ibb = IBBLoss(["a", "b"], classes, classes, beta=beta, phi="unit")
    ibb.start_epoch([(z, y)])
    ibb.terms(z, y)
    ibb.start_epoch()
    return float(ibb.terms(z, y)["ibb/a|b"])


def test_the_table_of_beta_holds():
    text = (DOCS / "loss.md").read_text(encoding="utf-8")
    rows = [
        [float(cell) for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|[ \d.|]+\|$", text, re.MULTILINE)
    ]
    assert len(rows) == 5
    for classes, uniform, *values in rows:
        assert uniform == pytest.approx(math.log(classes), abs=6e-4)
        for beta, value in zip((1.0, 2.0, 4.0, 16.0), values, strict=True):
            assert best(int(classes), beta) == pytest.approx(value, abs=6e-4), (classes, beta)
