"""The `ibma` command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ibma import doors, grid, params, tracking, verify
from ibma.errors import IbmaError

app = typer.Typer(
    help="Reproduce the IBMA paper: `ibma repro`, then open reports/<profile>/index.html.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PARAMS = Path("params.yaml")
PROFILES = Path("profiles")


def main() -> None:
    """Run the command line; bad input ends in one line."""
    doors.door(app)


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="twin, open or paper")],
    force: Annotated[bool, typer.Option(help="overwrite edits made in params.yaml")] = False,
) -> None:
    """Write profiles/<name>.yaml over params.yaml."""
    profiles = {path.stem: path.read_bytes() for path in sorted(PROFILES.glob("*.yaml"))}
    if name not in profiles:
        known = ", ".join(profiles) or "none here: run this in the repository"
        raise IbmaError(f"profile '{name}' not found in {PROFILES}/ (known: {known})")
    if PARAMS.exists() and not force and PARAMS.read_bytes() not in profiles.values():
        raise IbmaError(
            f"{PARAMS} has edits that are in no profile: save it under {PROFILES}/ first, "
            "or give --force to lose them"
        )
    PARAMS.write_bytes(profiles[name])
    typer.echo(f"{PARAMS} is now profile {name}: run `dvc repro` or `make repro`")


@app.command()
def track() -> None:
    """Bring MLflow in step with the records under runs/."""
    typer.echo(tracking.collect(params.load(), Path()))


@app.command(name="docs")
def write_docs() -> None:
    """Write docs/methods.md from the docstrings and docs/datasets.md from the cards."""
    from ibma import docs  # it imports every method

    for path in docs.write():
        typer.echo(path)


@app.command(name="verify")
def check() -> None:
    """Recompute the tables from the records and compare them with the committed reports."""
    compared, differences = verify.verify(params.load(), Path())
    for one in differences:
        typer.echo(f"{one.table}: {one.place}: '{one.committed}', records: '{one.recomputed}'")
    if differences:
        raise IbmaError(
            f"{len(differences)} of {compared} cells differ: `dvc repro report` writes them again, "
            "or the records are not those that the reports were made of"
        )
    typer.echo(f"{compared} cells of the committed tables agree with the records")


@app.command()
def repro(
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="processes side by side [default: every core]")
    ] = 0,
) -> None:
    """Bring the whole pipeline up to date, cells side by side."""
    grid.repro(Path(), jobs or _cores())


def _cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
