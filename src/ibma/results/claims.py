"""Read `claims.yaml`: the claims that are tested, and the names that reports print.

It depends neither on records nor on tables.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ibma.params import Params

PATH = Path(__file__).with_name("claims.yaml")


@dataclass(frozen=True)
class Claim:
    """IBMA against one opponent; `figure` is the opponent's name in the figure of all claims."""

    opponent: str
    claim: str
    figure: str = ""


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return content


OURS: str = _content()["ours"]
ABLATION: str = _content()["ablation"]
CONTROL: str = _content()["control"]
JUDGED_BY: tuple[str, ...] = tuple(_content()["judged_by"])
ABSTRACT_ONLY: tuple[str, ...] = tuple(_content()["abstract_only"])
BASELINE, BOUND, SINGLE = _content()["best"]  # names of opponents that are the best of several
CLAIMS = tuple(Claim(**entry) for entry in _content()["claims"])


def candidates(opponent: str, params: Params) -> list[str]:
    """List the methods that may be meant by an opponent's name, one unless it is a best of several.

    Args:
        opponent: a method, or one of `best` in claims.yaml.
        params: the profile; methods that it does not have are left out.
    """
    named, stages = _content()["best"].get(opponent, opponent), params.stages_of_methods()
    if isinstance(named, str) and named in stages:
        return list(stages[named])
    patterns = [named] if isinstance(named, str) else named
    return [method for one in patterns for method in fnmatch.filter(params.methods, one)]


def method_name(method: str) -> str:
    """Return the printed name of a method, which says where only its abstract is known.

    `unimodal_<modality>` names its modality.
    """
    names, (kind, _, modality) = _content()["methods"], method.partition("_")
    if kind == "unimodal" and modality:
        return f"{names[kind]} {modality}"
    name = str(names.get(method, method))
    return f"{name} (abstract only)" if method in ABSTRACT_ONLY else name


def task_name(task: str) -> str:
    """Return the printed name of a task."""
    return str(_content()["tasks"].get(task, task))


def metric_name(metric: str) -> str:
    """Return the printed name of a metric; `auc/<part>` is printed as `AUC <part>`."""
    kind, _, part = metric.partition("/")
    names = _content()["metrics"]
    return f"{kind.upper()} {part}" if part else str(names.get(metric, metric))
