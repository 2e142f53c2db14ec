"""Stage `audit`: do the paper's printed numbers agree with each other? Writes data/audit.json."""

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.check_paper(params.load()))
