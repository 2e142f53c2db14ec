"""Read what chest radiology writes: labels with uncertainty, and reports."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ibma.errors import IbmaError
from ibma.formats.tabular import Column

LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
# lambert-x/medical_mae@953a460 util/dataloader_med.py: uncertain counts as positive for these two
UNCERTAIN_IS_POSITIVE = {"mixed": {"Edema", "Atelectasis"}, "ones": set(LABELS), "zeros": set()}
VALUES = {"": 0, "0.0": 0, "0": 0, "1.0": 1, "1": 1, "-1.0": -1, "-1": -1}  # empty: not mentioned
LABEL = Column(values=VALUES)
COLUMNS = dict.fromkeys(LABELS, LABEL)

# MIT-LCP/mimic-cxr@3190146 txt/section_parser.py: a section begins on a new line, in capitals
_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_SECTIONS = {  # what headers mean, common slips included; CHOICE: one text under both is findings
    "findings": "findings",
    "finding": "findings",
    "findindgs": "findings",
    "findings and impression": "findings",
    "impression": "impression",
    "impresson": "impression",
    "impressions": "impression",
    "conclusion": "impression",
    "conclusions": "impression",
    "comparison": "comparison",
}
_REMOVED = "___"  # stands where de-identification took something out


def positives(row: Mapping[str, str], uncertain: str) -> tuple[int, ...]:
    """Return the labels of a table's row as 0 or 1, in the order of LABELS.

    Args:
        row: A row whose cells were checked against `COLUMNS`.
        uncertain: What -1 becomes: `mixed` (1 for Edema and Atelectasis, else 0), `ones` or
            `zeros`.

    Raises:
        IbmaError: Another `uncertain`.
    """
    if uncertain not in UNCERTAIN_IS_POSITIVE:
        raise IbmaError(f"params.yaml: uncertain '{uncertain}': expected mixed, ones or zeros")
    found = []
    for label in LABELS:
        value = VALUES[row[label]]
        found.append(int(label in UNCERTAIN_IS_POSITIVE[uncertain]) if value < 0 else value)
    return tuple(found)


def wording(findings: str, impression: str) -> str:
    """Return the text of a report as the released code words it; an empty section is left out.

    IBMA@c04b18b: `findings: ..., impression: ...`. A null, blank or literal backslash-n section is
    empty.
    """
    sections = []
    for name, text in (("findings", findings), ("impression", impression)):
        words = " ".join(text.replace("\\n", " ").split())
        if words and words.lower() not in ("nan", "none"):
            sections.append(f"{name}: {words}")
    return ", ".join(sections)


def report_text(report: str) -> str:
    """Return findings and impression of a report, else its last paragraph or its comparison.

    The last section of a name counts: an addendum stands above the report. MIT's rule also knows
    some sixty reports by number; these are not repeated here.
    """
    parts = _HEADER.split("\n" + report)
    headers = [name.strip().lower() for name in parts[1::2]]
    found = {
        _SECTIONS[name]: _plain(text)
        for name, text in zip(headers, parts[2::2], strict=True)
        if name in _SECTIONS
    }
    text = wording(found.get("findings", ""), found.get("impression", ""))
    return text or _last_paragraph(report) or found.get("comparison", "")


def _last_paragraph(report: str) -> str:
    """Return the words after the last blank line, unless they are a section of their own."""
    last = re.split(r"\n\s*\n", report.strip())[-1]
    return "" if _HEADER.search("\n " + last.lstrip()) else _plain(last)


def _plain(text: str) -> str:
    return " ".join(text.replace(_REMOVED, " ").split())
