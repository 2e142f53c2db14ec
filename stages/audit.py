"""Stage `audit`: do the paper's printed numbers agree with each other? Writes data/audit.json."""

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.check_paper(params.load()))
