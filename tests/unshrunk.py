"""Pytest for mutants, each of which is tried in a fork of one process."""

import gc
import os

from hypothesis import Phase, settings

# the same examples each time, and no search for a smaller one
settings.register_profile(
    "unshrunk", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None
)
settings.load_profile("unshrunk")
# statsmodels collects garbage in every call: what was there before the fork is none
os.register_at_fork(before=gc.freeze)
