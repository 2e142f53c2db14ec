"""List the profiles, and write one of them over params.yaml."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from ibma import paths
from ibma.errors import IbmaError
from ibma.files import write_bytes


def names() -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in paths.PROFILES.glob("*.yaml"))


def find(name: str) -> Path:
    """Return the file of a profile.

    Raises:
        IbmaError: there is none of this name.
    """
    if name not in names():
        listed = ", ".join(names()) or "none: run this in the project"
        raise IbmaError(f"profile '{name}' not found in {paths.PROFILES}/ (known: {listed})")
    return paths.PROFILES / f"{name}.yaml"


def choose(name: str, force: bool) -> str:
    """Write a profile over params.yaml; return what to tell the user.

    Raises:
        IbmaError: there is no such profile, or params.yaml has edits that would be lost.
    """
    profile = as_params(find(name))
    if not force:
        refuse_to_lose_edits()
    write_bytes(paths.PARAMS, profile)
    return f"{paths.PARAMS} is now profile {name}: run `dvc repro` or `make repro`"


def refuse_to_lose_edits() -> None:
    """Raise an error if params.yaml is no profile as it lies in its folder.

    Raises:
        IbmaError: it has edits.
    """
    if paths.PARAMS.exists() and not chosen():
        raise IbmaError(
            f"{paths.PARAMS} has edits that are in no profile: save it under {paths.PROFILES}/ "
            "first, or give --force to lose them"
        )


def chosen() -> str:
    """Return the profile that params.yaml holds as it is; empty if it has edits or is not there."""
    if not paths.PARAMS.exists():
        return ""
    now = paths.PARAMS.read_bytes()
    return next((name for name in names() if as_params(find(name)) == now), "")


def listing() -> str:
    """Return a line for each profile: a mark if params.yaml holds it, its name and its purpose."""
    now = chosen()
    lines = [f"{'*' if name == now else ' '} {name}: {_purpose(find(name))}" for name in names()]
    if not lines:
        find("")
    end = (
        f"* is the profile in {paths.PARAMS}"
        if now
        else f"{paths.PARAMS} differs from all of these"
    )
    return "\n".join([*lines, end])


def _purpose(profile: Path) -> str:
    """Return the first sentence of what a profile's first comment says of it."""
    comment = takewhile(lambda line: line.startswith("#"), profile.read_text("utf-8").splitlines())
    _, _, told = " ".join(line.strip("# ") for line in comment).partition(f"`{profile.stem}`: ")
    sentence = told.partition(". ")[0].strip()
    return f"{sentence.rstrip('.')}." if sentence else "no description"


def as_params(shipped: Path) -> bytes:
    """Return a profile as params.yaml holds it: its schema lies beside it, not one folder up."""
    return shipped.read_bytes().replace(b"$schema=../", b"$schema=", 1)
