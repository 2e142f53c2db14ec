"""`dvc exp run -S eta=0.3` on a small copy of this repository: what runs again, what DVC tells."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
VARIANTS = {"ibma": {}, "ibma_no_align": {"align": False}}
METRICS = "reports/twin/metrics.json"


def small() -> dict:
    """Profile `twin` cut down to the digits, two methods, two variants, one seed."""
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    for name in ("datasets", "tasks"):
        values[name] = {"split_digits": values[name]["split_digits"]}
    values |= {"methods": {"concat": {}, "ce3": {}}, "variants": VARIANTS, "seeds": 1}
    values["training"] |= {"epochs": 3, "batch_size": 64}
    values["tuning"] |= {"folds": 2, "epochs": 1, "budget": 1}
    values["tuning"]["grid"]["eta"] = [0.9]  # far from .3, so that the metrics move
    values["timing"] = {"task": "split_digits", "rounds": 2}
    values["sensitivity"] |= {"task": "split_digits", "variants": ["ibma"], "etas": [0.5]}
    values["probe"] = {"task": "split_digits", "methods": ["ibma"]}
    values["gradcam"] |= {"tasks": {}, "methods": []}
    return values


def run(root: Path, *command: str) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/site"),
        "OMP_NUM_THREADS": "1",
        # A store that does not answer costs one warning, a new one ten seconds of migrations.
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr}"
    return done.stdout


def commit(root: Path, message: str) -> None:
    run(root, "git", "add", "--all")
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    run(root, "git", *who, "commit", "--quiet", "--message", message)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> tuple[Path, str]:
    """A repository after its first run, committed, and after an experiment; its output."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("src", "stages", ".dvc/plots"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, root / name)
    (root / "params.yaml").write_text(yaml.safe_dump(small(), sort_keys=False))
    run(root, "git", "init", "--quiet")
    run(root, "dvc", "repro")
    commit(root, "First run")
    return root, run(root, "dvc", "exp", "run", "--name", "eta_03", "-S", "eta=0.3")


def test_only_cells_that_read_eta_run_again_and_what_is_made_of_them(experiment):
    _, output = experiment
    prefix = "Running stage '"
    ran = [x.removeprefix(prefix)[:-2] for x in output.splitlines() if x.startswith(prefix)]
    cells = [f"train_ibma@split_digits-{variant}" for variant in VARIANTS]
    assert sorted(ran) == sorted([*cells, "probe", "gradcam", "significance", "track", "report"])
    assert "Stage 'tune@split_digits' didn't change, skipping" in output


def test_the_records_of_the_variants_hold_the_new_eta_and_those_at_a_fixed_one_do_not(experiment):
    root, _ = experiment
    for variant in VARIANTS:
        record = json.loads((root / f"runs/split_digits/{variant}/seed_0.json").read_text())
        assert record["params"]["eta"] == 0.3
    fixed = json.loads((root / "runs/split_digits/ibma_eta_0.5/seed_0.json").read_text())
    assert fixed["params"]["eta"] == 0.5
    (table,) = json.loads(run(root, "dvc", "params", "diff", "--json")).values()
    assert table == {"eta": {"old": None, "new": 0.3}}


def test_metrics_diff_lists_variants_only(experiment):
    root, _ = experiment
    changed = json.loads(run(root, "dvc", "metrics", "diff", "--json"))[METRICS]
    assert changed and set(changed) <= {f"split_digits.{variant}" for variant in VARIANTS}
    assert all(one["diff"] != 0 for one in changed.values())


def test_exp_show_sets_the_experiment_beside_its_commit(experiment):
    root, _ = experiment
    shown = {}
    for line in json.loads(run(root, "dvc", "exp", "show", "--json")):
        shown[line["name"] or line["rev"]] = line["data"]
        for one in line["experiments"] or ():
            shown[one["name"]] = one["revs"][0]["data"]
    branch = run(root, "git", "branch", "--show-current").strip()
    etas, metrics = (
        {name: shown[name][kind][file]["data"][key] for name in (branch, "eta_03")}
        for kind, file, key in (
            ("params", "params.yaml", "eta"),
            ("metrics", METRICS, "split_digits"),
        )
    )
    assert etas == {branch: None, "eta_03": 0.3}
    before, after = metrics[branch], metrics["eta_03"]
    assert {name for name in before if before[name] != after[name]} <= set(VARIANTS)
    assert before != after


def test_plots_diff_draws_both_revisions_with_the_template_of_this_repository(experiment):
    root, _ = experiment
    target = "reports/twin/plots/metrics.csv"
    plot = json.loads(run(root, "dvc", "plots", "diff", "--show-vega", "--targets", target))
    assert {point["rev"] for point in plot["data"]["values"]} == {"HEAD", "workspace"}
    assert {point["cell"] for point in plot["data"]["values"]} >= {"split_digits/ibma"}
    own = json.loads((ROOT / ".dvc/plots/cells.json").read_text())
    assert plot["height"] == own["height"] and len(plot["layer"]) == len(own["layer"])
