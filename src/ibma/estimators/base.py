"""Keep scikit-learn's conventions for estimators, and load scikit-learn only when one is used.

scikit-learn asks an estimator for methods, not for a base class: its `check_estimator` passes on
what stands here (scikit-learn@1.9.1). Its base classes load scipy.stats, scipy.optimize and more,
which takes ten times as long as all of ours.
"""

from __future__ import annotations

import warnings
from inspect import signature
from typing import TYPE_CHECKING, Any, Self

from ibma import __version__
from ibma.estimators.loss import BadArgument

if TYPE_CHECKING:
    from sklearn.utils import Tags
    from sklearn.utils.metadata_routing import MetadataRequest

METADATA = {"fit": "groups", "transform": "of", "score": "sample_weight"}  # method -> its argument


class Conventions:
    """What scikit-learn's tools ask of an estimator; its parameters are those of `__init__`."""

    # what a subclass defines
    fit: Any
    transform: Any
    predict: Any
    classes_: Any  # of a classifier
    bins_: Any  # of a regressor

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return name -> value of the parameters; none is an estimator, so `deep` adds nothing."""
        return {name: getattr(self, name) for name in sorted(signature(type(self)).parameters)}

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Raises:
            BadArgument: there is no such parameter; none is set then.
        """
        known = self.get_params()
        for name in params:
            if name not in known:
                raise BadArgument(
                    f"{type(self).__name__} has no parameter '{name}': expected one of "
                    f"{', '.join(known)}"
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit_transform(self, X: Any, y: Any, *, groups: Any = None) -> Any:
        """Train, and return the fused representations of the same samples, [n, D]."""
        return self.fit(X, y, groups=groups).transform(X)

    def __repr__(self) -> str:
        """Return the call that makes this estimator, without what has its default value."""
        defaults = {name: each.default for name, each in signature(type(self)).parameters.items()}
        shown = ", ".join(
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name])
        )
        return f"{type(self).__name__}({shown})"

    def _repr_html_(self) -> str | None:
        """Return the box that a notebook shows, or None where scikit-learn is set to show text."""
        from sklearn import get_config
        from sklearn.utils import estimator_html_repr

        return estimator_html_repr(self) if get_config()["display"] == "diagram" else None

    def __sklearn_tags__(self) -> Tags:
        """Return what scikit-learn wants to know; a transformation has the network's own type."""
        from sklearn.utils import Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=True),
            transformer_tags=TransformerTags(preserves_dtype=[]),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled or copied, with the version of this package."""
        return vars(self) | {"ibma": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what was pickled; warn, as scikit-learn does, if another version did it."""
        before = state.pop("ibma", "another version")
        if before != __version__:
            warnings.warn(
                f"pickled by ibma {before}, read by {__version__}: it may fail or predict "
                "otherwise: fit it again, or use `save` and `load`",
                stacklevel=2,
            )
        self.__dict__.update(state)

    # --- metadata routing ------------------------------------------------------------------------

    def get_metadata_routing(self) -> MetadataRequest:
        """Return which arguments besides X and y the methods take, and which were asked for."""
        from sklearn.utils.metadata_routing import MetadataRequest, get_routing_for_object

        if hasattr(self, "_metadata_request"):
            return get_routing_for_object(self._metadata_request)  # a copy
        request = MetadataRequest(owner=self)
        for method, name in METADATA.items():
            getattr(request, method).add_request(param=name, alias=None)
        return request

    def set_fit_request(self, *, groups: bool | str | None) -> Self:
        """Say whether, or under which name, a meta-estimator hands `groups` to `fit`."""
        return self._ask("fit", groups)

    def set_transform_request(self, *, of: bool | str | None) -> Self:
        """Say whether, or under which name, a meta-estimator hands `of` to `transform`."""
        return self._ask("transform", of)

    def set_score_request(self, *, sample_weight: bool | str | None) -> Self:
        """Say whether, or under which name, a meta-estimator hands weights to `score`."""
        return self._ask("score", sample_weight)

    def _ask(self, method: str, alias: bool | str | None) -> Self:
        from sklearn import get_config

        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                f"set_{method}_request does nothing without metadata routing: call "
                "sklearn.set_config(enable_metadata_routing=True) first"
            )
        request = self.get_metadata_routing()
        getattr(request, method).add_request(param=METADATA[method], alias=alias)
        self._metadata_request = request
        return self


class Classifier(Conventions):
    """What scikit-learn asks of a classifier besides."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; of several labels, the share of samples with all of them right."""
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Tags:
        """Say that this is a classifier."""
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        return tags


class Regressor(Conventions):
    """What scikit-learn asks of a regressor besides."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R², the share of the variance that is explained."""
        from sklearn.metrics import r2_score

        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Tags:
        """Say that this is a regressor."""
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags
