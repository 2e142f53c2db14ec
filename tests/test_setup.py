"""`make setup` installs the same packages everywhere, but for the build of FAISS."""

import os
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ibma.report import page

ROOT = Path(__file__).parent.parent
GPU, CPU = ROOT / "requirements.txt", ROOT / "requirements-cpu.txt"


def test_the_two_files_differ_in_the_build_of_faiss_alone():
    lines = [file.read_text().splitlines() for file in (GPU, CPU)]
    ((gpu, cpu),) = [pair for pair in zip(*lines, strict=True) if pair[0] != pair[1]]
    assert gpu.startswith("faiss-gpu==") and cpu == gpu.replace("faiss-gpu", "faiss-cpu")


def test_every_version_is_fixed_and_nothing_that_the_package_asks_for_is_missing():
    lines = [line for line in GPU.read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in lines)
    names = [Requirement(line).name.lower() for line in lines]
    assert len(names) == len(set(names))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {Requirement(line).name.lower() for line in project["dependencies"]}
    assert asked <= set(names)


def installs(tmp_path: Path, driver: bool, installed: str = "", *arguments: str) -> str:
    """Return the requirements file that `make setup` would install; empty for none."""
    fake = tmp_path / "bin/nvidia-smi"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f"#!/bin/sh\nexit {0 if driver else 9}\n")
    fake.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", GPU.name, CPU.name):
        (tmp_path / name).write_text((ROOT / name).read_text())
    if installed:
        (tmp_path / ".venv").mkdir(exist_ok=True)
        (tmp_path / ".venv/.ready").write_text(f"{installed}\n")
    done = subprocess.run(
        ["make", "-n", "setup", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return next((line.split()[-1] for line in done.stdout.splitlines() if " -r " in line), "")


@pytest.mark.parametrize(
    ("driver", "installed", "arguments", "expected"),
    [
        (True, "", (), GPU.name),
        (False, "", (), CPU.name),
        (False, "", (f"REQUIREMENTS={GPU.name}",), GPU.name),
        (False, GPU.name, (), ""),  # what was forced once stays
        (False, GPU.name, (f"REQUIREMENTS={CPU.name}",), CPU.name),
    ],
)
def test_a_machine_without_a_driver_is_spared_cuda(
    tmp_path, driver, installed, arguments, expected
):
    assert installs(tmp_path, driver, installed, *arguments) == expected


@pytest.mark.parametrize("build", ["faiss-gpu", "faiss-cpu"])
def test_a_report_names_the_build_of_faiss_that_is_installed(monkeypatch, build):
    def version(name: str) -> str:
        if name.startswith("faiss") and name != build:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(page, "version", version)
    assert [name for name in page._versions() if "faiss" in name] == [f"{build} 1"]
