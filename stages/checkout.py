"""Run the code beside this file, whichever checkout the installed package points to.

Every stage imports this module first. DVC runs an experiment in a copy of the project; without
this line the copy would hash its own code and run another's.
"""

import gc
import os
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("ruamel") is None:  # a Python other than that of the project
    sys.exit(
        f"error: {sys.executable} lacks the packages of ibma: run `make setup`, then "
        "`source .venv/bin/activate`"
    )

SRC = str(Path(__file__).resolve().parents[1] / "src")
sys.path.insert(0, SRC)
# for processes that a stage starts
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SRC, os.environ.get("PYTHONPATH")]))

# torch and transformers make millions of objects as they load; looking for garbage among them after
# every 700, as Python does, takes a fifth of a stage's start
gc.set_threshold(100_000)
