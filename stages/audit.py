"""Stage `audit`: do the paper's printed numbers agree with each other? Writes data/audit.json."""

from dataclasses import asdict
from pathlib import Path

from ibma import audit, published
from ibma.doors import door
from ibma.jsonfile import write_json


def main() -> None:
    """Run every check on published.yaml and say how many hold."""
    checks = audit.run(published.load())
    write_json(Path("data/audit.json"), [asdict(check) for check in checks])
    print(audit.summary(checks))


if __name__ == "__main__":
    door(main)
