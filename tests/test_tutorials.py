"""The code of the tutorials runs, and their numbers are right."""

import contextlib
import io
import json
import math
import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from torch.nn import functional as F

from ibma import IBBLoss, cli

ROOT = Path(__file__).parent.parent
DOCS, README = ROOT / "docs", ROOT / "README.md"


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


def test_the_ten_lines_of_the_readme_run():
    """With what they leave to the reader; they stand on the first two screens."""
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(text[: text.index(block)].splitlines()) < 60
    assert len([line for line in block.splitlines() if line]) <= 12
    torch.manual_seed(0)
    f, g, mix, head = nn.Linear(5, 64), nn.Linear(5, 64), nn.Linear(128, 64), nn.Linear(64, 5)
    y = torch.arange(80) % 5
    views = [F.one_hot(y, 5) + 0.3 * torch.randn(80, 5) for _ in range(2)]
    session = {
        "loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*views, y), 40),
        **{"f": f, "g": g, "head": head, "ce": F.cross_entropy},
        "fuse": lambda z: mix(torch.cat(list(z.values()), 1)),
        "opt": torch.optim.Adam(nn.ModuleList([f, g, mix, head]).parameters(), 1e-3),
    }
    exec(compile(block, "README.md", "exec"), session)
    assert session["epoch"] == 19 and session["ibb"].regime()["fused"] < 1.0


def test_every_command_of_the_pages_exists_with_its_options():
    """`ibma` and `make`; values and files are the reader's."""
    group, found = typer.main.get_command(cli.app), 0
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in (README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))):
        blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                assert re.search(rf"^{words[1]}:", targets, re.M), f"{page.name}: {line}"
            elif words[:1] == ["ibma"] and words[1:2] != ["--install-completion"]:
                command = group.get_command(None, words[1])
                assert command, f"{page.name}: {line}"
                command.make_context(words[1], words[2:], resilient_parsing=False)
            found += words[:1] in (["make"], ["ibma"])
    assert found > 10


@pytest.mark.slow
def test_the_notebook_is_executed_and_says_what_its_code_gives():
    """Its cells run without Jupyter; what they draw and print is stored in order."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    path = DOCS / "notebooks/alignment.ipynb"
    assert path.stat().st_size < 300_000
    code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    session: dict[str, object] = {}
    drawn = 0
    for cell in code:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), path.name, "exec"), session)
        stored = "".join(line for out in cell["outputs"] for line in out.get("text", ()))
        assert stored.count("\n") == printed.getvalue().count("\n")
        drawn += sum("image/png" in out.get("data", {}) for out in cell["outputs"])
    assert drawn == len(pyplot.get_fignums()) == 2
    pyplot.close("all")
    assert stored == printed.getvalue(), "the table of beta"
    sharp = {beta: history[-1, 1] for beta, (_, _, history) in session["runs"].items()}
    assert sharp[16.0] < sharp[4.0] < sharp[1.0] < 1.0, "beta decides how sharp phi becomes"


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
