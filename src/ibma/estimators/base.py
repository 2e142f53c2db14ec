"""Import what the estimators take from scikit-learn, without loading all of scipy.stats.

scipy.stats takes more than half of the time of scikit-learn's own import, for one function that no
estimator of ours calls (`sklearn.utils.fixes._mode`, scikit-learn@1.9.1).
"""

from __future__ import annotations

import sys
from types import ModuleType

STATISTICS = "scipy.stats"


def _load() -> None:
    """Import scikit-learn's base while an empty module stands for scipy.stats.

    Nobody keeps the empty module: scipy imports a part of itself when it is first asked for. Where
    a release of scikit-learn needs scipy.stats at once, the imports below load both.
    """
    if STATISTICS in sys.modules:
        return
    sys.modules[STATISTICS] = ModuleType(STATISTICS)
    try:
        import sklearn.base  # noqa: F401
    except ImportError:
        pass
    finally:
        del sys.modules[STATISTICS]


_load()

from sklearn.base import (  # noqa: E402
    BaseEstimator,
    ClassifierMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_random_state, column_or_1d  # noqa: E402
from sklearn.utils.class_weight import compute_class_weight  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import check_array, check_is_fitted, validate_data  # noqa: E402

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "RegressorMixin",
    "Tags",
    "TransformerMixin",
    "check_array",
    "check_classification_targets",
    "check_is_fitted",
    "check_random_state",
    "column_or_1d",
    "compute_class_weight",
    "validate_data",
]
