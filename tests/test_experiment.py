"""`dvc exp run -S eta=0.3` on a small copy of this repository: what runs again, what DVC tells."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import digits

pytestmark = pytest.mark.slow  # all of these run the pipeline
ROOT = Path(__file__).parent.parent
READ_ETA = {"train_ibma": ["ibma"], "ablation": ["ibma_no_align"], "bounds": ["ibma_vib"]}
METRICS = "reports/twin/metrics/split_digits.json"


def small() -> dict:
    """Profile `twin` cut down to the digits, five methods, one seed."""
    values = digits() | {"seeds": 1}
    values["bounds"] = {"ibma_vib": values["bounds"]["ibma_vib"]}
    values["training"]["epochs"] = 3
    values["tune"] |= {"folds": 2, "epochs": 1}
    values["tune"]["grid"] |= {"weight_decay": [1e-5], "weight_factor": [1]}
    values["tune"]["grid"]["eta"] = [0.9]  # far from .3, so that the metrics move
    values["regimes"]["betas"] = [16.0]
    values["noise"]["tasks"] = {}
    return values


def run(root: Path, *command: str, fails: bool = False) -> str:
    """Run a command in a project and return all that it prints."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/site"),
        # A store that does not answer costs one warning, a new one ten seconds of migrations.
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    environment.pop("PYTHONPATH", None)  # the stages find their own code
    done = subprocess.run(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode != 0) == fails, f"{' '.join(command)}\n{done.stdout[-4000:]}"
    return done.stdout


def ran(output: str) -> list[str]:
    """Return the stages that DVC says it ran."""
    prefix = "Running stage '"
    return [x.removeprefix(prefix)[:-2] for x in output.splitlines() if x.startswith(prefix)]


def commit(root: Path, message: str) -> None:
    run(root, "git", "add", "--all")
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    run(root, "git", *who, "commit", "--quiet", "--message", message)


def record(root: Path, stage: str, method: str) -> dict:
    return json.loads((root / f"runs/{stage}/split_digits/{method}/seed_0.json").read_text())


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A repository after its first run, committed."""
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
    return root


@pytest.fixture(scope="module")
def experiment(first) -> tuple[Path, str]:
    """The same after an experiment, and what that printed."""
    return first, run(first, "dvc", "exp", "run", "--name", "eta_03", "-S", "eta=0.3")


def test_a_dry_run_lists_what_a_new_eta_trains_and_runs_nothing(first):
    """DVC makes it in a copy, which needs the results that are here (README)."""
    shown = "dvc exp run -S eta=0.3 --dry -C data -C runs -C models"
    assert shown in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    listed = ran(run(first, *shown.split()))
    assert sorted(listed) == sorted([*(f"{stage}@split_digits" for stage in READ_ETA), "report"])
    assert not run(first, "git", "status", "--short")


def test_only_stages_that_read_eta_run_again_and_what_is_made_of_them(experiment):
    _, output = experiment
    trained = [f"{stage}@split_digits" for stage in READ_ETA]
    after = ["probe", "gradcam", "significance", "track", "report"]
    assert sorted(ran(output)) == sorted([*trained, *after])
    for stage in ("tune", "train"):
        assert f"Stage '{stage}@split_digits' didn't change, skipping" in output
    assert "ablation split_digits: 3 kept, 1 trained" in output, "ce3 and unimodal read no eta"


def test_records_of_methods_that_read_eta_hold_the_new_one_and_those_at_a_fixed_one_do_not(
    experiment,
):
    root, _ = experiment
    for stage, methods in READ_ETA.items():
        assert all(record(root, stage, method)["params"]["eta"] == 0.3 for method in methods)
    assert record(root, "sensitivity", "ibma_eta_0.5")["params"]["eta"] == 0.5
    assert record(root, "ablation", "ce3")["params"]["eta"] is None
    (table,) = json.loads(run(root, "dvc", "params", "diff", "--json")).values()
    assert table == {"eta": {"old": None, "new": 0.3}}


def test_metrics_diff_lists_methods_that_read_eta_only(experiment):
    root, _ = experiment
    changed = json.loads(run(root, "dvc", "metrics", "diff", "--json"))[METRICS]
    known = {method for methods in READ_ETA.values() for method in methods}
    assert changed and set(changed) <= known
    assert all(one["diff"] != 0 for one in changed.values())


def test_exp_show_sets_the_experiment_beside_its_commit(experiment):
    root, _ = experiment
    shown = {}
    for line in json.loads(run(root, "dvc", "exp", "show", "--json")):
        shown[line["name"] or line["rev"]] = line["data"]
        for one in line["experiments"] or ():
            shown[one["name"]] = one["revs"][0]["data"]
    branch = run(root, "git", "branch", "--show-current").strip()
    etas = {
        name: shown[name]["params"]["params.yaml"]["data"]["eta"] for name in (branch, "eta_03")
    }
    before, after = (shown[name]["metrics"][METRICS]["data"] for name in (branch, "eta_03"))
    assert etas == {branch: None, "eta_03": 0.3}
    assert before["ce3"] == after["ce3"] and before != after


def test_plots_diff_draws_both_revisions_with_the_template_of_this_repository(experiment):
    root, _ = experiment
    target = "reports/twin/plots/metrics.csv"
    plot = json.loads(run(root, "dvc", "plots", "diff", "--show-vega", "--targets", target))
    assert {point["rev"] for point in plot["data"]["values"]} == {"HEAD", "workspace"}
    assert {point["cell"] for point in plot["data"]["values"]} >= {"split_digits/ibma"}


def test_going_back_to_the_tuned_eta_trains_nothing(experiment):
    root, _ = experiment
    run(root, "git", "checkout", "--quiet", ".")
    output = run(root, "dvc", "repro")
    assert not [
        line for line in output.splitlines() if " trained" in line and " 0 trained" not in line
    ]
    assert record(root, "train_ibma", "ibma")["params"]["eta"] == 0.9
    output = run(root, "dvc", "exp", "run", "--name", "again", "-S", "eta=0.3")
    assert not [
        line for line in output.splitlines() if " trained" in line and " 0 trained" not in line
    ]


def test_an_experiment_in_a_copy_runs_the_copy_s_code_and_needs_no_raw_data(experiment):
    root, _ = experiment
    run(root, "git", "checkout", "--quiet", ".")
    run(root, "dvc", "checkout")
    shutil.rmtree(root / "data/raw")
    script = root / "stages/audit.py"
    honest = script.read_text()
    script.write_text(honest.replace("    tell(audit", '    tell("of the copy")\n    tell(audit'))
    output = run(root, "dvc", "exp", "run", "--temp", "-S", "eta=0.7", "--name", "copy")
    script.write_text(honest)
    assert "of the copy" in output
    assert "download@split_digits" not in ran(output) and "not run" not in output
    assert "train_ibma split_digits: 0 kept, 1 trained" in output


METHOD = '''
"""Throw-away method: the shared network under another name."""
from ibma.network.method import Fused


class Model(Fused):
    """As `concat`."""
'''


def test_a_method_and_a_task_train_alone_when_they_come_and_leave_no_trace_when_they_go(
    experiment,
):
    root, _ = experiment
    run(root, "git", "checkout", "--quiet", ".")
    run(root, "dvc", "checkout")
    before = {path: path.read_bytes() for path in root.glob("runs/*/split_digits/**/*.json")}
    method, params = root / "src/ibma/methods/added.py", root / "params.yaml"
    method.write_text(METHOD)
    honest = params.read_text()
    values = yaml.safe_load(honest)
    values["train"]["added"] = {}
    values["tasks"]["digits_again"] = values["tasks"]["split_digits"]
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    output = run(root, "dvc", "repro")
    assert "train split_digits: 1 kept, 1 trained" in output
    assert output.count(" 0 trained") == len(READ_ETA) + 2, "and two studies"
    after = {path: path.read_bytes() for path in root.glob("runs/*/split_digits/**/*.json")}
    assert {path for path in after if after[path] != before.get(path)} == {
        root / "runs/train/split_digits/added/seed_0.json"
    }
    assert "train@digits_again" in (root / "dvc.lock").read_text()
    assert (root / "reports/twin/metrics/digits_again.json").exists()

    method.unlink()
    params.write_text(honest)
    output = run(root, "dvc", "repro")
    assert "trained" not in output.replace(" 0 trained", "")
    after = {path: path.read_bytes() for path in root.glob("runs/*/split_digits/**/*.json")}
    assert after == before
    assert "digits_again" not in (root / "dvc.lock").read_text()
    assert not [
        p for p in root.glob("reports/**/*") if p.is_file() and b"digits_again" in p.read_bytes()
    ]


def test_a_fresh_clone_pulls_and_runs_nothing(experiment, tmp_path):
    root, _ = experiment
    run(root, "git", "stash", "--quiet")
    run(root, "dvc", "checkout")
    run(
        root,
        "dvc",
        "remote",
        "add",
        "--local",
        "--force",
        "--default",
        "shared",
        str(tmp_path / "r"),
    )
    run(root, "dvc", "push", "--quiet")
    run(tmp_path, "git", "clone", "--quiet", str(root), "clone")
    clone = tmp_path / "clone"
    run(clone, "dvc", "remote", "add", "--local", "--default", "shared", str(tmp_path / "r"))
    run(clone, "dvc", "pull", "--quiet")
    output = run(clone, "dvc", "repro")
    assert not ran(output) and not (clone / "data/raw").exists()
