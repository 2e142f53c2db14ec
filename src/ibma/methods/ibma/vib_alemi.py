"""VIB by Gaussian posteriors, as Alemi et al. (2017) define it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ibma.methods.ibma import BoundSpec, Step
from ibma.methods.ibma._contrasted import Contrasted
from ibma.network import bounds
from ibma.network.method import standard_normal


class Bound(Contrasted):
    """VIB by a Gaussian posterior on every representation (Alemi et al. 2017).

    alexalemi/vib_demo@e719469, MNISTVIB.ipynb: deviation softplus(linear - 5). CHOICE: KL per
    dimension, as for `vib`; means in evaluation.
    """

    def __init__(self, spec: BoundSpec, align: bool) -> None:
        super().__init__(spec, align)
        self.posterior = nn.ModuleDict(
            {p: nn.Linear(spec.widths[p], 2 * spec.widths[p]) for p in self.places}
        )

    def transform(self, place: str, value: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Replace by a sample in training, by the mean in evaluation."""
        mean, rho = self.posterior[place](value).chunk(2, dim=1)
        std = F.softplus(rho - 5.0)
        extra |= {f"mean/{place}": mean, f"std/{place}": std}
        sample: Tensor = mean + std * standard_normal(std) if self.training else mean
        return sample

    def compress(self, place: str, modality: str, step: Step) -> Tensor:
        """Return the mean KL of the place's posterior."""
        mean, std = step.extra[f"mean/{place}"], step.extra[f"std/{place}"]
        return bounds.gaussian_kl(mean, std).mean()
