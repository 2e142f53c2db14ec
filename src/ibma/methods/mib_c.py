"""C-MIB: multimodal information bottleneck per modality and after the fusion (Mai et al., 2023).

Citation: S. Mai, Y. Zeng, H. Hu. Multimodal information bottleneck: Learning minimal sufficient
unimodal and multimodal representations. IEEE Transactions on Multimedia 2023.

Official code: TmacMai/Multimodal-Information-Bottleneck@f6d006b, MIB_github/cmib.py.

Code over paper: KL is a mean over dimensions too (the paper's Eqs. 14 and 15 sum them; beta = 1e-3
goes with the mean), and the fused task loss counts twice (`double_main`).

Choices: embeddings of the shared encoders (there 50-d) and the shared fusion; `fusion="concat"` is
the code's. Cross-entropy or BCE as task loss (there L1). Evaluation takes the means;
`eval_sample=True` samples as the code does.

Parity: not tested, no oracle; its parts are those of E-MIB and L-MIB.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ibma import bounds
from ibma.methods import Gaussian, Method, Output, Spec, fusion_of
from ibma.store import Batch

HIDDEN = 1024
FUSED = "fused"


class Model(Method):
    """C-MIB. beta: weight of the KLs. fusion: "shared" or "concat"."""

    def __init__(
        self,
        spec: Spec,
        *,
        beta: float = 1e-3,
        fusion: str = "shared",
        double_main: bool = True,
        eval_sample: bool = False,
    ) -> None:
        super().__init__(spec)
        self.beta, self.double_main = beta, double_main
        self.sample_in_evaluation = eval_sample
        places = (*self.names, FUSED)
        self.gaussians = nn.ModuleDict({n: Gaussian(spec.width, HIDDEN) for n in places})
        self.heads = nn.ModuleDict({n: spec.task.head(spec.width) for n in places})
        self.fusion = fusion_of(spec, fusion)

    def forward(self, x: Mapping[str, Tensor]) -> Output:
        """x: modality -> [B, ...]; `extra`: mean/, std/ [B, D] and logits/ [B, C] of each place.

        Places are the modalities and `fused`.
        """
        z = self.encode(x)
        extra: dict[str, Tensor] = {}
        samples = [self._squeeze(name, z[name], extra) for name in self.names]
        fused = self._squeeze(FUSED, self.fusion(samples), extra)
        return Output(z, fused, extra[f"logits/{FUSED}"], extra)

    def _squeeze(self, name: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        mean, std = self.gaussians[name](value)
        sample: Tensor = mean + std * self.noise(std)
        logits = self.heads[name](sample)
        extra |= {f"mean/{name}": mean, f"std/{name}": std, f"logits/{name}": logits}
        return sample

    def losses(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Terms `task/` and `kl/` of the modalities and of `fused`."""
        terms: dict[str, Tensor] = {}
        for name in (*self.names, FUSED):
            times = 1 + (self.double_main and name == FUSED)
            task = self.spec.task.loss(out.extra[f"logits/{name}"], batch.y)
            mean, std = (out.extra[f"{kind}/{name}"].float() for kind in ("mean", "std"))
            terms[f"task/{name}"] = times * task
            terms[f"kl/{name}"] = self.beta * bounds.gaussian_kl(mean, std).mean()
        return terms
