"""The report: one offline HTML page, its figures, and every number in files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from ibma import paths
from ibma.files import held, remove, write_bytes
from ibma.paper import audit
from ibma.paper.audit import COMPARED
from ibma.params import Params
from ibma.report import inputs as report_inputs
from ibma.report import numbers, paper_tables, pictures, table, verdict
from ibma.report.formatting import plural
from ibma.report.inputs import Inputs
from ibma.report.numbers import Numbers
from ibma.report.pictures import Picture
from ibma.report.table import Scalar, Table
from ibma.report.templates import environment
from ibma.results import significance
from ibma.results.claims import task_name

PACKAGES_LINE = "Packages"  # of the provenance: that of the machine that wrote the page
PACKAGES = ("torch", "transformers", "dvc", "mlflow", "scikit-learn", "scipy")
FAISS = ("faiss-gpu", "faiss-cpu")  # two builds, of which one is installed
OUTPUTS = ("tables", "figures", "metrics", "plots")  # folders that are written anew
FIGURES = {"08": "eta", "09": "times"}  # of the paper's tables
TESTS = tuple(f"{number:02d}" for number in significance.TABLES)
STUDIES = ("regimes", "noise", "regime")  # tables with a figure of the same name
# tables too long for the page
IN_FILES = ("real_uncertainty", "real_ib", "real_tuned", "regime_points")
FINE = re.compile(r"(?<=\.\d\d)\d{4}\b")  # less than a hundredth of a point
AS_IT_IS = " !$'()*+,-./:;<=>?@[]^_`{|}~"  # in an address between double quotes of HTML


def write(params: Params, root: Path) -> Path:
    """Write the report of a profile from what the stages wrote below `root`; return its page.

    Raises:
        IbmaError: another process writes reports here.
    """
    with held(root / paths.REPORTS):
        return render(report_inputs.load(params, root), root)


def render(inputs: Inputs, root: Path) -> Path:
    """Write `reports/<profile>/` below `root` and return the page's path.

    tables/*.{md,csv,tex}, figures/*.{svg,png}, metrics/<task>.json (method -> percent, for `dvc
    metrics`), plots/*.csv (for `dvc plots`), tuning.csv, runs.csv, index.html.
    Folders are written anew, so that no file of a task that left the profile stays. The same
    records give the same files.
    """
    out = root / paths.REPORTS / inputs.params.profile
    for name in OUTPUTS:
        remove(out / name)
    made = numbers.build(inputs)
    made.write(out)
    table.write_csv(_runs(inputs), out / "runs.csv")
    drawn = pictures.draw(inputs, out / "figures")
    page = out / "index.html"
    write_bytes(page, html(inputs, root, made, drawn).encode())
    return page


def _runs(inputs: Inputs) -> list[dict[str, Scalar]]:
    """List every record with its MLflow run."""
    return [
        {
            "stage": run.stage,
            "task": run.task,
            "method": run.method,
            "seed": run.seed,
            "record": run.id.record.as_posix(),
            "mlflow run": inputs.tracked.get(run.id.record.as_posix(), "not tracked"),
            "key": run.key,
        }
        for run in inputs.results.all()
    ]


@dataclass(frozen=True)
class Shown:
    """A table of the page with the figures that belong to it.

    Attributes:
        folded: whether its figures are folded away; of a study, its numbers.
        hidden: whether all of it is, under its title and caption.
    """

    table: Table
    pictures: tuple[Picture, ...] = ()
    folded: bool = False
    hidden: bool = False


def html(inputs: Inputs, root: Path, made: Numbers, drawn: Mapping[str, Picture]) -> str:
    """Return the page; its pictures are the files in `reports/<profile>/figures/` below `root`."""
    out = root / paths.REPORTS / inputs.params.profile
    tables = {one.key: one for one in made.tables}
    files = {name: out / f"figures/{name}.svg" for name in drawn}
    context = {
        "params": inputs.params,
        "own": inputs.own,
        "answer": verdict.answer(inputs),
        "leaderboard": tables["leaderboard"],
        "claims": tables.get("real_claims"),
        "paper": _paper(inputs, made, drawn),
        "tasks": _tasks(inputs, tables, drawn),
        "more": _more(tables, drawn),
        "studies": _studies(tables, drawn),
        "not_run": [one for one in made.tables if not one.rows],
        "long": [tables[key] for key in IN_FILES if key in tables],
        "meanings": paper_tables.MEANINGS,
        "pictures": drawn,
        "svgs": {name: _embedded(file) for name, file in files.items() if file.exists()},
        "failures": [check for check in inputs.checks if check.verdict == audit.FAILS],
        "checks": audit.summary(inputs.checks),
        "provenance": _provenance(inputs),
        "gaps": _gaps(inputs),
        "grouped": table.grouped,
        "plural": plural,
    }
    return str(environment().get_template("index.html.jinja").render(context))


def _embedded(svg: Path) -> str:
    """Return a figure as an address that holds it, to a hundredth of a point.

    Base64 would take a quarter more.
    """
    text = " ".join(line.strip() for line in svg.read_text(encoding="utf-8").splitlines())
    return "data:image/svg+xml;charset=utf-8," + quote(FINE.sub("", text), safe=AS_IT_IS)


def _paper(inputs: Inputs, made: Numbers, drawn: Mapping[str, Picture]) -> list[Shown]:
    """Choose the paper's tables that have rows, each with its figures.

    Folded are tables of tests, whose captions say what came out, and of generated data all but the
    main ones: they judge nothing.
    """
    shown = []
    for one in made.tables:
        if one.key.isdigit() and one.rows:
            names = [FIGURES[one.key]] if one.key in FIGURES else []
            if int(one.key) in COMPARED:
                paper = inputs.paper.table(int(one.key))
                tasks = {target.task for target in paper_tables.targets(paper)}
                names = [f"comparison_{task}" for task in inputs.tasks if task in tasks]
            own = tuple(drawn[name] for name in names if name in drawn)
            main = int(one.key) in COMPARED or one.key in FIGURES
            hidden = one.key in TESTS or (one.twin and not main)
            shown.append(Shown(one, own, folded=int(one.key) in COMPARED, hidden=hidden))
    return shown


def _tasks(
    inputs: Inputs, tables: Mapping[str, Table], drawn: Mapping[str, Picture]
) -> list[Shown]:
    """Choose the tables of tasks that the paper does not have."""
    return [Shown(tables[f"real_{task}"], (drawn[f"comparison_{task}"],)) for task in inputs.beyond]


def _more(tables: Mapping[str, Table], drawn: Mapping[str, Picture]) -> list[Shown]:
    """Choose the other tables on tasks that the paper does not have."""
    names = {"real_fusion": "", "real_regime": ""}
    names |= {key: "" for key in tables if key.startswith("points_")}
    names |= {"real_eta": "eta", "real_cost": "times"}
    return [
        Shown(tables[key], (drawn[name],) if name in drawn else (), hidden=tables[key].twin)
        for key, name in names.items()
        if key in tables
    ]


def _studies(tables: Mapping[str, Table], drawn: Mapping[str, Picture]) -> list[Shown]:
    """Choose the tables of the studies, each with its figure; the first has a line a task."""
    first, *_ = STUDIES
    return [
        Shown(tables[name], (drawn[name],), folded=name != first)
        for name in STUDIES
        if name in drawn
    ]


def _gaps(inputs: Inputs) -> list[str]:
    """Say which methods have no records or too few of them, and why."""
    results = inputs.results
    absent = [f"{task_name(task)}: not run: {why}" for task, why in results.absent.items()]
    counts = Counter(results.gaps.values())
    return absent + [
        f"{plural(count, 'method')} of a task: {why}" for why, count in sorted(counts.items())
    ]


def _provenance(inputs: Inputs) -> list[tuple[str, str]]:
    params, runs = inputs.params, inputs.results.all()
    etas = sorted({run.params["eta"] for run in runs if run.params.get("eta")})
    eta = "chosen by cross-validation" if params.eta is None else f"{params.eta:g} (override)"
    commits = sorted({str(run.provenance.get("git_commit"))[:10] for run in runs})
    around = [run.environment for run in runs]
    environments = sorted({f"{e['device']} {e['instructions']} {e['threads']}" for e in around})
    sources = {task_name(run.task): run.source for run in runs}
    return [
        ("Profile", params.profile),
        ("eta", f"{eta}, but fixed in studies. All values: {', '.join(f'{v:g}' for v in etas)}"),
        ("Runs", f"{len(runs):,}, {params.seeds} of each method on each task"),
        ("Commit of the records", ", ".join(commits)),
        ("Device, instructions, threads", "; ".join(environments)),
        ("Sources", ", ".join(f"{task}: {source}" for task, source in sorted(sources.items()))),
        (PACKAGES_LINE, ", ".join(_versions())),
    ]


def _versions() -> Iterator[str]:
    yield from (f"{name} {version(name)}" for name in PACKAGES)
    for name in FAISS:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"
