"""dvc.yaml declares what a stage depends on: all of it, and nothing else.

Every stage runs on a tiny project; `traced.py` notes which files it reads and which keys of
params.yaml. What a stage may use without listing it stands below, with the reason.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import reduce
from operator import attrgetter
from pathlib import Path

import own_data
import pytest
import yaml
from conftest import digits

from ibma import params
from ibma.training import record

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
METHODS = {"train", "train_ibma", "ablation", "bounds"}
STUDIES = {"sensitivity", "regimes", "noise"}

# --- what a stage uses and does not list ---------------------------------------------------------

HOW = {  # code that finds, reads, checks and reports, and changes nothing that a stage writes
    *("stages/checkout.py", "src/ibma/__init__.py", "src/ibma/engine.py", "src/ibma/errors.py"),
    *("src/ibma/files.py", "src/ibma/machine.py", "src/ibma/params.py", "src/ibma/paths.py"),
    *("src/ibma/pretrained.py", "src/ibma/formats", "src/ibma/datasets/__init__.py"),
    *("src/ibma/experiments/__init__.py", "src/ibma/experiments/progress.py"),
    *("src/ibma/features/__init__.py", "src/ibma/features/meta.py"),
    "src/ibma/network/__init__.py",
}
READERS = {"src/ibma/datasets", "src/ibma/tables", "src/ibma/twins", "src/ibma/fetch.py"}
MIRROR = {"tracking", "results", "tables", "features/samples.py"}  # copies runs into MLflow
CODE = {
    "extract": READERS,  # manifests hold digests of readers
    "gradcam": READERS,
    "track": {*READERS, "src/ibma/features"},  # kinds of modalities, which data/features holds, too
    "report": {"src/ibma/features/samples.py"},  # loaded with src/ibma/tables
    **dict.fromkeys(METHODS | STUDIES, {f"src/ibma/{name}" for name in MIRROR}),
}
KEYS = {
    "extract": {"tables"},  # manifests hold digests of tables
    "gradcam": {"tables"},
    "track": {"tables"},
    "significance": STUDIES,  # it compares none of their records
    "centroids": {"profile", "device", "tune", *METHODS},  # of a cell, whatever its method
    "logistic": {"tasks"},  # to refuse a name that is none
    "timing": {"profile"},  # of a cell
    "train": {"eta", *STUDIES},  # Params refuses methods that read eta here
    **dict.fromkeys(METHODS - {"train"}, STUDIES),  # Params reads all to find one
    "noise": {"keep_weights", *STUDIES},  # of studies no network is kept
    **dict.fromkeys(STUDIES - {"noise"}, {"keep_weights", "eta", *STUDIES}),  # eta is noise's
}
# Choices of stage tune and keys of records hold digests of these: where they change, so does what
# a stage reads that depends on either. A stage over all tasks and methods sees which there are.
DIGESTED_CODE = {f"src/ibma/{name}" for name in (*record.SHARED_CODE, "methods")}
DIGESTED_KEYS = {"device", "instructions", "threads", "training", "tune"}
OVER_ALL = {"significance", "track", "report"}
NO_FILES_OF_THE_PIPELINE = (  # raw data, for which manifests stand, and finished runs among them
    *("data/raw", "data/store", "data/scratch", "clinic.csv", "pictures", "params.yaml"),
    *("dvc.yaml", "dvc.lock", "mlflow.db", "mlflow.db.lock", "mlartifacts", "mlruns"),
)
STANDING = {"data/manifests"}  # a dep of who reads raw data


def digests(deps: set[str]) -> bool:
    """Return whether a stage reads choices or records."""
    return "runs" in deps or any(dep.startswith("data/tune") for dep in deps)


def may_load(stage: str, deps: set[str]) -> set[str]:
    """Return which files and folders of code a stage may use: those it lists, and the above."""
    # every cell loads it; keys of records hold a digest of it, choices do not
    noise = set() if stage == "noise" else {"src/ibma/features/noise.py"}
    return deps | HOW | noise | CODE.get(stage, set()) | (DIGESTED_CODE if digests(deps) else set())


def may_ask(stage: str, deps: set[str], listed: set[str]) -> set[str]:
    """Return which keys of params.yaml a stage may read: those it lists, and the above."""
    keys = listed | {"engine"} | KEYS.get(stage, set())
    if digests(deps):
        keys |= DIGESTED_KEYS | (set() if stage in OVER_ALL else {"tasks", *METHODS})
    return keys | ({"eta"} if "runs" in deps else set())


# --- a tiny project ------------------------------------------------------------------------------


def inner(name: str) -> dict:
    """Return what a stage does, for one key of its foreach if it has one."""
    return STAGES[name].get("do", STAGES[name])


def values() -> dict:
    """A profile of the digits, of a table with pictures, and of a twin that nothing reads."""
    made = digits() | {"seeds": 1}
    made["datasets"]["chexpert"] = {"source": "twin"}
    made["tables"] = {"clinic": own_data.spec().as_dict()}
    made["tasks"]["clinic"] = {
        "dataset": "clinic",
        "batch_size": 8,
        "features": {"pic": {"size": 16}, "Hx": {"max_length": 8, "vocab_size": 64}},
        "encoders": {
            "pic": {"name": "resnet", "hidden_sizes": [8], "depths": [1], "embedding_size": 4},
            "Hx": {"name": "bert", "vocab_size": 64, "max_length": 8, "hidden_size": 16}
            | {"layers": 1, "heads": 2},
        },
    }
    made["gradcam"]["tasks"] = {"clinic": "pic"}
    made["ablation"] = {"ce3": {}, "ibma_no_align": {"method": "ibma", "align": False}}
    made["bounds"] = {"ibma_vib": {"method": "ibma", "bound": "vib"}}
    made["training"]["epochs"] = 2
    made["tune"]["grid"] |= {"weight_decay": [1e-5], "weight_factor": [1], "eta": [0.5]}
    return made


def calls(one: params.Params) -> list[tuple[str, str]]:
    """List every stage with a key of its foreach; the table's task is for Grad-CAM alone."""
    found = []
    for name, stage in STAGES.items():
        block = stage.get("foreach", "").strip("${}")
        keys = list(attrgetter(block)(one)) if block else [""]
        needed = ("tables", "extract", "centroids", "tune", "train_ibma")
        found += [(name, key) for key in keys if key != "clinic" or name in needed]
    return found


def filled(text: str, key: str, made: dict) -> str:
    """Fill in a text of dvc.yaml as DVC does."""
    known = made | {"key": key, "item": made["tasks"].get(key)}
    text = text.replace("${item}", key)
    dotted = re.compile(r"\$\{([\w.]+)\}")
    return dotted.sub(lambda one: str(reduce(dict.get, one[1].split("."), known)), text)


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> dict[tuple[str, str], dict[str, set[str]]]:
    """What each stage read, wrote and asked, by stage and key."""
    root, logs = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("logs")
    (root / "params.yaml").write_text(yaml.safe_dump(values(), sort_keys=False))
    shutil.copy(ROOT / "dvc.yaml", root)
    own_data.write(root, own_data.rows())
    elsewhere = ("IBMA_STORE", "MLFLOW_TRACKING_URI")  # of who runs the tests
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere}
    environment["PYTHONPATH"] = str(ROOT / "src")
    found = {}
    for name, key in calls(params.load(root / "params.yaml")):
        log, script = logs / f"{name}_{key}", ROOT / f"stages/{name}.py"
        command = [sys.executable, ROOT / "tests/traced.py", log, script, *filter(None, [key])]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{name} {key}\n{done.stderr[-4000:]}"
        found[name, key] = _of(log, root)
    return found


def _of(log: Path, root: Path) -> dict[str, set[str]]:
    """Read a log: paths below the project, or below this repository for code.

    A hidden name is a lock, or what is not whole yet.
    """
    found: dict[str, set[str]] = {"code": set(), "read": set(), "written": set(), "key": set()}
    for line in set(log.read_text().splitlines()):
        what, _, name = line.partition(" ")
        path = Path(name)
        if what == "key":
            found["key"].add(name)
        elif path.is_relative_to(root) and "/." not in path.relative_to(root.parent).as_posix():
            found[what].add(path.relative_to(root).as_posix())
        elif any(path.is_relative_to(ROOT / folder) for folder in ("src/ibma", "stages")):
            found["code"] |= {path.relative_to(ROOT).as_posix()} if path.suffix else set()
    return found


def below(path: str, places: set[str]) -> bool:
    return any(Path(path).is_relative_to(place) for place in places)


def declared(name: str, key: str) -> tuple[set[str], set[str], set[str]]:
    """Return deps, outs and keys of params.yaml of a stage as dvc.yaml says."""
    stage, made = inner(name), values()
    outs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
    outs += [next(iter(out)) for out in stage.get("metrics", ())]
    keys = {each.partition(".")[0] for each in stage.get("params", ())}
    deps, outs = ({filled(each, key, made) for each in some} for some in (stage["deps"], outs))
    return deps, outs, keys


def unlisted(name: str, key: str, seen: dict[str, set[str]]) -> set[str]:
    """Return what a stage reads, writes and asks for that dvc.yaml does not list."""
    deps, outs, keys = declared(name, key)
    always = inner(name).get("always_changed")
    code = set() if always else {x for x in seen["code"] if not below(x, may_load(name, deps))}
    folders = {str(parent) for out in outs for parent in Path(out).parents}  # swept before a write
    known = {*outs, *NO_FILES_OF_THE_PIPELINE}
    read = {path for path in seen["read"] - folders if not below(path, known | deps)}
    written = {path for path in seen["written"] if not below(path, known)}
    return code | read | written | (seen["key"] - may_ask(name, deps, keys))


def needless(name: str, key: str, seen: dict[str, set[str]]) -> set[str]:
    """Return what dvc.yaml lists of a stage that it does not use."""
    deps, _, keys = declared(name, key)
    places = seen["code"] | seen["read"]
    unused = {dep for dep in deps - STANDING if not any(below(path, {dep}) for path in places)}
    return unused | (keys - seen["key"])


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_the_code_the_files_and_the_keys_that_it_uses_and_no_others(used, name):
    seen = {key: each for (stage, key), each in used.items() if stage == name}
    assert not set.union(*(unlisted(name, key, each) for key, each in seen.items()))
    assert not set.intersection(*(needless(name, key, each) for key, each in seen.items()))


# --- what can be said without running anything ---------------------------------------------------


def test_a_stage_is_a_script_and_where_it_has_parameters_a_block_of_the_same_word():
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"checkout"}
    assert scripts == set(STAGES)
    blocks = set(params.Params.model_fields)
    for name in STAGES:
        assert f"stages/{name}.py" in inner(name)["deps"]
        assert inner(name)["cmd"].startswith(f"python stages/{name}.py")
        own = {each.partition(".")[0] for each in inner(name).get("params", ())}
        assert own <= blocks
        assert (name in own) == (name in blocks), name


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_profile_has_every_key_that_dvc_yaml_reads(path):
    """One that is missing stops `dvc repro` before its first stage."""
    asked = set(re.findall(r"\$\{([\w.]+)\}", (ROOT / "dvc.yaml").read_text()))
    profile = yaml.safe_load(path.read_text())
    assert {"tables", "tasks", "sensitivity.task"} <= asked
    for name in asked - {"key", "item", "item.dataset"}:
        reduce(lambda block, key: block[key], name.split("."), profile)
    for stage in STAGES:
        for name in inner(stage).get("params", ()):
            if "${" not in name:
                reduce(lambda block, key: block[key], name.split("."), profile)


def test_an_eta_of_its_own_does_not_make_baselines_stale():
    readers = {name for name in STAGES if "eta" in inner(name).get("params", ())}
    assert not readers & {"tune", "train", "timing", "sensitivity", "regimes"}


def test_what_trains_reads_a_choice_and_does_not_list_the_code_that_it_digests():
    """Else a change of that code would be told twice, and stages would list it by the dozen."""
    for name in METHODS | STUDIES:
        deps = set(inner(name)["deps"])
        assert digests(deps) and not DIGESTED_CODE & deps, name


def test_no_output_persists_and_all_but_the_committed_report_is_cached():
    for name in STAGES:
        for out in inner(name)["outs"]:
            if isinstance(out, dict):
                assert name == "report" and list(out.values()) == [{"cache": False}]
