"""Stage `report`: tables, figures and the page of the current profile."""

from ibma import cells, params
from ibma.doors import door

if __name__ == "__main__":
    door(lambda: cells.write_report(params.load()))
