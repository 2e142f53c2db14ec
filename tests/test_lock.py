"""Stage `report` drops what dvc.lock holds of tasks that left params.yaml."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ibma import params

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent

PIPELINE = """
stages:
  download:
    foreach: ${datasets}
    do:
      cmd: echo ${key} > ${key}.raw
      outs: ["${key}.raw"]
  train:
    foreach: ${tasks}
    do:
      cmd: echo ${item.dataset} > ${key}.run
      deps: ["${item.dataset}.raw"]
      outs: ["${key}.run"]
  audit:
    cmd: echo 1 > audit.json
    outs: [audit.json]
  report:
    cmd: python report.py
    deps: [audit.json]
    params: [tasks]
    outs: [index.html]
"""
REPORT = f"""
import runpy, sys
from pathlib import Path
from types import SimpleNamespace
import yaml
sys.path[:0] = [{str(ROOT / "stages")!r}]
stage = runpy.run_path({str(ROOT / "stages/report.py")!r})
stage["drop_dead_entries"](SimpleNamespace(**yaml.safe_load(Path("params.yaml").read_text())))
Path("index.html").write_text("done")
"""


def dvc(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def locked() -> set[str]:
    return set(yaml.safe_load(Path("dvc.lock").read_text())["stages"])


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    dvc("init", "--no-scm")


def test_entries_of_a_task_leave_the_lock_while_dvc_runs(project):
    Path("dvc.yaml").write_text(PIPELINE)
    Path("report.py").write_text(REPORT)
    chosen = {
        "datasets": {"digits": {"kind": "a"}, "meld": {"kind": "b"}},
        "tasks": {"one": {"dataset": "digits"}, "two": {"dataset": "meld"}},
    }
    Path("params.yaml").write_text(yaml.safe_dump(chosen))
    dvc("repro")
    kept = {"download@digits", "train@one", "audit", "report"}
    assert locked() == kept | {"download@meld", "train@two"}
    before = yaml.safe_load(Path("dvc.lock").read_text())["stages"]

    chosen = {"datasets": {"digits": {"kind": "a"}}, "tasks": {"one": {"dataset": "digits"}}}
    Path("params.yaml").write_text(yaml.safe_dump(chosen))
    dvc("repro")
    assert locked() == kept
    after = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    assert all(after[name] == before[name] for name in kept - {"report"})
    assert "Running stage" not in dvc("repro")


def test_living_entries_are_the_stages_that_dvc_lists(project):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "stages")
        stage = runpy.run_path(str(ROOT / "stages/report.py"))
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    for profile in ("twin", "open", "paper"):
        shutil.copy(ROOT / f"profiles/{profile}.yaml", "params.yaml")
        listed = set(dvc("stage", "list", "--name-only").split())
        entries = {name: {"cmd": "true"} for name in (*listed, "train@gone")}
        Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}))
        stage["drop_dead_entries"](params.load())
        assert locked() == listed, profile
