"""The report: one offline HTML page, its figures, and every number in files beside it."""

from __future__ import annotations

import base64
import hashlib
import math
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ibma import paths
from ibma.paper import audit
from ibma.params import Params
from ibma.report import inputs as report_inputs
from ibma.report import numbers, paper_tables, pictures, real_tables, table
from ibma.report.inputs import Inputs
from ibma.report.numbers import Numbers
from ibma.report.table import Scalar
from ibma.report.templates import environment
from ibma.results import claims
from ibma.results.claims import CONTROL, OURS

PACKAGES = ("torch", "transformers", "dvc", "mlflow", "scikit-learn", "scipy")
FAISS = ("faiss-gpu", "faiss-cpu")  # two builds, of which one is installed
OUTPUTS = ("tables", "figures", "metrics", "plots")  # folders that are written anew


def write(params: Params, root: Path) -> Path:
    """Write the report of a profile from what the stages wrote below `root`; return its page."""
    return render(report_inputs.load(params, root), root)


def render(inputs: Inputs, root: Path) -> Path:
    """Write `reports/<profile>/` below `root` and return the page's path.

    tables/*.{md,csv,tex}, figures/*.{svg,png}, metrics/<task>.json (method -> percent, for `dvc
    metrics`), plots/metrics.csv (the same, for `dvc plots`), tuning.csv, runs.csv, index.html.
    Folders are written anew, so that no file of a task that left the profile stays. The same
    records at the same commit give the same files.
    """
    out = root / paths.REPORTS / inputs.params.profile
    for name in OUTPUTS:
        shutil.rmtree(out / name, ignore_errors=True)
    made = numbers.build(inputs)
    made.write(out)
    table.write_csv(_runs(inputs), out / "runs.csv")
    drawn = pictures.draw(inputs, out / "figures")
    page = out / "index.html"
    page.write_text(_html(inputs, root, out, made, drawn), encoding="utf-8")
    return page


def _runs(inputs: Inputs) -> list[dict[str, Scalar]]:
    """List every record with its MLflow run."""
    rows: list[dict[str, Scalar]] = []
    for stage, task, method in inputs.results.runs:
        for run in inputs.results.runs[stage, task, method]:
            file = paths.record(stage, task, method, run.seed).as_posix()
            rows.append(
                {
                    "stage": stage,
                    "task": task,
                    "method": method,
                    "seed": run.seed,
                    "record": file,
                    "mlflow run": inputs.tracked.get(file, "not tracked"),
                    "key": run.key,
                }
            )
    return rows


def _html(
    inputs: Inputs, root: Path, out: Path, made: Numbers, drawn: Sequence[pictures.Picture]
) -> str:
    svgs = {
        picture.name: base64.b64encode((out / f"figures/{picture.name}.svg").read_bytes()).decode()
        for picture in drawn
    }
    return str(
        environment()
        .get_template("index.html.jinja")
        .render(
            params=inputs.params,
            tables=made.tables,
            meanings=paper_tables.MEANINGS,
            pictures=drawn,
            svgs=svgs,
            summary=summary(inputs),
            findings=[check for check in inputs.checks if check.verdict == audit.FAILS],
            provenance=_provenance(inputs, root),
            gaps=_gaps(inputs),
        )
    )


def _gaps(inputs: Inputs) -> list[str]:
    """Say which cells have no records or too few of them, and why."""
    results = inputs.results
    absent = [f"{claims.task_name(task)}: not run: {why}" for task, why in results.absent.items()]
    counts = Counter(results.gaps.values())
    return absent + [f"{count} cells: {why}" for why, count in sorted(counts.items())]


def summary(inputs: Inputs) -> list[str]:
    """Sum up the page: what was run, IBMA's place, its tests, the verdicts, the audit.

    Generated data judges nothing: places and tests are those on real data.
    """
    params, real = inputs.params, [t for t in inputs.tasks if not inputs.results.is_twin(t)]
    forms = len(params.methods) - len(params.train)
    return [
        f"Run: {len(params.train)} rivals, {forms} forms of IBMA and its control, {params.seeds} "
        f"seeds each, on {len(inputs.tasks)} tasks ({_sources(len(real), len(inputs.tasks))}).",
        *_places(inputs, real),
        *_tested(inputs),
        *_compared(inputs),
        f"The paper's own numbers: {audit.summary(inputs.checks)}",
    ]


def _sources(real: int, tasks: int) -> str:
    return "all of real data" if real == tasks else f"{real} of real data, the others TWIN"


def _places(inputs: Inputs, real: Sequence[str]) -> list[str]:
    """Say where IBMA has the highest mean, alone or not, and where it is above its control."""
    scores = {t: m for t, m in real_tables.scores(inputs, real).items() if OURS in m}
    if not scores:
        return ["No task of real data has a run of IBMA."]
    alone = shared = above = 0
    for means in scores.values():
        rivals = [round(mean, 1) for method, mean in means.items() if method != OURS]
        ours, best = round(means[OURS], 1), max(rivals, default=-math.inf)
        alone += ours > best
        shared += ours == best
        above += ours > round(means.get(CONTROL, math.inf), 1)
    ties = f" and shares it on {shared}" if shared else ""
    return [
        f"Real data: IBMA has the highest mean alone on {alone} of {len(scores)} tasks{ties}; its "
        f"mean is above that of its own network without a bound (ce3) on {above}."
    ]


def _tested(inputs: Inputs) -> list[str]:
    """Say against which rivals IBMA is better on real data that the paper does not have."""
    tests = real_tables.claim_tests(inputs)
    verdicts = {
        claim.figure or claim.opponent: [
            real_tables.verdict(test)
            for task, test in tests[claim.opponent].items()
            if not inputs.results.is_twin(task)
        ]
        for claim in claims.CLAIMS
    }
    counts = [
        f"{name} {said.count(real_tables.Verdict.BETTER)} better, "
        f"{said.count(real_tables.Verdict.WORSE)} worse of {len(said)}"
        for name, said in verdicts.items()
        if said
    ]
    return [f"IBMA against, after Holm: {'; '.join(counts)}."] if counts else []


def _compared(inputs: Inputs) -> list[str]:
    """Count the verdicts on published numbers; those that generated data cannot give are none."""
    counts = Counter(
        line.verdict
        for number in paper_tables.METRIC_TABLES
        for line in paper_tables.lines_of(inputs, number)
        if line.published
    )
    if not counts:
        return ["No task of the paper is in this profile, so no published number is compared."]
    shown = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return [f"Published numbers: {shown}."]


def _provenance(inputs: Inputs, root: Path) -> list[tuple[str, str]]:
    params, runs = inputs.params, inputs.results.all()
    etas = sorted({run.params["eta"] for run in runs if run.params.get("eta")})
    eta = "chosen by cross-validation" if params.eta is None else f"{params.eta} (override)"
    lock = root / paths.LOCK
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12] if lock.exists() else "none yet"
    commits = sorted({str(run.provenance.get("git_commit"))[:10] for run in runs})
    return [
        ("Profile", params.profile),
        ("eta", f"{eta}: " + ", ".join(f"{value:g}" for value in etas)),
        ("Seeds", str(params.seeds)),
        ("Commit of the records", ", ".join(commits)),
        ("Commit at report time", _commit(root)),
        ("dvc.lock before this report", f"sha256 {digest}"),
        ("Devices", ", ".join(sorted({str(run.provenance.get("device")) for run in runs}))),
        ("Sources", ", ".join(sorted({f"{run.task}: {run.source}" for run in runs}))),
        ("Packages", ", ".join(_versions())),
    ]


def _versions() -> Iterator[str]:
    yield from (f"{name} {version(name)}" for name in PACKAGES)
    for name in FAISS:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _commit(root: Path) -> str:
    shown = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    return shown.stdout.strip()[:10] or "no git"
