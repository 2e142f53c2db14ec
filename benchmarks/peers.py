"""Compare one training step of published implementations with ours, at equal sizes.

`python -m benchmarks.peers --code DIR` runs the authors' own code, which benchmarks/peers.md says
how to fetch; none of it is copied. Encoders are left out on both sides: they differ, and they would
hide what is compared. Each pair of steps alternates in one process and one thread.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Goal, Row, interleaved, rewrite, speed_up, table
from benchmarks.problems import SETTING, Problem, View
from ibma.errors import IbmaError
from ibma.features.store import Batch
from ibma.methods.ibma.club import Estimator
from ibma.network import bounds
from ibma.network.centroids import Assignment
from ibma.training.loop import configure_torch
from ibma.training.run import processor

BATCH, WIDTH, CLASSES, ROUNDS = 64, 512, 6, 15
NAMES = ("text", "visual", "acoustic")
PAGE = Path("benchmarks/peers.md")
MARK = "<!-- written by python -m benchmarks.peers --code DIR --write -->"
NOT_SLOWER = Goal("at least", 1.0)
Step = Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """A published implementation: its repository, the commit that is meant, its folder of code."""

    repository: str
    commit: str
    sources: str = "."

    @property
    def name(self) -> str:
        """Return the name of the checkout's folder."""
        return self.repository.rsplit("/", maxsplit=1)[-1]

    def folder(self, code: Path) -> Path:
        """Return the folder of its modules.

        Raises:
            IbmaError: the checkout is missing, or at another commit.
        """
        place = code / self.name
        fetch = f"git clone https://github.com/{self.repository} {place}"
        if not place.exists():
            raise IbmaError(f"{place}: missing: {fetch} && git -C {place} checkout {self.commit}")
        head = subprocess.run(
            ["git", "-C", str(place), "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout
        if not head.startswith(self.commit):
            raise IbmaError(f"{place}: at {head[:7]}: git -C {place} checkout {self.commit}")
        return place / self.sources


MISA = Peer("declare-lab/MISA", "ec42fad", "src")
MIB = Peer("TmacMai/Multimodal-Information-Bottleneck", "f6d006b", "MIB_github")
AUTHORS = Peer("Statistical-Deep-Learning/IBMA", "c04b18b")
CLUB = Peer("Linear95/CLUB", "57b4ad7")


@contextmanager
def modules_of(folder: Path, **stand_ins: types.ModuleType) -> Iterator[None]:
    """Import from a peer's folder; afterwards none of its modules is left in the interpreter.

    Args:
        stand_ins: modules that the peer imports and its measured part does not use, dots written
            as two underscores; absent packages among them.
    """
    before = dict(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules.update({name.replace("__", "."): one for name, one in stand_ins.items()})
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - set(before):
            file = getattr(sys.modules[name], "__file__", None)
            if name.replace(".", "__") in stand_ins or (file and str(folder) in file):
                del sys.modules[name]
        sys.modules.update(before)  # what a stand-in took the place of


class Anything(types.ModuleType):
    """A module that has every name: each is an empty class."""

    def __getattr__(self, name: str) -> type:
        """Return an empty class."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


def training_step(model: nn.Module, loss: Callable[[], Tensor], clip: float | None = None) -> Step:
    """Return a whole step: losses, their gradient, clipping by value, Adam."""
    optimiser = torch.optim.Adam(model.parameters(), lr=SETTING.lr)

    def run() -> None:
        model.train()
        optimiser.zero_grad()
        loss().backward()
        if clip is not None:
            torch.nn.utils.clip_grad_value_(model.parameters(), clip)
        optimiser.step()

    return run


def our_step(method: str, kind: str, **hparams: object) -> Step:
    """Return a step of a method of ours on embeddings of three modalities."""
    encoder = {"name": "mlp", "hidden": [1]}
    views = {name: View("vector", (WIDTH,), "float32", encoder) for name in NAMES}
    problem = Problem(views, BATCH, BATCH, classes=CLASSES, width=WIDTH, kind=kind)
    model = problem.build(method, torch.device("cpu"), **hparams)
    model.encoders = nn.ModuleDict({name: nn.Identity() for name in views})
    index = torch.arange(BATCH)
    y = torch.randn(BATCH) if kind == "sentiment" else index % CLASSES
    batch = Batch({name: torch.randn(BATCH, WIDTH) for name in views}, y, index)

    def loss() -> Tensor:
        return torch.stack(list(model.losses(model(batch.x), batch).values())).sum()

    return training_step(model, loss, model.clip_value)


def misa(code: Path) -> Step:
    """Return a step of MISA's own code; what its LSTMs leave is given."""
    hidden = WIDTH // 4  # two states of two directions make an utterance
    config = SimpleNamespace(
        embedding_size=hidden,
        visual_size=hidden,
        acoustic_size=hidden,
        hidden_size=128,
        num_classes=CLASSES,
        dropout=0.5,
        activation=nn.ReLU,
        rnncell="lstm",
        use_bert=False,
        use_cmd_sim=True,
        word2id=range(2),
    )
    with modules_of(MISA.folder(code), gensim=Anything("gensim")):
        networks, solver, losses = map(importlib.import_module, ("models", "solver", "utils"))
    model, told = networks.MISA(config), solver.Solver.__new__(solver.Solver)
    for name in ("embed", *(f"{kind}rnn{layer}" for kind in "tva" for layer in (1, 2))):
        setattr(model, name, nn.Identity())

    def states(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        both = x.view(BATCH, 4, hidden).transpose(0, 1)
        return both[:2], both[2:]

    model.extract_features = states
    told.model, told.train_config = model, config
    told.loss_diff, told.loss_recon, told.loss_cmd = losses.DiffLoss(), losses.MSE(), losses.CMD()
    t, v, a = (torch.randn(BATCH, WIDTH) for _ in range(3))
    y, lengths = torch.arange(BATCH) % CLASSES, torch.ones(BATCH)

    def loss() -> Tensor:
        task = F.cross_entropy(model(t, v, a, lengths, None, None, None), y)
        different, similar, rebuilt = (
            getattr(told, f"get_{name}_loss")() for name in ("diff", "cmd", "recon")
        )
        return task + 0.3 * different + similar + rebuilt

    return training_step(model, loss, clip=1.0)


def mib(code: Path) -> Step:
    """Return a step of E-MIB's own fusion, bottleneck and losses."""
    absent = ("modeling_bert", "configuration_bert", "activations", "modeling_utils")
    stand_ins = {f"transformers__{name}": Anything(name) for name in absent}
    with modules_of(MIB.folder(code), **stand_ins):
        model = importlib.import_module("emib").fusion(WIDTH)
    x, y = [torch.randn(BATCH, WIDTH) for _ in range(3)], torch.randn(BATCH)

    def loss() -> Tensor:
        output, own = model(*x, y)
        return own + F.l1_loss(output.view(-1), y)

    return training_step(model, loss)


def released(code: Path) -> dict[str, Step]:
    """Return the authors' bound of two modalities and ours, with gradients."""
    with modules_of(AUTHORS.folder(code)):
        theirs = importlib.import_module("ib_loss").IBUpperBoundLoss()
    labels, assignment = 5, Assignment()
    z = [torch.randn(BATCH, WIDTH, requires_grad=True) for _ in range(2)]
    phi_x = [torch.randn(BATCH, labels, 2).softmax(-1) for _ in range(2)]
    centroids = [F.normalize(torch.randn(labels, 2, WIDTH), dim=-1) for _ in range(2)]

    def our_bounds() -> tuple[Tensor, ...]:
        phi = [assignment.phi(*pair) for pair in zip(z, centroids, strict=True)]
        pairs = ((0, 1), (1, 0))
        return tuple(bounds.released_bound(phi[j], phi[o], phi_x[j]) for j, o in pairs)

    def their_bounds() -> tuple[Tensor, ...]:
        return tuple(theirs(*z, *phi_x, *centroids))

    for one, other in zip(our_bounds(), their_bounds(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    forms = {"ours": our_bounds, "authors": their_bounds}
    return {name: with_gradient(lambda form=form: sum(form())) for name, form in forms.items()}


def club(code: Path, n: int) -> dict[str, Step]:
    """Return CLUB's step by ours, its authors' and IBMA's authors' code.

    Each fits its q to the batch, then takes the bound and the gradient that it sends to Z.
    """
    with modules_of(CLUB.folder(code)):
        published = importlib.import_module("mi_estimators").CLUB(WIDTH, WIDTH, 2 * WIDTH)
    with modules_of(AUTHORS.folder(code)):
        authors = importlib.import_module("ib_losses").CLUBLoss(WIDTH, WIDTH)
    own = Estimator(WIDTH, WIDTH)
    for mean, variance in (
        (published.p_mu, published.p_logvar),
        (authors.mu_net, authors.logvar_net),
    ):
        mean.load_state_dict(own.mean.state_dict())
        variance.load_state_dict(own.log_variance.state_dict())
    x, z = torch.randn(n, WIDTH), torch.randn(n, WIDTH, requires_grad=True)

    def bound() -> Tensor:
        with torch.no_grad():
            mean, log_variance = own(x)
        return bounds.club(z, mean, log_variance)

    forms: Mapping[str, tuple[nn.Module, Step, Step]] = {
        "ours": (own, lambda: bounds.club_learning_loss(z.detach(), *own(x)), bound),
        "CLUB": (
            published,
            lambda: published.learning_loss(x, z.detach()),
            lambda: published(x, z),
        ),
        "IBMA": (authors, lambda: authors.learning_loss(x, z.detach()), lambda: authors(x, z)),
    }
    for _, _, value in forms.values():
        torch.testing.assert_close(value(), bound(), rtol=1e-3, atol=1e-3)
    return {name: _fitted_first(*form) for name, form in forms.items()}


def _fitted_first(q: nn.Module, learning_loss: Step, bound: Step) -> Step:
    """Return a step that fits q, then takes the bound with its gradient."""
    fit, value = training_step(q, learning_loss), with_gradient(bound)

    def run() -> None:
        fit()
        value()

    return run


def with_gradient(value: Callable[[], Any]) -> Step:
    """Return a value with its gradient."""
    return lambda: value().backward()


def rows(code: Path) -> Iterator[Row]:
    """Compare every peer with ours."""
    pairs = {
        f"MISA, heads and losses ({MISA.name}@{MISA.commit})": {
            "ours": our_step("misa", "classify"),
            "authors": misa(code),
        },
        f"E-MIB, fusion and losses ({MIB.name}@{MIB.commit})": {
            "ours": our_step("mib_e", "sentiment", fusion="concat"),
            "authors": mib(code),
        },
        f"released bound, five labels ({AUTHORS.name}@{AUTHORS.commit})": released(code),
    }
    for n in (64, 256):
        three = club(code, n)
        for peer in (CLUB, AUTHORS):
            label = f"CLUB, batch of {n} ({peer.name}@{peer.commit})"
            pairs[label] = {"ours": three["ours"], "authors": three[peer.name]}
    for label, pair in pairs.items():
        yield speed_up(label, interleaved(pair, ROUNDS), NOT_SLOWER)


def main() -> None:
    """Print the table, and write it into benchmarks/peers.md if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--code", type=Path, required=True, help="folder of the checkouts")
    parser.add_argument("--write", action="store_true", help=f"rewrite the table of {PAGE}")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    configure_torch(1, compiled=False)
    torch.manual_seed(0)
    try:
        text = table(rows(arguments.code))
    except IbmaError as error:
        parser.exit(1, f"{error}\n")
    generated = f"{processor()}, one thread, torch {torch.__version__}.\n\n{text}"
    print(generated)
    if arguments.write:
        rewrite(PAGE, MARK, generated)


if __name__ == "__main__":
    main()
