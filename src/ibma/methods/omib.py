"""OMIB: learning an optimal multimodal information bottleneck (Wu et al., 2025).

Citation: Q. Wu, Y. Shao, J. Wang, X. Sun. Learning optimal multimodal information bottleneck
representations. ICML 2025, arXiv 2505.19996.

Official code: none was found; the text was read through summaries only.

Code over paper: nothing to compare.

Warm-up: each modality learns its task from its embedding z_m joined with noise e_m of width D.
Main phase: a Gaussian block per modality gives zeta_m = mu_m + sigma_m eps; the fusion turns them
into xi, which predicts on its own and takes the place of e_m. Loss, in nats:

    task(xi) + beta * sum_m r_m E[KL(N(mu_m, sigma_m^2) || N(0, I))] + sum_m task(Dec_m([z_m; xi]))

with r_1 = 1 and r_m from the information that modality m adds to xi (`relative_weight`).

Choices: what the summaries leave open. KL sums over dimensions. Gaussian block: D -> 2D ReLU,
linear mean, softplus(linear - 5) deviation (MIB's block, because the tables compare the two).
Decoder: 2D -> D ReLU -> C. One Adam over all terms of the main phase, xi attached in all of them.
The warm-up takes a tenth of the epochs, one at least: no method of a comparison may spend most of a
short training on it. No noise at evaluation. With three modalities each r_m is taken against the
first one. One-class data: distances take the place of the task losses, and r is 1. beta is a
number: the paper computes it per data set from entropies that MINE estimates, but for continuous
inputs H(v) = I(v; v) is infinite and MINE returns about the log of its batch size, so that rule
measures the batch, and it is not built here.

Parity: omib_DERIVED_ce (the published formula, not official code).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ibma.features.store import Batch
from ibma.network import bounds
from ibma.network.method import Fusion, Gaussian, Method, Output, Outputs, Spec, presence

RATIO_FLOOR = 1e-8


def warm_up_length(share: float, epochs: int) -> int:
    """Return the epochs of warm-up: a share of the training, at least one if there are two."""
    return min(max(round(share * epochs), 1), epochs - 1)


def prediction_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Average KL(p || q) between predictions over the batch, in nats, summed over class systems.

    Args:
        log_p, log_q: [B, G, K], see `Task.log_probabilities` (Bernoullis for multi-label data; 0
            for one-class data, whose prediction is certain).
    """
    return (log_p.exp() * (log_p - log_q)).flatten(1).sum(1).mean()


def relative_weight(divergence: Tensor, first: Tensor) -> Tensor:
    """Compute r_m = 1 - tanh(ln rho) in (0, 2), rho = divergence / first, without a gradient.

    A modality with much left to say (large rho) is compressed less. CHOICE: a ratio of batch means
    (alternative: mean of ratios; the summaries disagree). CHOICE: both are floored, because a
    divergence of equal predictions can round to just below 0.

    Args:
        divergence: E[KL(p(y|xi, z_m) || p(y|xi))] of modality m.
        first: that of the first modality.
    """
    ratio = divergence.detach().clamp_min(RATIO_FLOOR) / first.detach().clamp_min(RATIO_FLOOR)
    return 1.0 - torch.tanh(torch.log(ratio))


class Model(Method):
    """OMIB: bottlenecks that are stronger for a modality that adds little to the fusion.

    Args:
        beta: weight of the compression terms.
        warm_up: share of the epochs that warm up.
    """

    compares_samples = True  # r_m is a ratio of batch means
    leaves_parameters_unused = True  # in the warm-up
    own_weights = ("beta",)

    def __init__(self, spec: Spec, *, beta: float = 1e-3, warm_up: float = 0.1) -> None:
        super().__init__(spec)
        width = spec.width
        self.beta = spec.weight_factor * beta
        self.warming, self.warm_up = True, warm_up_length(warm_up, spec.epochs)
        self.gaussians = nn.ModuleDict({name: Gaussian(width, 2 * width) for name in self.names})
        self.fusion = Fusion(len(self.names), width, spec.heads)
        self.head = spec.task.head(width)
        self.decoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), spec.task.head(width))
                for name in self.names
            }
        )

    def phase(self, epoch: int) -> bool:
        """Return whether an epoch is of the warm-up."""
        return epoch < self.warm_up

    def before_epoch(self, epoch: int, outputs: Outputs) -> None:
        """Choose the phase: warm-up, or the main one."""
        self.warming = self.phase(epoch)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network on stored features, modality -> [B, ...].

        z is the encoder output, fused is xi. `extra` holds mean/<m> and std/<m> [B, D] of zeta_m,
        and logits/<m> [B, C] of Dec_m, which sees noise in the warm-up and xi afterwards.
        """
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        zeta = []
        for name in self.names:
            mean, std = self.gaussians[name](z[name])
            extra |= {f"mean/{name}": mean, f"std/{name}": std}
            zeta.append(mean + std * self.noise(std))
        xi = self.fusion(zeta, presence(x, self.names))
        for name in self.names:
            partner = self.noise(z[name]) if self.warming else xi
            extra[f"logits/{name}"] = self.decoders[name](torch.cat([z[name], partner], dim=1))
        return Output(z, xi, self.head(xi), extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `kl/<m>` (weighted by beta r_m) and `trb/<m>`.

        In the warm-up only `trb/<m>` counts: encoders and decoders train, the rest is 0.
        """
        terms = {f"trb/{n}": self.judge(out.extra[f"logits/{n}"], batch, n) for n in self.names}
        if self.warming:
            idle = torch.zeros_like(terms[f"trb/{self.names[0]}"])
            return {"task": idle, **{f"kl/{n}": idle for n in self.names}, **terms}
        compression = {f"kl/{n}": self.beta * self._compression(n, out, batch) for n in self.names}
        return {"task": self.judge(out.logits, batch), **compression, **terms}

    def _compression(self, name: str, out: Output, batch: Batch) -> Tensor:
        """Return r_m E[KL(N(mu_m, sigma_m^2) || N(0, I))] of a modality."""
        rates = bounds.gaussian_kl(out.extra[f"mean/{name}"], out.extra[f"std/{name}"]).sum(1)
        rate = self.where_known(batch, [name], torch.mean, rates)
        if name == self.names[0]:
            return rate
        log_p = self.spec.task.log_probabilities
        both = (self.names[0], name)
        first, own = (
            self.where_known(
                batch, both, prediction_kl, log_p(out.extra[f"logits/{n}"]), log_p(out.logits)
            )
            for n in both
        )
        return relative_weight(own, first) * rate
