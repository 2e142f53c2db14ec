"""CE3: IBMA's own network with cross-entropy on every head and no bound.

The control that the paper lacks: what IBMA gains over this row is due to its bound, not to its
extra heads. It is loss (2) of the paper at eta = 0.
"""

from __future__ import annotations

from ibma.methods import Headed


class Model(Headed):
    """Attention fusion, one linear head per modality and one on the fused representation."""
