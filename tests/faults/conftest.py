"""Sum up what came of all attacks, in one table at the end."""

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from .trial import ENDS, Figures

FIGURES: dict[str, Counter[str]] = defaultdict(Counter)
BLOCK = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.DOTALL)


@pytest.fixture
def counted(record_property, monkeypatch, tmp_path):
    """Add figures to the table at the end; nothing may have failed."""
    monkeypatch.chdir(tmp_path)  # and back, wherever trials went

    def count(figures: Figures) -> None:
        record_property(figures.kind, dict(figures.ends))
        found.extend(figures.failed)

    found: list[str] = []
    yield count
    assert not found, "\n".join(found)


def pytest_addoption(parser):
    parser.addoption("--write-figures", help="a Markdown file whose table of figures is made anew")


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        for kind, ends in report.user_properties:
            FIGURES[kind].update(ends)


def pytest_terminal_summary(terminalreporter, config):
    if not FIGURES:
        return
    lines = table()
    terminalreporter.section("attacks")
    terminalreporter.write_line("\n".join(lines))
    if path := config.getoption("--write-figures"):
        text = Path(path).read_text(encoding="utf-8")
        made = BLOCK.sub(lambda _: "\n".join([*lines, ""]), text)
        Path(path).write_text(made, encoding="utf-8")


def table() -> list[str]:
    """Return the figures as a Markdown table."""
    rows = [(kind, FIGURES[kind]) for kind in sorted(FIGURES)]
    rows.append(("all", sum((ends for _, ends in rows), Counter())))
    cells = [
        [kind, str(ends.total()), *(str(ends[end]) for end in ENDS)]
        for kind, ends in rows
    ]  # fmt: skip
    head = ["attacks", "tried", *ENDS]
    width = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    shown = [
        "| " + " | ".join(text.ljust(size) for text, size in zip(row, width, strict=True)) + " |"
        for row in (head, *cells)
    ]
    return [shown[0], "|" + "|".join("-" * (size + 2) for size in width) + "|", *shown[1:]]
