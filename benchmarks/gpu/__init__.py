"""Measure on a GPU what the paper and the README claim: `python -m benchmarks.gpu`.

It needs torch, transformers, numpy, scipy, scikit-learn and pytest, no network and no data. What
else is missing costs one line. Records of real GPUs are committed in this folder; `ibma plan` and
docs/performance.md read them.
"""
