"""List a table of your own and the files that it names: `python stages/tables.py TABLE`."""

import checkout  # noqa: F401

from ibma import paths
from ibma.errors import run_stage
from ibma.params import Params, prepare


def tables(params: Params, table: str) -> None:
    """Write the manifest of a table. DVC runs this every time: your files may have changed."""
    from ibma.files import write_json
    from ibma.tables import listing

    write_json(paths.manifest(table), listing(params, table))


if __name__ == "__main__":
    run_stage(tables, prepare)
