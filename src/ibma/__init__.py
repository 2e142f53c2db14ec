"""IBMA: Information Bottleneck-Based Multimodal Alignment, reproduced.

`from ibma import IBBLoss, IBMAClassifier` loads torch; the first use of an estimator loads
scikit-learn.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "IBBLoss": "loss",
    "PluginIBLoss": "loss",
    "CLUBLoss": "loss",
    "VIBLoss": "loss",
    "IBMAClassifier": "estimator",
    "IBMAMultilabelClassifier": "estimator",
    "IBMARegressor": "estimator",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    """Import a public class when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ibma' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ibma.estimators.{_PUBLIC[name]}"), name)
