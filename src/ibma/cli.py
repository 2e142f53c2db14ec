"""The `ibma` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibma import params, plan, tracking
from ibma.errors import IbmaError, run_stage
from ibma.evidence import archive, verify
from ibma.files import write_json

app = typer.Typer(
    help="Reproduce the IBMA paper: `ibma repro`, then open reports/<profile>/index.html.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
SCHEMA = Path("params.schema.json")


def main() -> None:
    """Run the command line; bad input ends in one line."""
    run_stage(lambda *_: app())


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="twin, open or paper")],
    force: Annotated[bool, typer.Option(help="overwrite edits made in params.yaml")] = False,
) -> None:
    """Write profiles/<name>.yaml over params.yaml."""
    chosen = _as_params(_profiles(name))
    shipped = [_as_params(path) for path in PROFILES.glob("*.yaml")]
    if PARAMS.exists() and not force and PARAMS.read_bytes() not in shipped:
        raise IbmaError(
            f"{PARAMS} has edits that are in no profile: save it under {PROFILES}/ first, "
            "or give --force to lose them"
        )
    PARAMS.write_bytes(chosen)
    typer.echo(f"{PARAMS} is now profile {name}: run `dvc repro` or `make repro`")


def _as_params(shipped: Path) -> bytes:
    """Return a profile as params.yaml holds it: its schema lies beside it, not one folder up."""
    return shipped.read_bytes().replace(b"$schema=../", b"$schema=", 1)


@app.command()
def track() -> None:
    """Bring MLflow in step with the records under runs/."""
    typer.echo(tracking.collect(params.load(), Path()))


@app.command(name="docs")
def write_docs() -> None:
    """Write docs/methods.md, docs/datasets.md and the schema of params.yaml from the code."""
    from ibma.report import docs

    write_json(SCHEMA, params.schema())
    for path in [*docs.write(), SCHEMA]:
        typer.echo(path)


@app.command(name="archive")
def write_evidence() -> None:
    """Copy what the tables are made of into reports/<profile>/evidence/, to be committed."""
    profile = params.load(PARAMS)
    out = archive.folder(Path(), profile.profile)
    for name in archive.pack(profile, Path(), out):
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
    from ibma.evidence import retrain

    agreed, apart = 0, []
    for one in retrain.run(profile, Path(), wanted):
        held = one.run
        name = f"{held.task}/{held.method}/{held.seed}"
        made = "same key" if one.same_key else "another key: other code, data or parameters"
        typer.echo(f"{name}: {made}; {one.device}, committed: {held.provenance['device']}")
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


@app.command(name="plan")
def show_plan(
    profile_: Annotated[
        str | None, typer.Option("--profile", help="twin, open or paper; without it: params.yaml")
    ] = None,
) -> None:
    """Print what a profile asks for: cells, hours, disk, and what this machine lacks."""
    path = PARAMS if profile_ is None else _profiles(profile_)
    typer.echo(plan.text(params.load(path), Path()))


def _profiles(name: str) -> Path:
    """The file of a profile. Raises IbmaError naming those that there are."""
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        listed = ", ".join(known) or "none here: run this in the repository"
        raise IbmaError(f"profile '{name}' not found in {PROFILES}/ (known: {listed})")
    return PROFILES / f"{name}.yaml"
