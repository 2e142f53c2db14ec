"""The walls of the house: import directions, separate rooms, thin doors, cheap imports."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ibma"
DOORS = sorted((ROOT / "stages").glob("*.py"))

# a module may import the modules before it, never one after it
LAYERS = (
    *("errors", "doors", "params", "jsonfile", "processes"),
    *("tabular", "archives", "checksums", "parallel"),
    *("expression", "sections", "mosi_utterances", "weights"),
    *("clips", "phantoms", "radiology"),
    *("datasets", "twins", "fetch", "media", "extract", "store"),
    *("encoders", "tasks", "bounds", "dependence", "centroids", "methods"),
    *("record", "train", "tune", "timing", "probe", "gradcam"),
    *("stats", "typeset", "published", "results", "significance", "audit", "tables"),
    *("real_data", "figures"),
    *("tracking", "report", "cells", "evidence", "verify", "retrain"),
    *("docs", "commit", "grid", "plan", "worker", "launch", "cli"),
)
SEPARATE = ("datasets", "twins", "methods")  # files of these packages do not know each other
HEAVY = {"transformers", "mlflow", "matplotlib", "sklearn", "scipy", "pandas", "statsmodels", "av"}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(file: Path) -> set[str]:
    """Modules of ibma that a file names anywhere, imports inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: line {node.lineno}: write the full module name"
            base = node.module or ""
            below = {f"{base}.{alias.name}" for alias in node.names}
            found |= (below & set(MODULES)) or {base}
    return {name for name in found if name.split(".")[0] == "ibma"}


def layer(module: str) -> str:
    """`ibma.methods.omib` lies in layer `methods`; the package itself in none."""
    return (module.split(".") + [""])[1]


@pytest.mark.parametrize("module", [name for name in MODULES if layer(name)])
def test_imports_run_one_way(module):
    assert layer(module) in LAYERS, f"{module}: give it a place in LAYERS"
    allowed = LAYERS[: LAYERS.index(layer(module)) + 1]
    for other in imports(MODULES[module]) - {"ibma"}:
        assert layer(other) in allowed, f"{module} imports {other}, which lies above it"


def test_no_circle():
    """Layers allow siblings of one package to meet; a circle among those is still refused."""
    graph = {name: imports(file) & set(MODULES) - {name} for name, file in MODULES.items()}
    settled: set[str] = set()
    while ready := {name for name in graph if name not in settled and graph[name] <= settled}:
        settled |= ready
    assert settled == set(graph), f"in or behind a circle: {sorted(set(graph) - settled)}"


@pytest.mark.parametrize("package", SEPARATE)
def test_files_of_a_package_do_not_know_each_other(package):
    prefix = f"ibma.{package}."
    for name in (name for name in MODULES if name.startswith(prefix)):
        others = {other for other in imports(MODULES[name]) if other.startswith(prefix)}
        assert not others - {name}, f"{name} imports {others}"


def test_there_are_doors():
    assert DOORS


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.stem)
def test_a_door_is_thin_and_opens_on_the_package_only(door):
    text = door.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 45
    stems = {other.stem for other in DOORS}
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] not in stems | {"stages"}, f"{door.name} imports {name}"


def test_no_module_is_called_utils():
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert not [name for name in MODULES if name.split(".")[-1] in vague]


@pytest.mark.parametrize("module", ["ibma.training.loop", "ibma.experiments.runs", "ibma.cli"])
def test_importing_stays_cheap(module):
    """Every cell pays for these imports; the heavy libraries load where they are used."""
    script = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & HEAVY
