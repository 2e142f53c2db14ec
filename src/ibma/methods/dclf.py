"""DCLF: dual contrastive learning framework (Xie et al., 2025), our reading of the abstract.

Citation: Y. Xie, C. Sun, Z. Cao, B. Liu, Z. Ji, Y. Liu, L. Shan. A dual contrastive learning
framework for enhanced multimodal conversational emotion recognition. COLING 2025.

Official code: none was found, and the text was not available. The abstract names context-aware
contrastive pairs against label replication, pseudo-labels that tell which modalities contribute,
constraints at utterance, context and modality level, and a decision from the fused and the
emotion-sensitive single-modality features.

Code over paper: nothing to compare.

Choices: everything numeric. Supervised contrastive losses (HobbitLong/SupContrast@084273b) at
temperature .1 on 128-d projections, at three levels. Utterance: same label. Context (dialogues
only): same label and same answer to "did the emotion shift?"; negatives whose previous utterance
had the same label weigh double; previous labels enter this training loss only. Modality (from the
second epoch): a modality that predicts its sample's label takes that label, another a class of its
own. Loss: task of the decision + .5 task of each modality + .1 of the three. Decision: fused logits
plus modality logits times a learnt gate. Multi-label data: pairs weigh the Jaccard index of their
labels, and a modality helps where its loss is at most its median over the batch. One-class data has
no labels: symmetric InfoNCE between modalities takes the place of the three, and the score is the
length of the decision's offsets, summed as its logits are.

Parity: supcon_one_view (the reference loss, not DCLF).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ibma.features.store import Batch
from ibma.network import dependence
from ibma.network.method import FUSED, Fusion, Method, Output, Outputs, Spec, presence, present
from ibma.network.tasks import per_class

PROJECTION, TEMPERATURE = 128, 0.1
CONFUSER = 2.0  # weight of a negative whose previous utterance had the same label


def supcon(
    features: Tensor, weights: Tensor, temperature: float, negatives: Tensor | None = None
) -> Tensor:
    """Compute a supervised contrastive loss with weighted pairs, a scalar.

    A row without a positive counts as 0 in the mean, as in the reference code.

    Args:
        features: [N, d], compared by cosine.
        weights: [N, N] >= 0, how much j is a positive of i; the diagonal is ignored.
        negatives: factors in the denominator, [N, N]; None for 1.
    """
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    scores = dependence.cosine_scores(features, features, temperature)
    shown = scores if negatives is None else scores + negatives.log()
    log_p = scores - shown.masked_fill(~others, -torch.inf).logsumexp(1, keepdim=True)
    log_p = torch.where(others, log_p, 0.0)
    weights = weights * others
    return -((weights * log_p).sum(1) / weights.sum(1).clamp_min(1e-12)).mean()


def jaccard(y: Tensor) -> Tensor:
    """Return the overlap of label sets, 1 where both are empty: 0/1 [N, C] -> [N, N]."""
    both = y @ y.T
    either = y.sum(1)[:, None] + y.sum(1) - both
    return torch.where(either > 0, both / either.clamp_min(1.0), 1.0)


class Model(Method):
    """DCLF: contrastive losses of utterance, context and modality beside the task losses.

    Args:
        level_weight: weight of the contrastive losses.
        side_weight: weight of the modalities' task losses.
    """

    compares_samples = True
    leaves_parameters_unused = True
    own_weights = ("level_weight",)  # side_weight is of task losses

    def __init__(self, spec: Spec, *, level_weight: float = 0.1, side_weight: float = 0.5) -> None:
        super().__init__(spec)
        self.level_weight, self.side_weight = spec.weight_factor * level_weight, side_weight
        self.several = spec.task.kind == "multilabel"
        self.modality_level = False
        self.fusion = Fusion(len(self.names), spec.width, spec.heads)
        self.head = spec.task.head(spec.width)
        self.heads = nn.ModuleDict({n: spec.task.head(spec.width) for n in self.names})
        self.gates = nn.ModuleDict({n: nn.Linear(spec.width, 1) for n in self.names})
        places = (*self.names, FUSED)
        self.projections = nn.ModuleDict({n: nn.Linear(spec.width, PROJECTION) for n in places})

    def phase(self, epoch: int) -> bool:
        """Return whether an epoch has the modality level: untrained heads' labels say nothing."""
        return epoch > 0

    def before_epoch(self, epoch: int, outputs: Outputs) -> None:
        """Start the modality level in the second epoch."""
        self.modality_level = self.phase(epoch)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds logits/<modality> and projected/<modality or fused>."""
        z = self.encode(x)
        fused = self.fusion(z.values(), presence(x, self.names))
        logits = self.head(fused)
        extra = {f"projected/{FUSED}": self.projections[FUSED](fused)}
        for name in self.names:
            side = self.heads[name](z[name])
            logits = logits + self.gates[name](z[name]).sigmoid() * side
            extra |= {
                f"logits/{name}": side,
                f"projected/{name}": self.projections[name](z[name]),
            }
        return Output(z, fused, logits, extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `task/<modality>`, and `utterance`, `context`, `modality` (or `views`)."""
        terms = super().losses(out, batch)
        for name in self.names:
            side = self.judge(out.extra[f"logits/{name}"], batch, name)
            terms[f"task/{name}"] = self.side_weight * side
        levels = (
            self._views(out, batch)
            if self.spec.task.kind == "one_class"
            else self._levels(out, batch)
        )
        return terms | {name: self.level_weight * value for name, value in levels.items()}

    def _views(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        if not self.pairs:  # one modality has nothing to agree with
            return {}
        agree = partial(dependence.contrastive, temperature=TEMPERATURE)
        return {"views": self.over_pairs(batch, [agree] * len(self.pairs), out.views("projected"))}

    def _levels(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        same = self._same(batch.y)
        fused = out.extra[f"projected/{FUSED}"]
        zero = fused.new_zeros(())
        levels = {"utterance": supcon(fused, same, TEMPERATURE), "context": zero, "modality": zero}
        if batch.previous is not None and batch.y.ndim == 1:
            levels["context"] = self._context(fused, same, batch.y, batch.previous)
        if self.modality_level:
            levels["modality"] = self._modality(out, batch, same)
        return levels

    def _same(self, y: Tensor) -> Tensor:
        """Compare labels, [B, B]: equal or not, or the Jaccard index of label sets."""
        one_hot = per_class(self.spec.task, self.spec.task.systems(y))
        return jaccard(one_hot) if self.several else one_hot @ one_hot.T

    def _context(self, fused: Tensor, same: Tensor, y: Tensor, before: Tensor) -> Tensor:
        shift = (y != before) & ~before.isnan()
        confusers = (before[:, None] == before) & (same == 0)
        factors = 1.0 + (CONFUSER - 1.0) * confusers.float()
        return supcon(fused, same * (shift[:, None] == shift), TEMPERATURE, factors)

    def _modality(self, out: Output, batch: Batch, same: Tensor) -> Tensor:
        helps = torch.stack([self._helps(name, out, batch) for name in self.names])
        own = torch.arange(len(self.names), device=helps.device)[:, None].expand_as(helps)
        helps, own = helps.flatten(), own.flatten()
        both = helps[:, None] & helps
        neither = ~helps[:, None] & ~helps & (own[:, None] == own)
        weights = same.repeat(len(self.names), len(self.names)) * both + neither
        features = torch.cat([out.extra[f"projected/{n}"] for n in self.names])
        known = presence(batch.x, self.names)
        if known is None:
            return supcon(features, weights, TEMPERATURE)
        rows = known.T.flatten().nonzero().squeeze(1)
        loss = supcon(features[rows], weights[rows][:, rows], TEMPERATURE)
        return loss * (len(rows) / len(features))

    @torch.no_grad()
    def _helps(self, name: str, out: Output, batch: Batch) -> Tensor:
        """Tell for each sample whether a modality's own prediction is right, [B]."""
        task, logits = self.spec.task, out.extra[f"logits/{name}"]
        if not self.several:
            return logits.argmax(1) == task.systems(batch.y)[:, 0].argmax(1)
        losses, known = task.loss_per_sample(logits, batch.y), present(batch.x, name)
        if known is not None:  # the others have no loss of this modality
            losses = losses.masked_fill(~known, torch.nan)
        return losses <= losses.nanmedian()
