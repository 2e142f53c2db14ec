"""L-MIB: multimodal information bottleneck per modality (Mai et al., 2023).

Citation: S. Mai, Y. Zeng, H. Hu. Multimodal information bottleneck: Learning minimal sufficient
unimodal and multimodal representations. IEEE Transactions on Multimedia 2023.

Official code: TmacMai/Multimodal-Information-Bottleneck@f6d006b, MIB_github/lmib.py.

Code over paper: KL is a mean over dimensions too (the paper's Eqs. 14 and 15 sum them; beta = 1e-3
goes with the mean), and the fused task loss counts twice. The shipped file selects
a tensor fusion; the paper concatenates in all variants.

Choices: embeddings of the shared encoders (there 50-d) and the shared fusion; `fusion="concat"` is
the paper's. Cross-entropy or BCE as task loss (there L1). Evaluation takes the means;
`eval_sample=True` samples as the code does.

Parity: mib_lmib_fusion_forward, mib_lmib_vib_loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ibma.features.store import Batch
from ibma.network.method import MIBForm, Output, Spec, presence


class Model(MIBForm):
    """L-MIB: a bottleneck per modality; parameters as in `MIBForm`."""

    def __init__(self, spec: Spec, **hparams: Any) -> None:
        super().__init__(spec, **hparams)
        self.gaussians = nn.ModuleDict({n: self.new_bottleneck() for n in self.names})
        self.heads = nn.ModuleDict({n: spec.task.head(spec.width) for n in self.names})
        self.fusion = self.new_fusion()
        self.head = spec.task.head(spec.width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds mean/, std/ [B, D] and logits/<modality> [B, C]."""
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        samples = []
        for name in self.names:
            mean, std = self.gaussians[name](z[name])
            samples.append(mean + std * self.noise(std))
            logits = self.heads[name](samples[-1])
            extra |= {f"mean/{name}": mean, f"std/{name}": std, f"logits/{name}": logits}
        fused = self.fusion(samples, presence(x, self.names))
        return Output(z, fused, self.head(fused), extra)

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task`, `task/<modality>` and `kl/<modality>`."""
        terms, extra = {"task": self.MAIN_WEIGHT * self.judge(out.logits, batch)}, out.extra
        for name in self.names:
            terms[f"task/{name}"] = self.judge(extra[f"logits/{name}"], batch, name)
            mean, std = extra[f"mean/{name}"], extra[f"std/{name}"]
            terms[f"kl/{name}"] = self.rate(mean, std, batch, name)
        return terms
