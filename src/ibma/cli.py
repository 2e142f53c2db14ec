"""The `ibma` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibma import __version__, params, paths, plan, tracking
from ibma.errors import IbmaError, run_stage
from ibma.evidence import archive, verify
from ibma.files import atomic_file, write_json

app = typer.Typer(
    help="Reproduce the IBMA paper: `make repro`, then open reports/<profile>/index.html.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SCHEMA = Path("params.schema.json")


def main() -> None:
    """Run the command line; bad input ends in one line."""
    run_stage(lambda *_: app())


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ibma {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="print the version")
    ] = False,
) -> None:
    """Take the options that need no command."""


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="twin, open or paper")],
    force: Annotated[bool, typer.Option(help="overwrite edits made in params.yaml")] = False,
) -> None:
    """Write profiles/<name>.yaml over params.yaml."""
    chosen = _as_params(_profile(name))
    shipped = [_as_params(path) for path in paths.PROFILES.glob("*.yaml")]
    if paths.PARAMS.exists() and not force and paths.PARAMS.read_bytes() not in shipped:
        raise IbmaError(
            f"{paths.PARAMS} has edits that are in no profile: save it under {paths.PROFILES}/ "
            "first, or give --force to lose them"
        )
    with atomic_file(paths.PARAMS) as file:
        file.write(chosen)
    typer.echo(f"{paths.PARAMS} is now profile {name}: run `dvc repro` or `make repro`")


def _as_params(shipped: Path) -> bytes:
    """Return a profile as params.yaml holds it: its schema lies beside it, not one folder up."""
    return shipped.read_bytes().replace(b"$schema=../", b"$schema=", 1)


def _profile(name: str) -> Path:
    """Return the file of a profile.

    Raises:
        IbmaError: there is none of this name.
    """
    known = sorted(path.stem for path in paths.PROFILES.glob("*.yaml"))
    if name not in known:
        listed = ", ".join(known) or "none: run this in the repository"
        raise IbmaError(f"profile '{name}' not found in {paths.PROFILES}/ (known: {listed})")
    return paths.PROFILES / f"{name}.yaml"


@app.command(name="plan")
def show_plan(
    profile: Annotated[
        str, typer.Option(help="twin, open or paper [default: the one in params.yaml]")
    ] = "",
) -> None:
    """Print what a profile asks for: networks, hours, disk, and what this machine lacks."""
    path = _profile(profile) if profile else paths.PARAMS
    typer.echo(plan.text(params.load(path), Path()))


@app.command(name="verify")
def check(
    profile: Annotated[
        str, typer.Argument(help="twin, open or paper [default: every one that can be checked]")
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
        typer.echo(f"profile {other}: not checked: it has neither evidence nor records")
    for name in names:
        _verify(name)
        if again:
            _train_again(name, again)


def _verify(profile: str) -> None:
    """Print every place of a profile's reports that differs.

    Raises:
        IbmaError: there is one.
    """
    outcome = verify.verify(profile, Path())
    for one in outcome.differences:
        typer.echo(
            f"{one.file}: {one.place}: committed '{one.committed}', "
            f"{outcome.source}: '{one.recomputed}'"
        )
    if outcome.differences:
        raise IbmaError(
            f"profile {profile}: {len(outcome.differences)} of {outcome.compared} places differ "
            f"from the {outcome.source}, the first in {outcome.differences[0].file}: "
            "`dvc repro report` and `ibma archive` write both again, or `git checkout` them"
        )
    typer.echo(
        f"profile {profile}: {outcome.compared} places of the committed reports agree with "
        f"{outcome.runs} runs ({outcome.source})"
    )


def _train_again(profile: str, wanted: str) -> None:
    """Train runs again and print how far each is from the committed one.

    Raises:
        IbmaError: some are too far; it names them.
    """
    from ibma.evidence import retrain

    agreed, apart = 0, []
    for one in retrain.run(profile, Path(), wanted):
        name = f"{one.run.task}/{one.run.method}/{one.run.seed}"
        made = "same key" if one.same_key else "another key: other code, data or parameters"
        typer.echo(f"{name}: {made}; {one.device}, committed: {one.run.provenance['device']}")
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


@app.command(name="archive")
def write_evidence() -> None:
    """Copy what the tables are made of into reports/<profile>/evidence/, to be committed."""
    profile = params.load(paths.PARAMS)
    out = archive.folder(Path(), profile.profile)
    for gap in archive.pack(profile, Path(), out):
        typer.echo(f"missing: {gap}", err=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {size / 1e6:.1f} MB")


@app.command()
def track() -> None:
    """Make MLflow hold what the records under runs/ say."""
    typer.echo(tracking.collect(params.load(), Path()))


@app.command(name="docs")
def write_docs() -> None:
    """Write the generated pages of docs/ and the schema of params.yaml."""
    from ibma.report import docs

    write_json(SCHEMA, params.schema())
    for path in [*docs.write(), SCHEMA]:
        typer.echo(path)


if __name__ == "__main__":
    main()
