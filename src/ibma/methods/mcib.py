"""MCIB: conditional information bottleneck for multimodal fusion (Wang et al., 2025).

Citation: Y. Wang, Q. Jia, C. Xu, F. Chen, Y. Liu, H. Zhang, L. Jin, L. Liu, Z. Wang. Conditional
information bottleneck for multimodal fusion: Overcoming shortcut learning in sarcasm detection.
arXiv 2508.10644, 2025.

Official code: sljgkjhwe/MCIB@d1430aa, newCIB.py (MLP version; its Transformer version needs token
sequences, which the shared encoders do not give).

Code over paper: each modality is primary once, its auxiliary the one before it in a cycle (of
audio, video and text: video with audio, audio with text, text with video); KL is a mean over
dimensions.

Choices: the condition is the task loss of q(y | b, x_aux) as in the paper's bound (there a Gaussian
regression with a second KL; `condition="gauss"` keeps it, on one-hot targets). The bottlenecks,
projected to the embedding width, enter the shared fusion; no text residual, which would bypass
them. With a cross-entropy the code's factors (lambda times beta = 128) would swamp the prediction:
total = task + weight * sum_m L_m with weight .1. One-class data has no y: the condition is left
out. Evaluation takes the means (there it samples). The code's min-max scaling by batch is not
copied.

Parity: mcib_kl, mcib_cib_forward.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibma.features.store import Batch
from ibma.network import bounds
from ibma.network.method import Fusion, Method, Output, Spec, one_of, presence
from ibma.network.tasks import per_class


def gaussian_condition(mean: Tensor, log_variance: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """Compute the code's condition: squared error of a sampled y, and a KL the paper lacks.

    All arguments are [B, C]; the result is a scalar.
    """
    sampled = mean + noise * (0.5 * log_variance).exp()
    pull = bounds.gaussian_kl(mean, (0.5 * log_variance).exp()).sum(1).mean()
    return F.mse_loss(sampled, y) + pull


class Compressor(nn.Module):
    """Compute mean and log variance of the bottleneck b."""

    def __init__(self, width: int, hidden: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 2 * bottleneck),
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance [B, b] of representations [B, D]."""
        mean, log_variance = self.layers(z).chunk(2, dim=1)
        return mean, log_variance


class Conditional(nn.Module):
    """Predict y from b and the auxiliary modality, q(y | b, x_aux).

    Args:
        width: of b and the auxiliary embedding together.
        mean: the layer that predicts.
        outputs: width of a log variance, for the Gaussian condition; 0 for none.
    """

    def __init__(self, width: int, hidden: int, mean: nn.Linear, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.mean = mean
        self.log_variance = nn.Linear(hidden, outputs) if outputs else None

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the prediction [B, C] and its log variance for inputs [B, width]."""
        hidden = self.hidden(inputs)
        return self.mean(hidden), self.log_variance(hidden) if self.log_variance else None


class Model(Method):
    """MCIB: a bottleneck per modality that must predict y together with the next modality.

    Args:
        hidden: width of hidden layers.
        bottleneck: units of a bottleneck.
        dropout: of the compressors.
        weight: of every modality's KL and condition.
        condition: "task", or "gauss" as in the code.
    """

    own_weights = ("weight",)

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: int = 256,
        bottleneck: int = 128,
        dropout: float = 0.4,
        weight: float = 0.1,
        condition: str = "task",
    ) -> None:
        super().__init__(spec)
        self.weight = spec.weight_factor * weight
        gauss = one_of("condition", condition, ("task", "gauss")) == "gauss"
        self.auxiliary = dict(zip(self.names, (self.names[-1], *self.names[:-1]), strict=True))
        self.compressors = nn.ModuleDict(
            {n: Compressor(spec.width, hidden, bottleneck, dropout) for n in self.names}
        )
        self.labelled = spec.task.kind != "one_class"
        if self.labelled:
            outputs = spec.task.outputs if gauss else 0
            self.conditionals = nn.ModuleDict(
                {
                    n: Conditional(bottleneck + spec.width, hidden, spec.task.head(hidden), outputs)
                    for n in self.names
                }
            )
        self.lift = nn.ModuleDict({n: nn.Linear(bottleneck, spec.width) for n in self.names})
        self.fusion = Fusion(len(self.names), spec.width, spec.heads)
        self.head = spec.task.head(spec.width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds mean/, log_variance/ and b/<modality> [B, b]."""
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        for name in self.names:
            mean, log_variance = self.compressors[name](z[name])
            b = mean + (0.5 * log_variance).exp() * self.noise(mean)
            extra |= {f"mean/{name}": mean, f"log_variance/{name}": log_variance, f"b/{name}": b}
        lifted = [self.lift[name](extra[f"b/{name}"]) for name in self.names]
        fused = self.fusion(lifted, presence(x, self.names))
        return Output(z, fused, self.head(fused), extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `kl/<modality>` and `condition/<modality>`."""
        terms = super().losses(out, batch)
        for name in self.names:
            mean, log_variance = (out.extra[f"{k}/{name}"] for k in ("mean", "log_variance"))
            rates = bounds.gaussian_kl(mean, (0.5 * log_variance).exp())
            terms[f"kl/{name}"] = self.weight * self.where_known(batch, [name], torch.mean, rates)
            if self.labelled:
                terms[f"condition/{name}"] = self.weight * self._condition(name, out, batch)
        return terms

    def _condition(self, name: str, out: Output, batch: Batch) -> Tensor:
        both = name, self.auxiliary[name]
        inputs = torch.cat([out.extra[f"b/{name}"], out.z[self.auxiliary[name]]], dim=1)
        prediction, log_variance = self.conditionals[name](inputs)
        if log_variance is None:
            return self.judge(prediction, batch, *both)
        y = per_class(self.spec.task, self.spec.task.systems(batch.y))
        noise = self.noise(prediction)
        return self.where_known(batch, both, gaussian_condition, prediction, log_variance, y, noise)
