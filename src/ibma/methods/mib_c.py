"""C-MIB: multimodal information bottleneck per modality and after the fusion (Mai et al., 2023).

Citation: S. Mai, Y. Zeng, H. Hu. Multimodal information bottleneck: Learning minimal sufficient
unimodal and multimodal representations. IEEE Transactions on Multimedia 2023.

Official code: TmacMai/Multimodal-Information-Bottleneck@f6d006b, MIB_github/cmib.py.

Code over paper: KL is a mean over dimensions too (the paper's Eqs. 14 and 15 sum them; beta = 1e-3
goes with the mean), and the fused task loss counts twice.

Choices: embeddings of the shared encoders (there 50-d) and the shared fusion; `fusion="concat"` is
the code's. Cross-entropy or BCE as task loss (there L1). Evaluation takes the means;
`eval_sample=True` samples as the code does.

Parity: not tested, no oracle; its parts are those of E-MIB and L-MIB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ibma.features.store import Batch
from ibma.network.method import FUSED, MIBForm, Output, Spec, presence


class Model(MIBForm):
    """C-MIB: a bottleneck per modality and one after the fusion; parameters as in `MIBForm`."""

    def __init__(self, spec: Spec, **hparams: Any) -> None:
        super().__init__(spec, **hparams)
        places = (*self.names, FUSED)
        self.gaussians = nn.ModuleDict({n: self.new_bottleneck() for n in places})
        self.heads = nn.ModuleDict({n: spec.task.head(spec.width) for n in places})
        self.fusion = self.new_fusion()

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds mean/, std/ [B, D] and logits/ [B, C] of each place.

        Places are the modalities and `fused`.
        """
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        samples = [self._squeeze(name, z[name], extra) for name in self.names]
        joined = self.fusion(samples, presence(x, self.names))
        fused = self._squeeze(FUSED, joined, extra)
        return Output(z, fused, extra[f"logits/{FUSED}"], extra)

    def _squeeze(self, name: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        mean, std = self.gaussians[name](value)
        sample: Tensor = mean + std * self.noise(std)
        logits = self.heads[name](sample)
        extra |= {f"mean/{name}": mean, f"std/{name}": std, f"logits/{name}": logits}
        return sample

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task/` and `kl/` of the modalities and of `fused`."""
        terms: dict[str, Tensor] = {}
        for name in (*self.names, FUSED):
            times, reads = (self.MAIN_WEIGHT, []) if name == FUSED else (1, [name])
            terms[f"task/{name}"] = times * self.judge(out.extra[f"logits/{name}"], batch, *reads)
            mean, std = out.extra[f"mean/{name}"], out.extra[f"std/{name}"]
            terms[f"kl/{name}"] = self.rate(mean, std, batch, *reads)
        return terms
