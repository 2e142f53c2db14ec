"""E-MIB: multimodal information bottleneck after the fusion (Mai et al., 2023).

Citation: S. Mai, Y. Zeng, H. Hu. Multimodal information bottleneck: Learning minimal sufficient
unimodal and multimodal representations. IEEE Transactions on Multimedia 2023.

Official code: TmacMai/Multimodal-Information-Bottleneck@f6d006b, MIB_github/emib.py.

Code over paper: KL is a mean over dimensions too (the paper's Eqs. 14 and 15 sum them; beta = 1e-3
goes with the mean), and the fused task loss counts twice.

Choices: embeddings of the shared encoders (there 50-d) and the shared fusion; `fusion="concat"` is
the code's. Cross-entropy or BCE as task loss (there L1). Evaluation takes the mean;
`eval_sample=True` samples as the code does.

Parity: mib_emib_fusion_forward, mib_emib_vib_loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ibma.features.store import Batch
from ibma.network.method import MIBForm, Output, Spec, presence


class Model(MIBForm):
    """E-MIB: one bottleneck after the fusion; parameters as in `MIBForm`."""

    def __init__(self, spec: Spec, **hparams: Any) -> None:
        super().__init__(spec, **hparams)
        self.fusion = self.new_fusion()
        self.gaussian = self.new_bottleneck()
        self.head = spec.task.head(spec.width)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """Run the network; `extra` holds mean and std [B, D] of the fused bottleneck."""
        z = self.encode(x)
        mean, std = self.gaussian(self.fusion(z.values(), presence(x, self.names)))
        sample = mean + std * self.noise(std)
        return Output(z, sample, self.head(sample), {"mean": mean, "std": std})

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Return `task` and `kl`."""
        main = self.MAIN_WEIGHT * self.judge(out.logits, batch)
        return {"task": main, "kl": self.rate(out.extra["mean"], out.extra["std"], batch)}
