"""Define the `ibma` command and its options; `ibma.commands` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ibma import __version__, params, paths, plan, tracking
from ibma.commands import evidence, profiles
from ibma.errors import run_stage
from ibma.files import write_plain_json

app = typer.Typer(
    help="Reproduce the IBMA paper, or use its method on your own table (docs/own-data.md).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Kind = Literal["classify", "multilabel", "sentiment"]
WEIGHTS = f"{paths.MODELS}/<stage>/<task>/<method>/seed_<k>"
PROFILE = "a profile; `ibma profile list` shows all"


def main() -> None:
    """Run the command line; bad input ends in one line."""
    run_stage(lambda *_: app(prog_name="ibma"))


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


# --- projects and profiles -----------------------------------------------------------------------


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="the folder to create")]) -> None:
    """Create a project folder with the pipeline, the profiles and the code."""
    from ibma.commands import project

    typer.echo(project.create(folder))


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="a profile, or `list`")],
    force: Annotated[bool, typer.Option(help="overwrite your edits of params.yaml")] = False,
) -> None:
    """Write profiles/<name>.yaml over params.yaml; `ibma profile list` shows all profiles."""
    typer.echo(profiles.listing() if name == "list" else profiles.choose(name, force))


@app.command(name="plan")
def show_plan(
    profile: Annotated[str, typer.Option(help=f"{PROFILE} (default: that of params.yaml)")] = "",
) -> None:
    """Print what a profile costs: networks, hours, disk, and what is missing on this machine."""
    path = profiles.find(profile) if profile else paths.PARAMS
    typer.echo(plan.text(params.load(path), Path()))


# --- data of your own ----------------------------------------------------------------------------


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="name of the new profile: letters, digits and _")],
    csv: Annotated[Path, typer.Option(help="the table: CSV, TSV or Parquet")],
    label: Annotated[
        list[str], typer.Option(help="column to predict; repeat it for columns of 0 and 1")
    ],
    id: Annotated[str | None, typer.Option(help="column of row names (default: numbers)")] = None,
    group: Annotated[str | None, typer.Option(help="column of patients or speakers")] = None,
    split: Annotated[
        str | None, typer.Option(help="column of train, valid, test (default: random folds)")
    ] = None,
    map: Annotated[
        list[str] | None, typer.Option(help="meaning of other split names: dev=valid, extern=drop")
    ] = None,
    image: Annotated[list[str] | None, typer.Option(help="COLUMN@FOLDER of pictures")] = None,
    audio: Annotated[list[str] | None, typer.Option(help="COLUMN@FOLDER of recordings")] = None,
    video: Annotated[list[str] | None, typer.Option(help="COLUMN@FOLDER of films")] = None,
    text: Annotated[list[str] | None, typer.Option(help="column of texts")] = None,
    numbers: Annotated[
        list[str] | None, typer.Option(help="column of numbers; all such columns are one modality")
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="kind of task (default: inferred from the labels)")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="text between several labels of one row")
    ] = None,
    force: Annotated[
        bool, typer.Option(help="replace a profile of this name and your edits of params.yaml")
    ] = False,
) -> None:
    """Write a profile for your own table, and write it over params.yaml."""
    from ibma.commands import new

    wanted = new.Wanted(
        csv=csv,
        label=label,
        id=id,
        group=group,
        split=split,
        kind=kind or "",
        separator=separator,
        maps=map or (),
        image=image or (),
        audio=audio or (),
        video=video or (),
        text=text or (),
        numbers=numbers or (),
    )
    typer.echo(new.write(name, wanted, force))


@app.command(name="check")
def check_data(
    name: Annotated[str, typer.Argument(help="a profile that `ibma new` wrote, or a data set")],
) -> None:
    """Check a data set: counts, missing values, groups in two splits, duplicates, dropped rows."""
    from ibma.commands import check

    typer.echo(check.text(name))


@app.command()
def predict(
    weights: Annotated[Path, typer.Argument(help=WEIGHTS)],
    input: Annotated[Path, typer.Option(help="a table with the columns of the training table")],
    output: Annotated[Path, typer.Option(help="the CSV file to write")],
    folder: Annotated[
        list[str] | None, typer.Option(help="MODALITY=FOLDER: another folder of its files")
    ] = None,
) -> None:
    """Predict the rows of a table: class probabilities, or why a row cannot be predicted."""
    from ibma.commands import predict

    typer.echo(predict.write(weights, input, output, folder or ()))


# --- evidence ------------------------------------------------------------------------------------


@app.command(name="verify")
def check(
    profile: Annotated[
        str, typer.Argument(help=f"{PROFILE} (default: all with evidence or records)")
    ] = "",
    again: Annotated[
        str,
        typer.Option(
            "--retrain",
            metavar="N|TASK/METHOD[/SEED]",
            help="also train N random runs per task again, or the named one",
        ),
    ] = "",
) -> None:
    """Recompute every number from the records and compare it with the committed reports."""
    for line in evidence.check(profile, again):
        typer.echo(line)


@app.command(name="archive")
def write_evidence() -> None:
    """Copy records and predictions into reports/<profile>/evidence/, to be committed."""
    written, gaps = evidence.pack()
    for gap in gaps:
        typer.echo(gap, err=True)
    typer.echo(written)


@app.command()
def track() -> None:
    """Copy the records under runs/ into MLflow."""
    typer.echo(tracking.collect(params.load(), Path()))


@app.command(name="docs")
def write_docs() -> None:
    """Write the generated pages of docs/ and the schema of params.yaml."""
    from ibma.report import docs

    write_plain_json(paths.SCHEMA, params.schema())
    for path in [*docs.write(), paths.SCHEMA]:
        typer.echo(path)


if __name__ == "__main__":
    main()
