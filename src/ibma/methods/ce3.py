"""CE3: IBMA's own network with cross-entropy on every head and no bound.

Citation: none, a control of ours.

Official code: none.

Code over paper: loss (2) of the paper at eta = 0; what IBMA gains over this row is due to its
bound, not to its extra heads.

Choices: none beyond IBMA's.

Parity: equal to IBMA without its bound (tests/test_methods.py).
"""

from __future__ import annotations

from ibma.network.method import Headed


class Model(Headed):
    """CE3: attention fusion, one linear head per modality and one on the fused representation."""
