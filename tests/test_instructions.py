"""Portable instructions give the same bytes whatever else a processor can do."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import fresh

from ibma.machine import PORTABLE

ROOT = Path(__file__).parent.parent
TRAIN = """
import hashlib
import faiss, numpy as np, torch
from sklearn.linear_model import LogisticRegression
from ibma.network import encoders
from ibma.training.loop import configure_torch

configure_torch(1, compiled=False)
rng = np.random.default_rng(0)
pictures = torch.from_numpy(rng.integers(0, 256, (16, 3, 16, 16), dtype=np.uint8))
sound = torch.from_numpy(np.log(rng.random((16, 16, 24), dtype=np.float32) + 1e-3))
words = torch.from_numpy(rng.integers(1, 50, (16, 8), dtype=np.int32))
vectors = torch.from_numpy(np.exp(rng.normal(size=(16, 40))).astype(np.float32))
small = {"hidden_sizes": [8, 16], "embedding_size": 8, "depths": [1, 1]}
block = {"hidden_size": 16, "layers": 1, "heads": 2}
kinds = {
    "resnet": ({"name": "resnet", "channels": 1, **small}, "audio", sound),
    "vit": ({"name": "vit", "size": 16, "patch_size": 8, **block}, "image", pictures),
    "bert": ({"name": "bert", "vocab_size": 50, "max_length": 8, **block}, "text", words),
    "mlp": ({"name": "mlp", "hidden": [32]}, "vector", vectors),
}
for name, (config, kind, x) in kinds.items():
    torch.manual_seed(0)
    network = encoders.build(config, kind=kind, shape=tuple(x.shape[1:]), width=64)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(5):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), torch.arange(16) % 4).backward()
        optimiser.step()
    weights = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    print(name, hashlib.sha256(weights).hexdigest())
distances = faiss.pairwise_distances(vectors.numpy(), vectors.numpy()[:4])
judge = LogisticRegression().fit(vectors.numpy().astype(float), np.arange(16) % 2)
print("faiss", hashlib.sha256(distances.tobytes()).hexdigest())
print("sklearn", hashlib.sha256(judge.coef_.tobytes()).hexdigest())
"""
# what an older processor would not have; each library is told by its own means
HELD_BACK = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def train(**switches: str) -> dict[str, str]:
    """Train a network of each encoder kind; return digests of what came out."""
    environment = {k: v for k, v in os.environ.items() if k not in PORTABLE} | switches
    environment["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the switches are those of x86-64")
def test_every_kind_of_network_has_the_same_bytes_under_portable_instructions():
    portable = train(**PORTABLE)
    assert set(portable) == {"resnet", "vit", "bert", "mlp", "faiss", "sklearn"}
    assert train(**PORTABLE | HELD_BACK) == portable
    # and without the switches they differ, so that this test can fail
    other = train(**PORTABLE | {"ATEN_CPU_CAPABILITY": "default", "FAISS_SIMD_LEVEL": "NONE"})
    assert {name for name in portable if other[name] != portable[name]} >= {"vit", "bert", "faiss"}


def test_threads_are_those_of_params_whatever_the_environment_says():
    asked = (
        "from ibma.params import prepare; prepare(); import torch; print(torch.get_num_threads())"
    )
    assert fresh(asked, cwd=ROOT, OMP_NUM_THREADS="7") == "1\n", "threads: 1 of params.yaml"
