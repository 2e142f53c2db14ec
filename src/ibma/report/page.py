"""The report: every table in Markdown, CSV and LaTeX, figures, and one offline HTML page."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ibma.files import read_json
from ibma.paper import audit, published
from ibma.params import Params, cores
from ibma.processes import pool
from ibma.report import figures, paper_tables, real_tables
from ibma.report.paper_tables import ReportTable
from ibma.results import records, significance
from ibma.results.records import Cells

LONG = 28  # letters of a table's cell that LaTeX should not break
PACKAGES = ("torch", "transformers", "faiss-gpu", "dvc", "mlflow", "scikit-learn", "scipy")


def write(params: Params, root: Path) -> Path:
    """Write `reports/<profile>/` below `root` and return the page's path.

    tables/table_NN.{md,csv,tex}, figures/*.{svg,png}, metrics.json (task -> method -> mean
    in percent), plots/metrics.csv (the same, for bars), tuning.csv, index.html. The same records
    at the same commit give the same files.
    """
    out = root / "reports" / params.profile
    here = records.cells(params, root)
    built = write_numbers(params, root, out)
    pictures = _write_figures(params, root, here, out / "figures")
    page = out / "index.html"
    page.write_text(_html(params, root, built, pictures, here), encoding="utf-8")
    return page


def build(params: Params, root: Path) -> list[ReportTable]:
    """Every table, those without a task in this profile last."""
    built = [*paper_tables.build(params, root), *real_tables.build(params, root)]
    return sorted(built, key=lambda table: not table.lines)


def write_numbers(params: Params, root: Path, out: Path) -> list[ReportTable]:
    """Write into `out` all that `ibma verify` compares: tables, metrics, plots, tuning."""
    built = build(params, root)
    _write_tables(built, out / "tables")
    metrics = _metrics(records.cells(params, root))
    _write_json(out / "metrics.json", metrics)
    bars = [(f"{task}/{m}", value) for task, of in metrics.items() for m, value in of.items()]
    _write_csv(out / "plots" / "metrics.csv", ("cell", "percent"), bars)
    _write_csv(out / "tuning.csv", TUNING, _tuning(params, root))
    return built


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("ibma.report"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["latex"] = _latex
    environment.filters["cells"] = paper_tables.cells_of
    environment.filters["in_md"] = partial(_marked, str, "**{}**", "<u>{}</u>")
    environment.filters["in_tex"] = _in_tex
    # bold alone is silent in a screen reader
    best, second = (f'{{}}<span class="spoken">{mark}</span>' for mark in paper_tables.MARKS)
    html = Markup(f"<b>{best}</b>"), Markup(f"<u>{second}</u>")
    environment.filters["in_html"] = partial(_marked, escape, *html)
    return environment


def _marked(escape: Callable[[str], str], best: str, second: str, cell: str) -> str:
    """A cell in one format, with its mark as the paper prints it instead of the word."""
    for mark, pattern in zip(paper_tables.MARKS, (best, second), strict=True):
        if cell.endswith(mark):
            return pattern.format(escape(cell.removesuffix(mark)))
    return escape(cell)


def _in_tex(cell: str) -> str:
    """A cell in LaTeX; an interval stands outside the mark, since lines do not break inside it."""
    mark = next((mark for mark in paper_tables.MARKS if cell.endswith(mark)), "")
    number, bracket, interval = cell.removesuffix(mark).partition(" [")
    marked = _marked(_latex, r"\textbf{{{}}}", r"\underline{{{}}}", number + mark)
    return marked + _latex(bracket + interval)


def _latex(text: str) -> str:
    """Escape what LaTeX reads as markup; paths may break after `/` and `_`."""
    marks = {"\\": r"\textbackslash{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "~": r"\~{}"}
    marks |= {"^": r"\^{}", "|": r"\textbar{}", "/": r"/\allowbreak{}", "_": r"\_\allowbreak{}"}
    plain = {mark: "\\" + mark for mark in "&%$#{}"}
    return "".join((marks | plain).get(letter, letter) for letter in text)


def _widths(table: ReportTable) -> list[str]:
    """Share of a LaTeX table's width per column: as its longest cell, up to LONG letters."""
    rows = [table.columns, *map(paper_tables.cells_of, table.lines)]
    letters = [min(LONG, 1 + max(map(len, column))) for column in zip(*rows, strict=True)]
    return [f"{count / sum(letters):.4f}" for count in letters]


def _write_tables(built: Sequence[ReportTable], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment()
    for table in built:
        stem = folder / table.name
        context = {"table": table, "verdicts": paper_tables.VERDICTS, "widths": _widths(table)}
        for suffix in ("md", "tex"):
            text = environment.get_template(f"table.{suffix}.jinja").render(context)
            stem.with_suffix(f".{suffix}").write_text(text, encoding="utf-8")
        paper_tables.write_csv(table, stem.with_suffix(".csv"))


def _write_figures(params: Params, root: Path, here: Cells, folder: Path) -> list[tuple[str, str]]:
    """Draw everything; returns (alt text, svg in base64) of what the page itself shows.

    Training curves stay files beside the page: a panel per method and task is too much for it.
    """
    _draw_curves(params, here, folder)
    drawn = [*_write_claims(params, root, folder), *_write_evidence(params, root, folder)]
    scores = _metrics(here)
    if len(scores) > 1:
        twin = any(one.source == "twin" for own in here.values() for one in own)
        figures.critical_difference(scores, "twin" if twin else "real", folder / "ranks")
        drawn.append(("mean rank of every method over tasks, critical difference", "ranks"))
    for task in params.tasks:
        found = {method: list(r) for (name, method), r in here.items() if name == task and r}
        if not found:
            continue
        metric = records.selection(next(iter(found.values())))
        percents = {m: v for m, r in found.items() if (v := records.values(r, metric, "percent"))}
        source = next(iter(found.values()))[0].source
        figures.comparison(task, metric, percents, source, folder / f"comparison_{task}")
        drawn.append((f"{task}: {metric} of every seed and method", f"comparison_{task}"))
    return [
        (words, base64.b64encode((folder / f"{name}.svg").read_bytes()).decode())
        for words, name in drawn
    ]


def _draw_curves(params: Params, here: Cells, folder: Path) -> None:
    """The training curves of every task, by every core."""
    with pool(cores(), ["ibma.report.figures"]) as at_once:
        drawing = [
            at_once.submit(figures.training_curves, task, found, folder / f"history_{task}")
            for task in params.tasks
            if (found := {m: r for (name, m), r in here.items() if name == task and r})
        ]
    for one in drawing:
        one.result()


def _write_evidence(params: Params, root: Path, folder: Path) -> list[tuple[str, str]]:
    """Figures 1 and 3, the eta curve, the times; returns (alt text, name) of each."""
    drawn = []
    for task, explained in read_json(root / "data/gradcam.json", {}).items():
        figures.attention(task, explained, folder / f"gradcam_{task}")
        drawn.append((f"{task}: Grad-CAM of the image encoder, deletion curves", f"gradcam_{task}"))
    own = {eta: found for eta, found in records.at_etas(params, root).items() if found}
    table, task = published.load().table(8), params.sensitivity.task
    if own and task == table.columns[0].task:
        metric = records.selection(next(iter(own.values())))
        ours = {eta: records.values(found, metric, "percent") for eta, found in own.items()}
        printed = {float(c.eta or 0): table.rows[0].cells[c.key].value for c in table.columns}
        source = next(iter(own.values()))[0].source
        figures.eta_curve(ours, printed, task, source, folder / "eta")
        drawn.append((f"{task}: {metric} against eta, ours and published", "eta"))
    if timed := read_json(root / "data/timing.json", {}):
        figures.times(timed, folder / "times")
        drawn.append((f"{timed['task']}: seconds per epoch of every method", "times"))
    return drawn


def _write_claims(params: Params, root: Path, folder: Path) -> list[tuple[str, str]]:
    """Of real data beyond the paper: claims, eta, IB losses; returns (alt text, name) of each."""
    here, drawn = records.cells(params, root), []
    tasks = real_tables.tasks(params, here)
    if tests := real_tables.by_rival(root, here, tasks):
        figures.forest(tests, list(real_tables.RIVALS.values()), folder / "claims")
        drawn.append(("IBMA minus each rival on every task, 95 % interval", "claims"))
    if params.sensitivity.task in tasks and (curves := real_tables.eta_curves(params, root)):
        task = params.sensitivity.task
        metric = records.selection(records.of_task(here, task))
        figures.eta_curves(curves, task, metric, folder / "eta")
        drawn.append((f"{task}: {metric} against eta", "eta"))
    if moves := real_tables.ib_moves(params, here, tasks):
        figures.ib_moves(moves, folder / "ib_losses")
        drawn.append(("IB losses before and after training", "ib_losses"))
    return drawn


def _metrics(here: Cells) -> dict[str, dict[str, float]]:
    """Task -> method -> mean of the metric the task is judged by, in percent: for `dvc metrics`."""
    result: dict[str, dict[str, float]] = {}
    for (task, method), own in here.items():
        found = records.values(own, records.selection(own), "percent")
        if found:
            result.setdefault(task, {})[method] = round(float(np.mean(found)), 3)
    return result


TUNING = (
    "task",
    "method",
    "metric",
    "run_fold",
    "fold",
    "lr",
    "weight_decay",
    "eta",
    "score",
    "chosen",
)


def _tuning(params: Params, root: Path) -> list[tuple[Any, ...]]:
    """Every fold's score of every trial, and whether the setting was chosen."""
    rows = []
    for path in sorted((root / "data/tune").glob("*/[!.]*.json")):
        content = json.loads(path.read_text())
        if not content or path.parent.name not in params.tasks:
            continue  # the task's data is not here, or it belongs to another profile
        setting = ("run_fold", "lr", "weight_decay", "eta")
        chosen = {tuple(choice[name] for name in setting) for choice in content["choices"]}
        for trial in content["scores"]:
            place = [trial[name] for name in ("run_fold", "fold", "lr", "weight_decay", "eta")]
            mark = "yes" if tuple(trial[name] for name in setting) in chosen else ""
            rows.append(
                (
                    content["task"],
                    content["method"],
                    content["metric"],
                    *place,
                    f"{trial['score']:.4f}",
                    mark,
                )
            )
    return rows


def _html(
    params: Params,
    root: Path,
    built: Sequence[ReportTable],
    pictures: Sequence[tuple[str, str]],
    here: Cells,
) -> str:
    return str(
        _environment()
        .get_template("index.html.jinja")
        .render(
            params=params,
            tables=built,
            verdicts=paper_tables.VERDICTS,
            pictures=pictures,
            summary=_summary(params, root, here, built),
            findings=[check for check in _checks(built) if check.verdict == audit.FAILS],
            provenance=_provenance(params, root, here),
            records=_behind(params, root, built, here),
        )
    )


def _behind(
    params: Params, root: Path, built: Sequence[ReportTable], here: Cells
) -> dict[str, list[tuple[str, str]]]:
    """What a cell of a table names as its records -> (file, MLflow run) of each.

    Every record of the profile is there, whether a table shows it and MLflow knows it or not.
    """
    runs = read_json(root / "data/track.json", {})
    at = params.sensitivity
    etas = {
        (at.task, at.name(variant, eta)): found
        for variant in at.variants
        for eta, found in records.at_etas(params, root, variant).items()
    }
    behind = {}
    for (task, method), own in {**here, **etas}.items():
        folder = f"runs/{task}/{method}"
        files = [f"{folder}/seed_{one.seed}.json" for one in own]
        behind[folder] = [(file, runs.get(file, "not tracked")) for file in files]
    lines = [line for table in built for line in table.lines if isinstance(line, paper_tables.Line)]
    for file in dict.fromkeys(line.records for line in lines):
        behind.setdefault(file, [(file, "no MLflow run: a stage of its own wrote it")])
    return {name: files for name, files in behind.items() if name and files}


def _summary(params: Params, root: Path, here: Cells, built: Sequence[ReportTable]) -> list[str]:
    """The page in five lines: what was run, IBMA's place, its tests, the verdicts, the audit."""
    scores, ours = _metrics(here), significance.OURS
    tasks = {task: of for task, of in scores.items() if ours in of}
    best = [task for task, of in tasks.items() if of[ours] >= max(of.values())]
    above = [t for t, of in tasks.items() if of[ours] > of.get(significance.CONTROL, math.inf)]
    real = {one.task for own in here.values() for one in own if one.source == "real"}
    tests = significance.stored(root)
    held = [test for test in tests if test["opponent"] == significance.BASELINE]
    better = [t for t in held if t["difference"] > 0 and t.get("holm", 1.0) < 0.05]
    worse = [t for t in held if t["difference"] < 0 and t.get("holm", 1.0) < 0.05]
    verdicts = Counter(
        line.verdict.split(":")[0]
        for table in built
        for line in table.lines
        if isinstance(line, paper_tables.Line) and line.published and line.verdict
    )
    shown = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    return [
        f"Run: {len(params.methods)} methods and {len(params.variants)} forms of IBMA, "
        f"{params.seeds} seeds each, on {len(tasks)} tasks ({_sources(len(real), len(tasks))}).",
        f"IBMA has the highest mean on {len(best)} of {len(tasks)} tasks, and a higher one than "
        f"its own network without a bound (ce3) on {len(above)}.",
        f"Against the best baseline of each comparison, after Holm: better in {len(better)} of "
        f"{len(held)}, worse in {len(worse)}, no difference shown in the others.",
        f"Published numbers: {shown}." if shown else _rivals(tests),
        f"The paper's own numbers: {audit.summary(_checks(built))}",
    ]


def _sources(real: int, tasks: int) -> str:
    return "all of real data" if real == tasks else f"{real} of real data, the others TWIN"


def _rivals(tests: Sequence[Mapping[str, Any]]) -> str:
    """In place of the published numbers, where the profile has no task of the paper."""
    names = (significance.ABLATION, *significance.BOUNDS, significance.CONTROL)
    families = {name: [t for t in tests if t["opponent"] == name] for name in names}
    counts = [
        f"{name} {[real_tables.verdict(test) for test in family].count(real_tables.BETTER)}"
        for name, family in families.items()
        if family
    ]
    return (
        "No task of the paper is in this profile, so no published number stands beside ours. Tasks "
        f"where IBMA is better, after Holm: than {', '.join(counts) or 'none tested'}."
    )


def _checks(built: Sequence[ReportTable]) -> list[audit.Check]:
    return [line for table in built for line in table.lines if isinstance(line, audit.Check)]


def _provenance(params: Params, root: Path, here: Cells) -> list[tuple[str, str]]:
    own = [one for found in here.values() for one in found]
    etas = sorted({(r.task, r.method, r.params["eta"]) for r in own if r.params.get("eta")})
    eta = "tuned" if params.eta is None else f"{params.eta} (override)"
    lock = root / "dvc.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12] if lock.exists() else "none yet"
    commits = sorted({str(r.volatile.get("git_commit"))[:10] for r in own})
    return [
        ("Profile", params.profile),
        ("eta", f"{eta}: " + ", ".join(f"{task}/{method} {value}" for task, method, value in etas)),
        ("Seeds", str(params.seeds)),
        ("Commit of the records", ", ".join(commits)),
        ("Commit at report time", _commit(root)),
        ("dvc.lock before this report", f"sha256 {digest}"),
        ("Devices", ", ".join(sorted({str(r.volatile.get("device")) for r in own}))),
        ("Sources", ", ".join(sorted({f"{r.task}: {r.source}" for r in own}))),
        ("Packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
    ]


def _commit(root: Path) -> str:
    shown = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    return shown.stdout.strip()[:10] or "no git"


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
