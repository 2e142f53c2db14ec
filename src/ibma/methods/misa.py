"""MISA: modality-invariant and -specific representations (Hazarika et al., 2020).

Citation: D. Hazarika, R. Zimmermann, S. Poria. MISA: Modality-invariant and -specific
representations for multimodal sentiment analysis. ACM Multimedia 2020.

Official code: declare-lab/MISA@ec42fad, src/models.py, src/solver.py, src/utils/functions.py.

Code over paper: the orthogonality loss is a mean over the h x h products (the paper's squared
Frobenius norm is h^2 times larger), so that 0.3 of it is small; row norms carry no gradient; the
difference terms are summed, the similarity terms averaged. The adversarial similarity is off by
default there and is not built here.

Choices: it keeps its own fusion. Inputs are the embeddings of the shared encoders; two modalities
narrow the widths by analogy (4h -> 2h where three have 6h -> 3h). Gradients are clipped at 1.0 by
value as there. A discrepancy of equal moments has gradient 0 (there NaN). Samples that lack a
modality are left out of all three terms.

Parity: misa_cmd_k2, misa_diff, misa_recon_mse, misa_solver_aggregates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.features.store import Batch
from ibma.network import dependence
from ibma.network.method import Method, Output, Spec

MOMENTS = 5


def similarity(shared: Tensor, moments: int = MOMENTS) -> Tensor:
    """Average the CMD over pairs of M shared representations, [B, M, h]: a scalar."""
    pairs = [dependence.cmd(a, b, moments) for a, b in combinations(shared.unbind(1), 2)]
    return torch.stack(pairs).mean()


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Average the squared products of two batches' columns, [B, h] each (official DiffLoss).

    Columns are centred and rows scaled to length 1, the length taken as a constant.
    """
    a, b = ((v := x - x.mean(0)) / (v.norm(dim=1, keepdim=True).detach() + 1e-6) for x in (a, b))
    return (a.T @ b).square().mean()


def difference(private: Tensor, shared: Tensor) -> Tensor:
    """Sum `overlap` over (private, shared) of each modality and over pairs of privates.

    Args:
        private, shared: [B, M, h].
    """
    own = private.unbind(1)
    pairs = [*zip(own, shared.unbind(1), strict=True), *combinations(own, 2)]
    return torch.stack([overlap(a, b) for a, b in pairs]).sum()


class Model(Method):
    """MISA: a shared and a private representation of each modality, fused by a transformer layer.

    Args:
        hidden: h, the width of the representations.
        sim_weight, diff_weight, recon_weight: the official loss weights.
    """

    compares = True
    compares_samples = True
    clip_value = 1.0
    own_weights = ("sim_weight", "diff_weight", "recon_weight")

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: int = 128,
        sim_weight: float = 1.0,
        diff_weight: float = 0.3,
        recon_weight: float = 1.0,
    ) -> None:
        super().__init__(spec)
        self.weights = [
            spec.weight_factor * each for each in (sim_weight, diff_weight, recon_weight)
        ]
        count = len(self.names)
        self.project = nn.ModuleDict(
            {
                n: nn.Sequential(nn.Linear(spec.width, hidden), nn.ReLU(), nn.LayerNorm(hidden))
                for n in self.names
            }
        )
        self.private = nn.ModuleDict({n: _sigmoid_layer(hidden) for n in self.names})
        self.shared = _sigmoid_layer(hidden)
        self.rebuild = nn.ModuleDict({n: nn.Linear(hidden, hidden) for n in self.names})
        layer = nn.TransformerEncoderLayer(hidden, nhead=2, batch_first=True)
        self.fusion = nn.Sequential(layer, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(2 * count * hidden, count * hidden),
            nn.Dropout(0.5),
            nn.ReLU(),
            spec.task.head(count * hidden),
        )

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network on stored features, modality -> [B, ...].

        `extra` holds projected/, private/, shared/ and rebuilt/<modality>, all [B, h].
        """
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        for name in self.names:
            projected = self.project[name](z[name])
            private, shared = self.private[name](projected), self.shared(projected)
            extra |= {
                f"projected/{name}": projected,
                f"private/{name}": private,
                f"shared/{name}": shared,
                f"rebuilt/{name}": self.rebuild[name](private + shared),
            }
        tokens = [extra[f"{kind}/{name}"] for kind in ("private", "shared") for name in self.names]
        fused = self.fusion(torch.stack(tokens, dim=1))
        return Output(z, fused, self.head(fused), extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `similarity`, `difference` and `reconstruction`."""
        private, shared, projected, rebuilt = (
            torch.stack(list(out.views(kind).values()), dim=1)
            for kind in ("private", "shared", "projected", "rebuilt")
        )
        similar, different, rebuild = self.weights
        known = partial(self.where_known, batch, self.names)
        return super().losses(out, batch) | {
            "similarity": similar * known(similarity, shared),
            "difference": different * known(difference, private, shared),
            "reconstruction": rebuild * known(F.mse_loss, rebuilt, projected),
        }


def _sigmoid_layer(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
