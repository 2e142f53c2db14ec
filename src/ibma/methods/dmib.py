"""DMIB: dynamic multimodal information bottleneck (Fang et al., 2024).

Citation: Y. Fang, S. Wu, S. Zhang, C. Huang, T. Zeng, X. Xing, S. Walsh, G. Yang. Dynamic
multimodal information bottleneck for multimodality classification. WACV 2024, arXiv 2311.01066.

Official code: ayanglab/DMIB@4d56417, diagnosis_tasks/ and prognosis_tasks/.

Code over paper: the "KL" sufficiency loss passes probabilities where the library expects their
logarithms; its minimum is softmax(p), nearly uniform, and it can be negative. That is the default
(`kl_mode="official"`, what published numbers used); "kl_te" and "kl_pe" are KL(t || p) and
KL(p || t). The side heads weigh 1000 and the sufficiency 500 as in the diagnosis code, so that the
encoders are trained almost only by the side heads. The "dynamic" gates are made there but unused
in the class that is called DMIB, hence `dynamic=False`.

Choices: it keeps its own fusion, a concatenation. Bottleneck of two thirds of its input (there 1000
of 1500). Of the two weights tuning tries that of the sufficiency alone. Multi-label data:
Bernoullis in place of the softmax, averaged over labels. `variant="prognosis"` (two modalities
there) masks a modality in training only (there at test too); with three, one of them in half of the
batches. Its focal loss takes exp(-loss) as p_y, which also serves multi-label data.

Parity: dmib_diag_total, dmib_prog_vsd_T1, dmib_prog_focal, dmib_prog_confidence,
dmib_prog_bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ibma.features.store import Batch
from ibma.network.method import Method, Output, Spec, one_of, xavier

MASKED_SHARE = 0.5  # of the batches of the prognosis variant


def sufficiency(
    log_p: Tensor, log_t: Tensor, mode: str = "official", labels: bool = False
) -> Tensor:
    """Compute the loss between observation p, a constant, and representation t: a scalar.

    Args:
        log_p, log_t: [B, G, K], see `Task.log_probabilities`.
        mode: "official" as the code computes it, or "kl_te" or "kl_pe".
        labels: whether the G systems are labels of their own.
    """
    log_p = log_p.detach()
    p, t = log_p.exp(), log_t.exp()
    if mode == "official":
        wrong = t * (log_t - p)
        # the code's mean runs over samples and classes; of a label, both Bernoulli terms count
        return wrong.sum(-1).mean() if labels else wrong.mean()
    gap = t * (log_t - log_p) if mode == "kl_te" else p * (log_p - log_t)
    return gap.sum(-1).mean()


def focal(losses: Tensor) -> Tensor:
    """Compute the focal loss with alpha = gamma = 1 from -ln p_y per sample [B]: a scalar."""
    return ((1.0 - torch.exp(-losses)) * losses).mean()


def confidence_loss(confidence: Tensor, losses: Tensor) -> Tensor:
    """Compute the mean squared error of a confidence [B] to p_y, from -ln p_y per sample [B]."""
    return (confidence - torch.exp(-losses)).square().mean()


def dynamic_loss(gate: Tensor, confidence: Tensor, losses: Tensor) -> Tensor:
    """Add the mean gate [B, D] of a modality to the loss of its confidence [B]: a scalar."""
    return gate.mean() + confidence_loss(confidence, losses)


class Bottleneck(nn.Module):
    """Map v to a representation of the same width through a narrow ReLU layer."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, width))

    def forward(self, v: Tensor) -> Tensor:
        """Map [B, width] to [B, width]."""
        out: Tensor = self.layers(v)
        return out


class Model(Method):
    """DMIB: a prediction from concatenated views, and one from their bottleneck.

    Args:
        variant: "diagnosis" or "prognosis".
        kl_mode: see `sufficiency`.
        hidden: width of a view.
        side_weight, kl_weight: loss weights; None for the variant's own.
        dynamic: weigh modalities by feature gates and confidence.
    """

    own_weights = ("kl_weight",)  # side_weight is of task losses

    def __init__(
        self,
        spec: Spec,
        *,
        variant: str = "diagnosis",
        kl_mode: str = "official",
        hidden: int = 500,
        side_weight: float | None = None,
        kl_weight: float | None = None,
        dynamic: bool = False,
    ) -> None:
        super().__init__(spec)
        self.prognosis = one_of("variant", variant, ("diagnosis", "prognosis")) == "prognosis"
        self.kl_mode = one_of("kl_mode", kl_mode, ("official", "kl_te", "kl_pe"))
        self.dynamic = dynamic
        self.steps_differ = self.prognosis  # its masked view is drawn on the host
        defaults = (1.0, 10.0) if self.prognosis else (1000.0, 500.0)
        self.side_weight = defaults[0] if side_weight is None else side_weight
        self.kl_weight = spec.weight_factor * (defaults[1] if kl_weight is None else kl_weight)
        head, each = spec.task.head, spec.width if self.prognosis else hidden
        if dynamic:
            self.gates = nn.ModuleDict({n: nn.Linear(spec.width, spec.width) for n in self.names})
            self.confidence = nn.ModuleDict({n: nn.Linear(each, 1) for n in self.names})
        if not self.prognosis:
            self.views = nn.ModuleDict({n: nn.Linear(spec.width, each) for n in self.names})
            xavier(self.views.values())
            if dynamic:
                xavier([*self.gates.values(), *self.confidence.values()])
        self.side = nn.ModuleDict({n: head(each) for n in self.names})
        width = len(self.names) * each
        self.observation = head(width)
        self.bottleneck = Bottleneck(width, 256 if self.prognosis else round(2 / 3 * width))
        self.head = head(width)
        xavier([*self.side.values(), self.observation])
        if self.prognosis:
            for layer in (self.observation, self.head):
                nn.init.normal_(layer.weight, std=0.001)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; the prediction reads the representation.

        `extra` holds observation and side/<modality>, all [B, C]; with `dynamic` gate/<modality>
        [B, D] and confidence/<modality> [B, 1].
        """
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        views = [self._view(name, z[name], extra) for name in self.names]
        v = torch.cat(self._masked(views), dim=1)
        fused = self.bottleneck(v)
        extra["observation"] = self.observation(v)
        return Output(z, fused, self.head(fused), extra)

    def _view(self, name: str, z: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Return what a modality adds to the concatenation; `extra` gets what its losses read."""
        gated = z
        if self.dynamic:
            gate = extra[f"gate/{name}"] = self.gates[name](z).sigmoid()
            gated = gate * z
        view = z
        if not self.prognosis:
            view = nn.functional.dropout(self.views[name](gated).relu(), 0.5, self.training)
        extra[f"side/{name}"] = self.side[name](view)
        if not self.dynamic:
            return view
        confidence: Tensor = self.confidence[name](view)
        extra[f"confidence/{name}"] = confidence
        # the prognosis code gates what it passes on, after side head and confidence have read it
        return confidence * (gated if self.prognosis else view)

    def _masked(self, views: list[Tensor]) -> list[Tensor]:
        """Set one view to zero in half of the prognosis variant's training batches."""
        if self.prognosis and self.training:
            draw = float(torch.rand(()))
            if draw < MASKED_SHARE:
                victim = int(draw / MASKED_SHARE * len(views))
                views[victim] = torch.zeros_like(views[victim])
        return views

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `observation`, `side/<modality>`, `sufficiency`, `dynamic/<modality>`."""
        task, observation = self.spec.task, out.extra["observation"]
        terms = {
            "task": self._mean(task.loss_per_sample(out.logits, batch.y)),
            "observation": self._mean(task.loss_per_sample(observation, batch.y)),
        }
        log_p, log_t = (task.log_probabilities(v) for v in (observation, out.logits))
        if log_p.shape[-1] > 1:  # one class: both are certain
            several = task.kind == "multilabel"
            apart = sufficiency(log_p, log_t, self.kl_mode, several)
            terms["sufficiency"] = self.kl_weight * apart
        for name in self.names:
            losses = task.loss_per_sample(out.extra[f"side/{name}"], batch.y)
            side = self.where_known(batch, [name], self._mean, losses)
            terms[f"side/{name}"] = self.side_weight * side
            if self.dynamic:
                gate, confidence = (out.extra[f"{kind}/{name}"] for kind in ("gate", "confidence"))
                terms[f"dynamic/{name}"] = self.where_known(
                    batch, [name], dynamic_loss, gate, confidence[:, 0], losses
                )
        return terms

    def _mean(self, losses: Tensor) -> Tensor:
        return focal(losses) if self.prognosis else losses.mean()
