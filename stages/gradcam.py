"""Show where image encoders look: `python stages/gradcam.py`."""

import checkout  # noqa: F401

from ibma.errors import run_stage
from ibma.params import Params, prepare


def gradcam(params: Params) -> None:
    """Explain the first run of some methods by Grad-CAM (Figures 1 and 3)."""
    from ibma.experiments.gradcam import explain_tasks

    explain_tasks(params)


if __name__ == "__main__":
    run_stage(gradcam, prepare)
