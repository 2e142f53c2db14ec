"""One method on one task, as plain data: what its runs share, and the key of each run.

Nothing here loads torch before a network is built, so that a report can check records cheaply and
a cell travels to another process or machine as a few hundred bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ibma import paths, pretrained
from ibma.errors import IbmaError, tell
from ibma.features import meta
from ibma.files import read_json
from ibma.training import record

if TYPE_CHECKING:
    import torch

    from ibma.features.store import Features, Tables, TrainingSet
    from ibma.network.centroids import Assignment, InputAssignments
    from ibma.network.method import Method
    from ibma.network.tasks import Task
    from ibma.params import Noise, Params, Variant
    from ibma.training.record import Environment, Record

NOISE_CODE = "features/noise.py"


class Setting(NamedTuple):
    """One point of the search space: what the optimiser uses, and how a method's terms weigh.

    eta weighs the bound of methods that read it; weight_factor multiplies the own weights of the
    others (`Method.own_weights`).
    """

    lr: float
    weight_decay: float
    eta: float | None
    weight_factor: float = 1.0

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> Setting:
        """Read a setting from what names its fields: a record's `params`, or a choice."""
        return cls(*(named[name] for name in cls._fields))


@dataclass(frozen=True)
class Cell:
    """One method on one task.

    Args:
        stage: the stage that trains it, which names the folder of its records.
        method: the name of its records, to which a study adds what it changes, for example
            `<method>_eta_<eta>` in stage `sensitivity`.
        method_file: the file in `methods/` that defines the network.
        hparams: keyword arguments of that file's `Model`.
        encoders: `tasks.<task>.encoders` of params.yaml.
        epochs, batch_size, width, heads, phi, beta, refresh, compile, pseudo_classes: as
            `params.Training` explains them.
        features, centroids: folders that stages `extract` and `centroids` wrote.
        tuning: `params.Tune.rule`, by which lr and weight decay were chosen.
        device: auto, cpu or cuda. threads: CPU threads of one run.
        noise: in the features of a modality, see `features/noise.py`; None for none.
    """

    profile: str
    stage: str
    task: str
    method: str
    method_file: str
    hparams: Mapping[str, Any]
    encoders: Mapping[str, Mapping[str, object]]
    epochs: int
    batch_size: int
    width: int
    heads: int
    phi: str
    beta: float
    refresh: str
    compile: bool
    pseudo_classes: int
    features: Path
    centroids: Path
    tuning: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    threads: int = 1
    instructions: str = "portable"
    noise: Noise | None = None

    @classmethod
    def of(cls, params: Params, task: str, method: str, root: Path = Path()) -> Cell:
        """Build the cell of a method on a task.

        Raises:
            IbmaError: params.yaml names no such task or method.
        """
        entry, training, chosen = params.method(method), params.training, params.task(task)
        return cls(
            profile=params.profile,
            stage=params.stage_of(method),
            task=task,
            method=method,
            method_file=entry.file,
            hparams=entry.hparams,
            encoders={name: one.as_dict() for name, one in chosen.encoders.items()},
            epochs=training.epochs,
            batch_size=chosen.batch_size,
            width=training.width,
            heads=training.heads,
            phi=training.phi,
            beta=training.beta,
            refresh=training.refresh,
            compile=training.compile,
            pseudo_classes=training.pseudo_classes,
            features=root / paths.FEATURES / task,
            centroids=root / paths.CENTROIDS / task,
            tuning=params.tune.rule,
            device=params.device,
            threads=params.cpu_threads,
            instructions=params.instructions,
        )

    @classmethod
    def named(cls, params: Params, stage: str, task: str, name: str, root: Path = Path()) -> Cell:
        """Build the cell whose records are called `name` in the folder of a stage.

        Raises:
            IbmaError: params.yaml names no such task, or the stage has no such records.
        """
        variant = params.trained_as(stage, task, name)
        cell = cls.of(params, task, variant.method, root)
        hparams = {**cell.hparams, **variant.hparams}
        return replace(cell, stage=stage, method=name, hparams=hparams, noise=variant.noise)

    @property
    def meta(self) -> Mapping[str, Any]:
        """Return what stage `extract` says of the features.

        Raises:
            IbmaError: the features are not there, or the file is damaged.
        """
        return meta.read(self.features)

    def fold(self, run: int) -> int | None:
        """Return the test fold of a run, None for a data set with a fixed split."""
        folds = self.meta["folds"]
        return run % folds if folds else None

    def key(self, run: int, setting: Setting, environment: Environment) -> str:
        """Return the key of a run: a digest of its parameters, data, code and environment."""
        return record.key_of(
            {
                "profile": self.profile,
                "stage": self.stage,
                "task": self.task,
                "method": self.method,
                "hparams": dict(self.hparams),
                "encoders": {name: dict(config) for name, config in self.encoders.items()},
                "training": [
                    *(self.epochs, self.batch_size, self.width, self.heads),
                    *(self.phi, self.beta, self.refresh, self.compile),
                ],
                # data of one class alone are split into them
                "pseudo_classes": self.pseudo_classes if self.meta["kind"] == "one_class" else None,
                "setting": list(setting),
                "tuning": dict(self.tuning),
                "run": run,
                "features": self.meta["digest"],
                "noise": asdict(self.noise) if self.noise else None,
                "environment": dict(environment),
                "code": record.code_digest(self.method_file, *([NOISE_CODE] if self.noise else [])),
            }
        )

    def local_weights(self) -> dict[str, str]:
        """Return modality -> digest of the folder of its pretrained weights, where it has one."""
        names = {name: config.get("pretrained") for name, config in self.encoders.items()}
        digests = {name: pretrained.digest(str(where)) for name, where in names.items() if where}
        return {name: one for name, one in digests.items() if one is not None}

    # --- what needs torch ------------------------------------------------------------------------

    def open(self, run: int = 0) -> Features:
        """Open the features; a process keeps the last ones open.

        Args:
            run: whose noise they carry, where the cell adds any.

        Raises:
            IbmaError: noise is asked for in a modality that is not made of fractions.
        """
        from ibma.features import noise, store

        features = store.opened(self.features)
        return noise.added(features, run, self.noise) if self.noise else features

    def assignment(self) -> Assignment:
        """Return how phi is computed: of inputs, of reported IB losses, of IBMA unless it says."""
        from ibma.network.centroids import PHI, Assignment

        return Assignment(self.beta, PHI[self.phi])

    def problem(self) -> Task:
        """Return the task that the stored features pose: its labels, head, loss and metrics."""
        from ibma.network import tasks

        return tasks.build(self.meta["kind"], self.meta["classes"])

    def rule(self) -> dict[str, Any]:
        """Return how lr and weight decay were chosen: `tuning`, and by which metric.

        By None where training data shows nothing to choose by (one class): runs take the points
        in turn.
        """
        return {**self.tuning, "by": self.problem().selection}

    def inputs(self, run: int) -> InputAssignments:
        """Read phi(X) and U for the training split of a run; of noisy inputs compute them anew."""
        from ibma.network.centroids import InputAssignments, file_name

        path = self.centroids / file_name(self.fold(run))
        stored = InputAssignments.read(path, self.meta["digest"])
        if self.noise is None:
            return stored
        return stored.renewed(self.open(run), run, self.problem(), self.encoders, self.assignment())

    def tables(self, run: int, on: torch.device) -> Tables:
        """Return what batches of a run's training split carry of each row, on a device."""
        return self.inputs(run).tables(on, self.open(run).training(run).previous_labels())

    def training(self, run: int, on: torch.device) -> TrainingSet:
        """Return the rows that a run learns from; their batches carry `tables`."""
        return self.open(run).training(run).joined(self.tables(run, on))

    def build(self, run: int, setting: Setting, epochs: int, seed: int, on: torch.device) -> Method:
        """Build a freshly initialised network; its initialisation is a pure function of `seed`.

        Args:
            run: gives the training split, whose mean of U the network holds.
            epochs: length of the training, for methods with phases.

        Raises:
            IbmaError: params.yaml names no encoder for a modality.
        """
        import torch

        from ibma import methods
        from ibma.network.method import Spec

        spec = Spec.of(
            self.open(run),
            self.inputs(run),
            self._encoder,
            task=self.problem(),
            width=self.width,
            heads=self.heads,
            epochs=epochs,
            assignment=self.assignment(),
            eta=setting.eta,
            weight_factor=setting.weight_factor,
            refresh=self.refresh,
        )
        methods.check(self.method_file, self.hparams)
        torch.manual_seed(seed)
        return methods.build(self.method_file, spec, **self.hparams).to(on)

    def _encoder(self, name: str) -> Mapping[str, object]:
        if name not in self.encoders:
            raise IbmaError(
                f"params.yaml: tasks.{self.task}.encoders has no '{name}': "
                f"the task's modalities are {', '.join(self.open().modalities)}"
            )
        return self.encoders[name]


def skipped(task: str) -> bool:
    """Tell whether a stage leaves out a task that has no data; the reason is printed."""
    if why := why_not_run(task):
        tell(f"{task}: not run: {why}")
    return why is not None


def why_not_run(task: str, root: Path = Path()) -> str | None:
    """Return why a task has no data, as stage `extract` says; None where it has."""
    return meta.why_missing(root / paths.FEATURES / task)


def chosen(task: str, method: str, run: int, root: Path = Path()) -> Setting:
    """Return the setting that stage `tune` chose for a run of a method.

    Args:
        run: the run's number. Choices, one for each test fold, or one for each point of the grid
            where nothing can be chosen, serve the runs in turn, as folds do (`Cell.fold`).

    Raises:
        IbmaError: the choice is missing or damaged.
    """
    path = root / paths.choice(task, method)
    remedy = f"run `dvc repro -f tune@{task}`"
    if not (choices := read_json(path, {}, remedy).get("choices")):
        raise IbmaError(f"{path}: missing, or holds no choice: {remedy}")
    try:
        return Setting.of(choices[run % len(choices)])
    except (KeyError, TypeError):
        raise IbmaError(f"{path}: a choice of another version: {remedy}") from None


def setting_of(task: str, variant: Variant, run: int, root: Path = Path()) -> Setting:
    """Return the setting of a run of a variant, from the choices of stage `tune`.

    Raises:
        IbmaError: a choice is missing or damaged.
    """
    return varied(variant, lambda method: chosen(task, method, run, root))


def varied(variant: Variant, choice: Callable[[str], Setting]) -> Setting:
    """Return the choice for a variant's method, with the eta and the optimiser that it fixes.

    Args:
        choice: method -> what was chosen for it; a method that reads no eta has none.
    """
    own = choice(variant.method)
    if variant.eta is not None and own.eta is not None:
        own = own._replace(eta=variant.eta)
    if variant.optimiser_of is None:
        return own
    other = choice(variant.optimiser_of)
    return own._replace(lr=other.lr, weight_decay=other.weight_decay)


def expected_key(params: Params, one: Record, root: Path = Path()) -> str:
    """Return the key that a record would have under the present parameters, data and code.

    The device is the record's own: a run on a GPU stays valid on a machine that has none. So are
    folders of pretrained weights that this machine lacks.

    Raises:
        IbmaError: the present parameters, features or choices do not name such a run.
    """
    cell = Cell.named(params, one.stage, one.task, one.method, root)
    variant = params.trained_as(one.stage, one.task, one.method)
    setting = setting_of(one.task, variant, one.seed, root)
    environment = record.Environment(
        device=one.environment["device"],
        instructions=params.instructions,
        threads=params.threads or one.environment["threads"],
    )
    if local := {**one.environment.get("pretrained", {}), **cell.local_weights()}:
        environment |= {"pretrained": local}
    return cell.key(one.seed, setting, environment)
