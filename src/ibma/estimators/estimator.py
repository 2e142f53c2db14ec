"""Use IBMA, or any method of this repository, as a scikit-learn estimator.

    clf = IBMAClassifier(method="ibma", eta="cv", random_state=0)
    clf.fit({"image": images, "text": texts}, y, groups=patients)
    clf.predict_proba(new)

Networks, losses and the training loop are those of the pipeline.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ibma import methods
from ibma.errors import IbmaError, one_line
from ibma.estimators import inputs, saved, seeds
from ibma.estimators.base import Classifier, Conventions, Regressor
from ibma.estimators.inputs import Reader
from ibma.estimators.loss import BadArgument, check_names
from ibma.estimators.parameters import check_types, native
from ibma.estimators.tasks import Bins, WeightedClassify, WeightedMultiLabel
from ibma.features.store import Features, Rows, TrainingSet
from ibma.network import tasks
from ibma.network.centroids import PHI, Assignment, InputAssignments, input_arrays
from ibma.network.method import FUSED, Method, Spec
from ibma.network.tasks import Task
from ibma.training import record
from ibma.training.cell import Setting
from ibma.training.loop import Fit, represent, same_bytes, select_device

if TYPE_CHECKING:
    from sklearn.utils import Tags

# parameter -> the least that it may be
COUNTS = {"epochs": 1, "batch_size": 2, "width": 1, "heads": 1, "n_iter_no_change": 1}
LARGEST = 1e100  # of targets: sums of larger ones are infinite
ETAS, ETA_FOLDS = (0.1, 0.5, 0.9), 3  # what eta="cv" chooses from, and on how many folds


@dataclass
class Problem:
    """What is trained on: features in memory, what is known of their inputs, and the task."""

    features: Features
    known: InputAssignments
    task: Task
    device: torch.device
    seed: int

    def rows(self, chosen: TrainingSet) -> TrainingSet:
        """Return rows whose batches carry what methods read."""
        return chosen.joined(self.known.tables(self.device))


@dataclass(eq=False, repr=False)  # compared and shown as scikit-learn has it
class Estimator(Conventions):
    """What the estimators share; use a subclass.

    A sample may lack modalities (None, or a row of NaN), but not all of them. The encoder, the
    fusion, the head and the bound of a modality leave out the samples that lack it, in `fit` and in
    `predict`. Methods with a fusion of their own read a zero vector.

    Attributes:
        encoders_: modality -> what it was taken for and what encodes it.
        eta_: weight of the bound; None for a method that has none.
        history_: loss term -> mean per epoch.
        network_: the trained network.
        params_: the parameters that it was trained with, in types of Python.
        record_key_: digest of settings, data and code, as the pipeline's records have it.
    """

    method: str = "ibma"
    _: KW_ONLY
    method_params: Mapping[str, Any] | None = None
    modalities: Mapping[str, Any] | None = None
    encoders: str | Mapping[str, Any] = "auto"
    eta: float | str = 0.5
    phi: str = "unit"
    beta: float = 1.0
    width: int = 64
    heads: int = 8
    epochs: int = 50
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-5
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    device: str = "auto"
    random_state: Any = None
    verbose: bool = False

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> Self:
        """Train a network; if that fails, the one before stays. Fits in threads take turns.

        Args:
            X: modality -> values (an array [n, d], pictures, texts, files), a data frame with
                `modalities`, or one array [n, d] that `modalities` splits by columns.
            y: targets, [n], or [n, C] of several labels.
            groups: of each sample, [n]; samples of a group stay together in the folds of eta="cv"
                and in the validation part of early stopping.

        Raises:
            BadArgument: a value that cannot be used, in one line; it is a ValueError.
        """
        learner = self._unfitted()
        with seeds.alone(), same_bytes():
            learner._learn(X, y, groups)
        self.__dict__ = vars(learner) | self.get_params()
        self.params_ = learner.get_params()
        return self

    def _unfitted(self) -> Self:
        """Return a copy that has learnt nothing, with parameters in types of Python."""
        made = copy.copy(self)
        made.__dict__ = {name: one for name, one in vars(self).items() if not name.endswith("_")}
        given = self.get_params()
        if not isinstance(self.random_state, Integral):  # a generator, of which the seed is kept
            del given["random_state"]
        return made.set_params(**{name: native(name, value) for name, value in given.items()})

    def _learn(self, X: Any, y: Any, groups: Any) -> None:
        """Train, and set what `fit` gives an estimator."""
        self._check_parameters()
        columns = self._columns(X, fit=True)
        n = inputs.count(columns)
        if y is None:
            who = type(self).__name__
            raise BadArgument(f"This {who} requires y to be passed, but the target y is None.")
        if n < 2:
            raise BadArgument(f"n_samples = {n}: expected two or more")
        if (isinstance(y, list | tuple) or getattr(y, "ndim", 0) == 1) and len(y) != n:
            raise BadArgument(f"y has {len(y)} entries, X has {n} samples")
        y = inputs.plain_array(y, "y") if isinstance(y, torch.Tensor) else y
        inputs.refuse_odd_labels(y)
        inputs.refuse_complex(y, "y")
        targets, task = self._targets(y)
        groups = inputs.groups(groups, self.early_stopping or self.eta == "cv")
        for what, given in (("y", targets), ("groups", groups)):
            if given is not None and len(given) != n:
                raise BadArgument(f"{what} has {len(given)} entries, X has {n} samples")
        self.readers_ = self._choose_readers(columns)
        for name, reader in self.readers_.items() if isinstance(X, Mapping) else ():
            reader.columns = inputs.names_of(X[name])
        features = self._features(columns, targets, groups, fit=True)
        problem = self._pose(features, task)
        self.eta_ = self._eta(problem)
        self._train(problem)
        self.record_key_ = self._key(problem)

    def transform(self, X: Any, of: str = FUSED) -> NDArray[np.float32]:
        """Return representations, [n, D].

        Args:
            of: "fused" or a modality; its rows mean nothing where a sample lacks it.

        Raises:
            BadArgument: `of` is none of these, or `X` is not as in `fit`.
            NotFittedError: `fit` was not called.
        """
        found = self._represent(X)
        if of not in found:
            known = ", ".join(name for name in found if name != "logits")
            raise BadArgument(f"of={of!r}: expected one of {known}")
        value: NDArray[np.float32] = found[of].flatten(1).numpy()
        return value

    def save(self, folder: str | Path) -> None:
        """Write the network (safetensors) and everything that predicting needs (JSON)."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        saved.write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """Read what `save` wrote, from wherever the folder lies now.

        Raises:
            BadArgument: the folder is incomplete, damaged, or of another estimator.
        """
        return saved.read(cls, Path(folder), device)

    # --- targets: what the subclasses define -----------------------------------------------------

    kind = "classify"  # how `features.store.label_tensor` reads targets

    def _fit_targets(self, y: Any) -> tuple[NDArray[np.float64], Task]:
        """Learn the targets; return them as stored labels [n, C], and the task they pose."""
        raise NotImplementedError

    def _targets(self, y: Any) -> tuple[NDArray[np.float64], Task]:
        """Learn the targets by `_fit_targets`, whose other errors become one of ours.

        Raises:
            BadArgument: scikit-learn or numpy cannot make numbers or classes of the targets.
        """
        try:
            return self._fit_targets(y)
        except BadArgument:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise BadArgument(f"y: {one_line(error)}") from None

    def _task(self, **weights: Any) -> Task:
        """Return the task of a fitted estimator; weights are needed only to train."""
        raise NotImplementedError

    # --- parameters ------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise BadArgument(f"{name}={value!r}: expected a whole number, {least} or more")
        for name in ("lr", "beta", "weight_decay"):
            value, zero = getattr(self, name), name == "weight_decay"
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not 0 <= float(value) < np.inf or not (value or zero):
                more = "0 or more" if zero else "above 0"
                raise BadArgument(f"{name}={value!r}: expected a number, {more}")
        if self.width % self.heads:
            raise BadArgument(f"width={self.width}: expected a multiple of heads ({self.heads})")
        if self.phi not in PHI:
            raise BadArgument(f"phi={self.phi!r}: expected {' or '.join(PHI)}")
        if self.eta != "cv" and not (isinstance(self.eta, Real) and 0 < float(self.eta) < 1):
            raise BadArgument(f"eta={self.eta!r}: expected 'cv' or a number above 0 and below 1")
        if self.encoders != "auto" and not isinstance(self.encoders, Mapping):
            raise BadArgument(f"encoders={self.encoders!r}: expected 'auto' or a dictionary")
        for name, one in {} if isinstance(self.encoders, str) else self.encoders.items():
            if one != "auto" and not isinstance(one, Mapping):
                raise BadArgument(f"encoders: '{name}' is {one!r}: expected 'auto' or a dictionary")
        share = self.validation_fraction
        if not isinstance(share, Real) or not 0 < float(share) <= 0.5:
            raise BadArgument(f"validation_fraction={share!r}: expected 0 to .5")
        if not isinstance(self.early_stopping, bool):
            raise BadArgument(f"early_stopping={self.early_stopping!r}: expected True or False")
        for name in ("modalities", "method_params"):
            if not isinstance(value := getattr(self, name), Mapping | None):
                raise BadArgument(f"{name}={value!r}: expected None or a dictionary")
        self._check_method_params()

    def _check_method_params(self) -> None:
        given = self.method_params or {}
        if odd := [name for name in given if not isinstance(name, str) or name == "spec"]:
            raise BadArgument(f"method_params: {odd[0]!r} is no parameter of a method")
        method = self._found(methods.find, self.method)
        for one in self._found(lambda: list(method.constructors(given))):
            where = f"method_params ({one.label})" if one.label else "method_params"
            check_types(one.function, one.arguments, where)

    def _seed(self) -> int:
        from sklearn.utils import check_random_state

        if isinstance(self.random_state, bool):
            raise BadArgument(f"random_state={self.random_state}: expected a number or None")
        if isinstance(self.random_state, int):
            check_random_state(self.random_state)
            return self.random_state
        return int(check_random_state(self.random_state).randint(2**31))

    # --- data ------------------------------------------------------------------------------------

    def _columns(self, X: Any, fit: bool) -> dict[str, Any]:
        """Split X into modalities; scikit-learn's own checks apply to arrays."""
        from scipy.sparse import issparse
        from sklearn.utils.validation import validate_data

        names = inputs.names_of(X)
        if fit:
            self.column_names_ = names
        if isinstance(X, Mapping) and not issparse(X):
            expected = tuple(self.modalities or X) if fit else tuple(self.readers_)
            self._check_names(X, expected)
            known = {} if fit else {name: one.columns for name, one in self.readers_.items()}
            found = {name: inputs.in_order(name, X[name], known.get(name, ())) for name in expected}
            return {name: inputs.positional(name, value) for name, value in found.items()}
        named = bool(names) and self._modalities(fit) is not None
        inputs.refuse_complex(X, "X")
        checks = {"ensure_all_finite": "allow-nan", "ensure_min_samples": 2 if fit else 1}
        checks = {"skip_check_array": True} if named else checks
        inputs.refuse_nameless(X)
        table = validate_data(self, inputs.unmasked(X), reset=fit, **checks)
        if (learnt := list(self.column_names_)) and names not in ([], learnt):  # numbers, too
            told = f"expected {', '.join(learnt)}, as in fit"
            raise BadArgument(f"X: columns {', '.join(names)}: {told}")
        found = inputs.split(table, self._modalities(fit))
        self._check_names(found, found if fit else self.readers_)
        return found

    def _modalities(self, fit: bool) -> Mapping[str, Any] | None:
        """Return how a table is split; `set_params` after a fit counts from the next fit on."""
        chosen: Mapping[str, Any] | None = self.modalities if fit else self.params_["modalities"]
        return chosen

    def _check_names(self, given: Mapping[str, Any], expected: Collection[str]) -> None:
        lacking = [name for name in expected if name not in given]
        if lacking or not expected:
            raise BadArgument(f"X lacks {', '.join(lacking) or 'modalities'}: it has {list(given)}")
        check_names(expected)

    def _choose_readers(self, columns: Mapping[str, Any]) -> dict[str, Reader]:
        wanted = {} if isinstance(self.encoders, str) else dict(self.encoders)
        unknown = [name for name in wanted if name not in columns]
        if unknown:
            raise BadArgument(f"encoders names {', '.join(unknown)}: X has {', '.join(columns)}")
        readers = {
            name: Reader.choose(name, values, wanted.get(name, "auto"))
            for name, values in columns.items()
        }
        self.encoders_ = {name: reader.describe() for name, reader in readers.items()}
        if self.verbose:
            print(f"encoders: {self.encoders_}")
        return readers

    def _features(
        self, columns: Mapping[str, Any], targets: NDArray[np.float64], groups: Any, fit: bool
    ) -> Features:
        """Read every modality into memory.

        Raises:
            BadArgument: a sample has no modality at all.
        """
        read = {
            name: reader.fit(columns[name]) if fit else reader.read(columns[name])
            for name, reader in self.readers_.items()
        }
        return inputs.gathered(self.readers_, read, self.kind, targets, groups)

    def _pose(self, features: Features, task: Task) -> Problem:
        """Put aside what early stopping watches, and learn what is known of the inputs."""
        self.seed_ = self._seed()
        if self.early_stopping:
            folds = _folds(features, max(2, round(1 / self.validation_fraction)))
            _, judge = next(features.training(0).hold_outs(folds, self.seed_))
            features.splits[judge.index] = "valid"
        configs = {name: reader.encoder for name, reader in self.readers_.items()}
        arrays = input_arrays(features, configs)
        known = InputAssignments.compute(features, task, configs, self._assignment(), 0, arrays)
        return Problem(features, known[0], task, self._select_device(), self.seed_)

    def _assignment(self) -> Assignment:
        return Assignment(float(self.beta), PHI[self.phi])

    def _select_device(self) -> torch.device:
        expected = f"device={self.device!r}: expected auto, cpu, or cuda with the number of a GPU"
        try:
            chosen: torch.device = self._found(select_device, self.device)
        except (RuntimeError, TypeError):  # torch's
            raise BadArgument(expected) from None
        gpus = torch.cuda.device_count() if chosen.type == "cuda" else 0
        if chosen.type != "cpu" and (chosen.index or 0) >= gpus:
            raise BadArgument(expected)
        return chosen

    # --- training --------------------------------------------------------------------------------

    def _eta(self, problem: Problem) -> float | None:
        """Return the weight of the bound; "cv" takes the lowest loss on held-out folds."""
        if not self._found(methods.find, self.method).reads_eta:
            return None
        if self.eta != "cv":
            return float(self.eta)
        losses = dict.fromkeys(ETAS, 0.0)
        folds = _folds(problem.features, ETA_FOLDS)
        for learn, judge in problem.features.training(0).hold_outs(folds, problem.seed):
            for eta in ETAS:
                fit = self._fit(problem, problem.rows(learn), eta)
                for _ in self._walk(fit):
                    pass
                losses[eta] += self._loss(problem, fit.model, judge)
        if self.verbose:
            print(f"eta: {losses}")
        return min(losses, key=lambda eta: losses[eta])

    def _train(self, problem: Problem) -> None:
        """Train to the last epoch, or until the validation loss has stopped falling."""
        valid = np.flatnonzero(problem.features.splits == "valid")
        fit = self._fit(problem, problem.rows(problem.features.training(0)), self.eta_)
        best, state, since = np.inf, None, 0
        for terms in self._walk(fit):
            told = f"epoch {fit.epoch}: loss {sum(terms.values()):.4f}"
            if len(valid):
                loss = self._loss(problem, fit.model, Rows(problem.features, valid))
                told += f", validation {loss:.4f}"
                best, since = (loss, 0) if loss < best else (best, since + 1)
                if since == 0:
                    state = copy.deepcopy(fit.model.state_dict())
            if self.verbose:
                print(told)
            if since >= self.n_iter_no_change:
                break
        if state is not None:
            fit.model.load_state_dict(state)
        fit.refresh()  # centroids and Q of the final network, as the pipeline does
        self.network_, self.history_, self.n_epochs_ = fit.model, fit.history, fit.epoch

    def _walk(self, fit: Fit) -> Iterator[dict[str, float]]:
        """Train; yield the loss terms of each epoch."""
        try:
            yield from fit.walk(type(self).__name__)
        except IbmaError as error:  # a term that is no number
            told, _, _ = str(error).partition(": lower ")
            raise BadArgument(f"{told}: lower lr, or scale your numbers") from None

    def _fit(self, problem: Problem, rows: TrainingSet, eta: float | None) -> Fit:
        if len(rows) < 2:
            raise BadArgument(f"{len(rows)} of the samples are left to train on: expected two")
        setting = Setting(float(self.lr), float(self.weight_decay), eta)
        spec = Spec.of(
            problem.features,
            problem.known,
            lambda name: self.readers_[name].encoder,
            task=problem.task,
            width=self.width,
            heads=self.heads,
            epochs=self.epochs,
            assignment=self._assignment(),
            eta=eta,
        )
        return Fit(
            self._build(spec, problem.seed).to(problem.device),
            rows,
            setting,
            seed=problem.seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            device=problem.device,
            quiet=True,
        )

    def _build(self, spec: Spec, seed: int) -> Method:
        torch.manual_seed(seed)
        built: Method = self._found(methods.build, self.method, spec, **(self.method_params or {}))
        return built

    def _found(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline; its errors speak of params.yaml, which is not in play here."""
        try:
            return function(*args, **kwargs)
        except IbmaError as error:
            raise BadArgument(str(error).removeprefix("params.yaml: ")) from None

    def _loss(self, problem: Problem, model: Method, judge: Rows) -> float:
        logits = represent(model, judge, problem.device)["logits"]
        return float(problem.task.loss(logits, judge.labels()))

    def _key(self, problem: Problem) -> str:
        """Return a digest of what determines the network."""
        data = hashlib.sha256(problem.features.labels.tobytes())
        for name, array in problem.features.arrays.items():
            data.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return record.key_of(
            {
                "estimator": saved.plain(self.get_params()),
                "encoders": self.encoders_,
                "setting": [self.lr, self.weight_decay, self.eta_],
                "seed": problem.seed,
                "features": data.hexdigest(),
                "environment": [problem.device.type, torch.get_num_threads(), torch.__version__],
                "code": record.code_digest(self.method),
            }
        )

    # --- prediction ------------------------------------------------------------------------------

    def _represent(self, X: Any) -> dict[str, torch.Tensor]:
        """Return logits and representations of samples, on the CPU.

        Raises:
            BadArgument: a logit is not finite; no loss was computed after the last step of `fit`.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        seeds.refuse_other_type()
        columns = self._columns(X, fit=False)
        outputs = 1 if self.kind == "classify" else len(self.network_.spec.task.classes)
        targets = np.zeros((inputs.count(columns), outputs))
        features = self._features(columns, targets, None, fit=False)
        device = next(self.network_.parameters()).device
        found = represent(self.network_, features.everything(), device)
        if not found["logits"].isfinite().all():
            raise BadArgument("predictions are no numbers: lower lr, or scale your numbers")
        return found

    def _probabilities(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities of class systems, [n, G, K]."""
        logits = self._represent(X)["logits"].double()
        found: NDArray[np.float64] = self.network_.spec.task.log_probabilities(logits).exp().numpy()
        return found


def _folds(features: Features, wanted: int) -> int:
    """Return how many folds can hold something out: at most the samples of the largest class.

    Raises:
        BadArgument: no two samples have the same label.
    """
    _, sizes = np.unique(features.labels, axis=0, return_counts=True)
    if sizes.max() < 2:
        raise BadArgument(
            "y: no two samples have the same label: expected two, to hold one out for eta='cv' or "
            "early_stopping"
        )
    return int(min(wanted, sizes.max()))


@dataclass(eq=False, repr=False, kw_only=True)
class IBMAClassifier(Classifier, Estimator):
    """Classify samples of several modalities.

    Args:
        method: name of a method: ibma, ce3 (the same network without a bound), concat, omib, ...;
            see docs/methods.md.
        method_params: its parameters, for example {"bound": "vib"} or {"align": False}.
        modalities: how a table is split: name -> columns (names, numbers or a slice). None: of an
            array the first half of the columns is `a`, the second `b`.
        encoders: "auto" chooses by the values; or modality -> parameters of its encoder, with
            `features` for how an example becomes an array, see docs/estimator.md.
        eta: weight of the bound, in (0, 1); "cv" chooses from .1, .5, .9 on three folds.
        phi, beta: see `IBBLoss`. With the default, that of the released code, the gradient of the
            bound is close to zero. "printed" is the paper's formula, whose gradient is large; on
            the digits it costs accuracy, see docs/loss.md.
        width: of the representations. heads: of the attention that fuses them.
        epochs, batch_size, lr, weight_decay: of the training (Adam).
        class_weight: None, "balanced", or class -> weight of its samples in the loss.
        early_stopping: stop when the loss on `validation_fraction` of the samples has not fallen
            for `n_iter_no_change` epochs, and keep the best epoch.
        device: auto, cpu or cuda.
        random_state: seed; with the data, it decides the result.
        verbose: print what was chosen, and the losses of each epoch.

    Attributes:
        classes_: the labels that were seen.
    """

    class_weight: Any = None

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each sample, [n]."""
        places = self.predict_proba(X).argmax(1)
        found: NDArray[Any] = self.classes_[places]
        return found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class of `classes_`, [n, C]."""
        return self._probabilities(X)[:, 0]

    def _fit_targets(self, y: Any) -> tuple[NDArray[np.float64], Task]:
        from sklearn.utils import column_or_1d
        from sklearn.utils.class_weight import compute_class_weight
        from sklearn.utils.multiclass import check_classification_targets

        given, y = y, column_or_1d(y, warn=True)
        if y.dtype.kind in "mM":
            raise BadArgument(f"y: {y.dtype}: expected texts or whole numbers as classes")
        check_classification_targets(y)
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise BadArgument("y: Input contains NaN or infinity in place of a class")
        y = y + 0.0 if y.dtype.kind == "f" else y  # -0 is 0
        self.classes_, places = np.unique(y, return_inverse=True)
        inputs.refuse_merged_labels(given, self.classes_)
        if len(self.classes_) < 2:
            raise BadArgument(f"y has 1 class ({self.classes_[0]!r}): expected two or more classes")
        targets = places.astype(np.float64)[:, None]
        if self.class_weight is None:
            return targets, self._task()
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise BadArgument(f"class_weight={self.class_weight!r}: expected weights of 0 or more")
        weights = weights / weights[places].mean()
        return targets, self._task(weights=tuple(float(weight) for weight in weights))

    def _task(self, **weights: Any) -> Task:
        names = tuple(str(each) for each in self.classes_)
        return WeightedClassify(names, **weights) if weights else tasks.Classify(names)


@dataclass(eq=False, repr=False, kw_only=True)
class IBMAMultilabelClassifier(Classifier, Estimator):
    """Predict several labels of samples of several modalities; y is 0 or 1, [n, C].

    Args: as `IBMAClassifier`; class_weight is None or "balanced", which gives both values of a
    label the same weight in sum.

    Attributes:
        classes_: numbers of the labels.
    """

    class_weight: Any = None

    kind = "multilabel"

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return 1 where a label is more probable than not, [n, C]."""
        return (self.predict_proba(X) > 0.5).astype(np.int64)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each label, [n, C]."""
        return self._probabilities(X)[..., 1]

    def _fit_targets(self, y: Any) -> tuple[NDArray[np.float64], Task]:
        from scipy.sparse import issparse
        from sklearn.utils import check_array

        y = y.toarray() if issparse(y) else np.asarray(y)
        if y.ndim != 2 or any(isinstance(one, set | dict) for one in y.flat):
            raise BadArgument(f"y: {y.dtype} {list(y.shape)}: expected 0 or 1, [n, C]")
        targets: NDArray[np.float64] = check_array(y, input_name="y").astype(np.float64)
        if not np.isin(targets, (0.0, 1.0)).all():
            raise BadArgument("y: expected 0 or 1 for each sample and label")
        self.classes_ = np.arange(targets.shape[1])
        if self.class_weight is None:
            return targets, self._task()
        if self.class_weight != "balanced":
            raise BadArgument(f"class_weight={self.class_weight!r}: expected None or 'balanced'")
        share = targets.mean(0)
        pairs = zip(0.5 / (1 - share).clip(1e-9), 0.5 / share.clip(1e-9), strict=True)
        return targets, self._task(weights=tuple((float(a), float(b)) for a, b in pairs))

    def _task(self, **weights: Any) -> Task:
        names = tuple(str(each) for each in self.classes_)
        return WeightedMultiLabel(names, **weights) if weights else tasks.MultiLabel(names)

    def __sklearn_tags__(self) -> Tags:
        """Say that targets are several labels."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output, tags.target_tags.single_output = True, False
        tags.classifier_tags.multi_label, tags.classifier_tags.multi_class = True, False
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class IBMARegressor(Regressor, Estimator):
    """Predict a number of samples of several modalities, by classification into bins.

    IBB needs classes. Targets are cut into bins that hold equally many training samples; the
    prediction is the expected mean of its bin.

    Args: as `IBMAClassifier`, without class_weight.
        n_bins: number of bins.
    """

    n_bins: int = 10

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the expected target of each sample, [n]."""
        probabilities = self._probabilities(X)[:, 0]
        found: NDArray[np.float64] = self.bins_.expected(probabilities)
        return found

    def _fit_targets(self, y: Any) -> tuple[NDArray[np.float64], Task]:
        from sklearn.utils import check_array, column_or_1d

        if not isinstance(self.n_bins, Integral) or self.n_bins < 2:
            raise BadArgument(f"n_bins={self.n_bins!r}: expected a whole number, 2 or more")
        y = np.asarray(y)
        if y.dtype.kind in "mM":
            raise BadArgument(f"y: {y.dtype}: expected numbers")
        numbers = check_array(y, ensure_2d=False, input_name="y")
        numbers = column_or_1d(numbers, warn=True)
        numbers = numbers.astype(np.float64)
        if np.abs(numbers).max() > LARGEST:
            raise BadArgument(f"y: {np.abs(numbers).max():g}: expected numbers below {LARGEST:g}")
        self.bins_ = Bins.fit(numbers, int(self.n_bins))
        return self.bins_.place(numbers).astype(np.float64)[:, None], self._task()

    def _task(self, **weights: Any) -> Task:
        return tasks.Classify(tuple(f"{mean:g}" for mean in self.bins_.means))
