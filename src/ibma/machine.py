"""Say which part of this machine's processor results may use: its instructions and its cores."""

from __future__ import annotations

import os
import platform

# Libraries choose their code by processor, and rounding with it. These switches hold them to what
# every x86-64 processor since 2015 has. Not MKL's functions of vectors: docs/reliability.md.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "FAISS_SIMD_LEVEL": "AVX2",
}


def hold_to(instructions: str) -> None:
    """Hold the libraries that this process loads from now on to portable or native instructions."""
    if instructions == "portable" and platform.machine() in ("x86_64", "AMD64"):
        # some machines set this one: other kernels of OpenBLAS fail there
        kept = {"OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", "Haswell")}
        os.environ.update(PORTABLE | kept)


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
