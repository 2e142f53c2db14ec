"""Read what chest radiology writes: labels with uncertainty, and reports."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ibma.errors import IbmaError, tell
from ibma.formats.tabular import Column

LABELS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
# lambert-x/medical_mae@953a460 util/dataloader_med.py: uncertain counts as positive for these two
UNCERTAIN_IS_POSITIVE = {"mixed": {"Edema", "Atelectasis"}, "ones": set(LABELS), "zeros": set()}
VALUES = {"": 0, "0.0": 0, "0": 0, "1.0": 1, "1": 1, "-1.0": -1, "-1": -1}  # empty: not mentioned
LABEL = Column(values=VALUES)
COLUMNS = dict.fromkeys(LABELS, LABEL)

# What headers mean is as in MIT-LCP/mimic-cxr@3190146 txt/section_parser.py.
_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")  # a section begins on a new line, in capitals
_SECTIONS = {  # what a name is or holds -> the section that it opens; the first that fits counts
    r"^(conclusion|impresson|imprression|imoression|impressoin|imprssion|impresion|imperssion"
    r"|mpression|impession|ndication)$": "impression",
    r"^(finding|findins|findindgs|findgings|findngs|findnings|finidngs)$": "findings",
    r"^(reference exam|comparisions?|comparsion|comparrison)$": "comparison",
    **{name: name for name in ("impression", "findings", "history", "comparison", "addendum")},
    # an examination as header stands above its findings
    r"chest|portable|ribs|bone window|two views|(one|pa|ap|frontal|lateral) view|pa and lat"
    r"|ap and lateral|lateral and (pa|ap)|frontal (and|upright|semi-upright)": "findings",
}
_BLANK = re.compile(r"\n\s*\n")
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
    """Return findings and impression of a report, else its last paragraphs or its comparison.

    The last section of a name counts, since an addendum stands above the report; findings and
    impressions without words do not. The last paragraphs are what follows the first blank line of
    the last section. CHOICE: the fifty or so reports that MIT's rule knows by number are read like
    all others.
    """
    preamble, *parts = _HEADER.split("\n" + report)
    names = ["preamble", *map(_section, parts[::2])]
    sections = [
        (name, text)
        for name, text in zip(names, [preamble, *parts[1::2]], strict=True)
        if name not in ("findings", "impression") or _plain(text)
    ]
    found = {name: _plain(text) for name, text in sections}
    _, *last = _BLANK.split(sections[-1][1], maxsplit=1)
    text = wording(found.get("findings", ""), found.get("impression", ""))
    return text or _plain("".join(last)) or found.get("comparison", "")


def tell_empty(texts: Counter[tuple[str, bool]], reports: Path) -> None:
    """Tell how many samples of each split have no text, unless all have one.

    Args:
        texts: (Split, whether there is a text) -> number of samples.
        reports: The file of the reports.
    """
    counts = {split: (texts[split, False], texts[split, True]) for split, _ in texts}
    if any(empty for empty, _ in counts.values()):
        told = (f"{empty:,} of {empty + full:,} in {s}" for s, (empty, full) in counts.items())
        tell(f"{reports}: samples without a text: {', '.join(told)}")


def _section(header: str) -> str:
    """Return the section that a header opens, or the header where it opens none of these."""
    name = header.strip().lower()
    fitting = (section for known, section in _SECTIONS.items() if re.search(known, name))
    return next(fitting, name)


def _plain(text: str) -> str:
    return " ".join(text.replace(_REMOVED, " ").split())
