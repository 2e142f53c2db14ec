"""Measure how fast the package is, and against what: `python -m benchmarks`.

What is measured is the code of this checkout, whether it is installed or not.
"""

import sys
import time
from pathlib import Path

STARTED = time.monotonic()  # before torch is imported

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
