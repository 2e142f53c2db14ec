"""Stage `report`: tables, figures and the page of the current profile."""

from ibma import params
from ibma.doors import door
from ibma.experiments import runs

if __name__ == "__main__":
    door(lambda: runs.write_report(params.load()))
