"""The `ibma` command."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ibma import doors, evidence, grid, params, plan, tracking, verify
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
    chosen = _profiles(name).read_bytes()
    shipped = [path.read_bytes() for path in PROFILES.glob("*.yaml")]
    if PARAMS.exists() and not force and PARAMS.read_bytes() not in shipped:
        raise IbmaError(
            f"{PARAMS} has edits that are in no profile: save it under {PROFILES}/ first, "
            "or give --force to lose them"
        )
    PARAMS.write_bytes(chosen)
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


@app.command()
def archive() -> None:
    """Copy what the tables are made of into reports/<profile>/evidence/, to be committed."""
    profile = params.load(PARAMS)
    out = evidence.folder(Path(), profile.profile)
    for name in evidence.pack(profile, Path(), out):
        typer.echo(f"missing: {name}", err=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB")


@app.command(name="verify")
def check(
    profile: Annotated[
        str, typer.Argument(help="twin, open or paper [default: every one that is here]")
    ] = "",
    again: Annotated[
        str,
        typer.Option(
            "--retrain",
            metavar="N|TASK/METHOD[/SEED]",
            help="also train N random cells per task again, or the named one",
        ),
    ] = "",
) -> None:
    """Recompute every number from the records and compare with the committed reports."""
    names = [profile] if profile else verify.profiles(Path())
    for other in [] if profile else verify.unchecked(Path(), names):
        typer.echo(f"profile {other}: not checked: neither evidence nor records are here")
    for name in names:
        found = verify.verify(name, Path())
        for one in found.differences:
            typer.echo(
                f"{one.file}: {one.place}: committed '{one.committed}', "
                f"{found.source}: '{one.recomputed}'"
            )
        if found.differences:
            raise IbmaError(
                f"profile {name}: {len(found.differences)} of {found.compared} places differ from "
                f"the {found.source}, the first in {found.differences[0].file}: `dvc repro report` "
                "and `ibma archive` write both again, or `git checkout` them"
            )
        typer.echo(
            f"profile {name}: {found.compared} places of the committed reports agree with "
            f"{found.runs} runs ({found.source})"
        )
        if again:
            _train_again(name, again)


def _train_again(profile: str, wanted: str) -> None:
    """Tell of every run trained again. Raises IbmaError that names those that disagree."""
    from ibma import retrain  # it imports torch

    agreed, apart = 0, []
    for one in retrain.run(profile, Path(), wanted):
        held = one.run
        name = f"{held.task}/{held.method}/{held.seed}"
        made = "same key" if one.same_key else "another key: other code, data or parameters"
        typer.echo(f"{name}: {made}; {one.device}, committed: {held.volatile['device']}")
        for gap in one.gaps:
            mark = "" if gap.agrees else "  DIFFERS"
            typer.echo(f"  {gap.name}: {gap.committed} {gap.retrained} (+-{gap.allowed:.2g}){mark}")
        if all(gap.agrees for gap in one.gaps):
            agreed += 1
        else:
            apart.append(name)
    if apart:
        raise IbmaError(f"{', '.join(apart)}: trained again, and not what is committed: see above")
    typer.echo(f"profile {profile}: {agreed} runs trained again agree with what is committed")


@app.command()
def repro(
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="processes side by side; 0: every core")
    ] = 0,
) -> None:
    """Bring the whole pipeline up to date, cells side by side."""
    grid.repro(Path(), jobs or params.cores())


@app.command(name="plan")
def show_plan(
    profile_: Annotated[
        str | None, typer.Option("--profile", help="twin, open or paper; without it: params.yaml")
    ] = None,
) -> None:
    """Print what a profile asks for: cells, hours, disk, and what this machine lacks."""
    path = PARAMS if profile_ is None else _profiles(profile_)
    typer.echo(plan.text(params.load(path), Path()))


class Engine(StrEnum):
    """Who starts the workers of `ibma launch`."""

    local = "local"
    slurm = "slurm"
    hosts = "hosts"


@app.command(name="launch")
def launch_cells(
    executor: Annotated[Engine, typer.Option(help="processes here, Slurm jobs, or hosts by ssh")],
    workers: Annotated[int, typer.Option("--workers", "-w", help="how many (local, slurm)")] = 2,
    host: Annotated[
        list[str] | None, typer.Option(help="a machine that ssh reaches; once for each (hosts)")
    ] = None,
    python: Annotated[
        str, typer.Option(help="interpreter with this package on the hosts")
    ] = sys.executable,
    setting: Annotated[
        list[str] | None,
        typer.Option(help="key=value for submitit, such as slurm_partition=gpu (local, slurm)"),
    ] = None,
    clones: Annotated[
        Path, typer.Option(help="folder of the workers' clones, as the workers see it")
    ] = Path("workers"),
    source: Annotated[
        str | None, typer.Option(help="repository that workers clone; without it: this folder")
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(help="DVC remote to move data through; without it: the cache here"),
    ] = None,
    retries: Annotated[int, typer.Option(help="how often a failed cell is tried again")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only print who would get what, and the hours")
    ] = False,
) -> None:
    """Bring the pipeline up to date, trials and trainings on other machines."""
    from ibma import launch

    root, profile_ = Path(), params.load()
    if executor is Engine.hosts and not host:
        raise IbmaError("--executor hosts: name the machines, --host a --host b")
    names = host if host and executor is Engine.hosts else [str(i) for i in range(workers)]
    if dry_run:
        return typer.echo(launch.forecast(root, profile_, names))
    engine: launch.Executor
    if executor is Engine.hosts:
        engine = launch.Hosts(names, python)
    else:
        settings = launch.settings(executor, profile_, setting or [])
        engine = launch.Submitit(executor, len(names), root / "logs" / "submitit", settings)
    crew = launch.Crew(
        engine,
        clones.absolute(),
        source or str(root.absolute()),
        cache=None if remote else launch.cache(root),
        remote=remote,
    )
    launch.launch(root, crew, plan.hours(profile_, root), retries, params.cores())


def _profiles(name: str) -> Path:
    """The file of a profile. Raises IbmaError naming those that there are."""
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        listed = ", ".join(known) or "none here: run this in the repository"
        raise IbmaError(f"profile '{name}' not found in {PROFILES}/ (known: {listed})")
    return PROFILES / f"{name}.yaml"
