"""The walls of the house: one-way imports, separate rooms, thin scripts, cheap imports."""

import ast
import re
from pathlib import Path

from conftest import fresh

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ibma"
SCRIPTS = sorted(set((ROOT / "stages").glob("*.py")) - {ROOT / "stages/checkout.py"})

# a module may import what comes before it, never what comes after
LAYERS = (
    *("errors", "paths", "files", "machine", "params", "engine", "pretrained"),
    *("formats", "datasets", "twins", "fetch", "features", "tables"),
    *("network", "methods", "training", "experiments", "estimators"),
    *("paper", "results", "report", "evidence"),
    *("tracking", "plan", "commands", "cli", "__main__"),
)
ON_TOP = {
    "__init__",
    "errors",
    "paths",
    "files",
    "machine",
    "params",
    "engine",
    "pretrained",
    "fetch",
} | {*("plan", "cli", "__main__")}
# files of these rooms do not know each other, but for those that all of a room may use
SEPARATE = {"datasets": set(), "twins": {"video_writer", "radiographs"}, "methods": {"ibma"}}
KNOWS_NOTHING_OF = {"paper": {"results", "training", "experiments"}}
HEAVY = {"transformers", "mlflow", "matplotlib", "sklearn", "scipy", "pandas", "statsmodels", "av"}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports(file: Path, types: bool = True) -> set[str]:
    """Modules of ibma that a file names anywhere, imports inside functions included.

    types: also those that only a type checker reads.
    """
    found: set[str] = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
            node.body = []
    for node in ast.walk(tree):
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


def test_imports_run_one_way():
    for module in filter(layer, MODULES):
        assert layer(module) in LAYERS, f"{module}: give it a place in LAYERS"
        allowed = LAYERS[: LAYERS.index(layer(module)) + 1]
        for other in imports(MODULES[module]) - {"ibma"}:
            assert layer(other) in allowed, f"{module} imports {other}, which lies above it"


def test_files_do_not_import_each_other_in_a_circle():
    """Layers allow files of one room to meet; a circle among those is still refused."""
    graph = {
        name: imports(file, types=False) & set(MODULES) - {name} for name, file in MODULES.items()
    }
    settled: set[str] = set()
    while ready := {name for name in graph if name not in settled and graph[name] <= settled}:
        settled |= ready
    assert settled == set(graph), f"in or behind a circle: {sorted(set(graph) - settled)}"


def test_files_of_a_room_do_not_know_each_other():
    for room, shared in SEPARATE.items():
        prefix = f"ibma.{room}."
        known = {f"{prefix}{name}" for name in shared}
        for name in (name for name in MODULES if name.startswith(prefix)):
            if any(name == one or name.startswith(f"{one}.") for one in known):
                continue
            others = {other for other in imports(MODULES[name]) if other.startswith(prefix)}
            assert not others - {name} - known, f"{name} imports {others}"


def test_the_paper_knows_nothing_of_our_results():
    for room, unknown in KNOWS_NOTHING_OF.items():
        for name in (name for name in MODULES if layer(name) == room):
            assert not {layer(other) for other in imports(MODULES[name])} & unknown, name


def test_nothing_else_lies_on_top_of_the_package():
    assert {path.stem for path in PACKAGE.glob("*.py")} == ON_TOP


def test_only_paths_names_folders():
    """A path that starts like a folder of the project stands in paths.py alone."""
    folder = re.compile(r"^(data|runs|models|reports|logs)(/|$)")
    for name, file in MODULES.items():
        if name == "ibma.paths" or layer(name) in ("datasets", "formats", "twins"):
            continue  # those name folders of publishers
        tree = ast.parse(file.read_text(encoding="utf-8"))
        joined = [
            n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)
        ]
        parts = {id(side) for n in joined for side in (n.left, n.right)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                part_of_path = id(node) in parts or "/" in node.value
                spelled = part_of_path and folder.match(node.value)
                assert not spelled, f"{name}: line {node.lineno}: '{node.value}'"


def test_a_script_is_thin_and_uses_the_package_only():
    assert SCRIPTS
    stems = {script.stem for script in SCRIPTS}
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 45, script.name
        for node in ast.walk(ast.parse(text)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in stems | {"stages"}, f"{script.name}: {name}"


def test_no_module_is_called_utils():
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert not [name for name in MODULES if name.split(".")[-1] in vague]


def test_importing_stays_cheap():
    """Every stage pays for these imports; heavy libraries load where they are used."""
    modules = "ibma.training.run, ibma.experiments.runs, ibma.experiments.tune, ibma.cli"
    loaded = fresh(f"import sys, {modules}; print(*sys.modules)").split()
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


def test_a_report_and_a_plan_check_keys_without_torch():
    fresh("import sys, ibma.training.cell, ibma.cli; assert 'torch' not in sys.modules")
