"""Fill data/raw/<data set> and list it: `python stages/download.py DATASET`."""

from pathlib import Path

import checkout  # noqa: F401

from ibma import paths
from ibma.errors import IbmaError, run_stage, tell
from ibma.params import Params, prepare


def download(params: Params, dataset: str) -> None:
    """Generate the twin of a data set, or fetch what is open of the real one."""
    from ibma import datasets, fetch
    from ibma.files import write_json
    from ibma.formats import checksums

    if dataset not in params.datasets:
        listed = ", ".join(params.datasets)
        raise IbmaError(f"params.yaml: no data set '{dataset}': expected one of {listed}")
    raw = paths.RAW / dataset
    manifest = fetch.dataset(dataset, params.datasets[dataset].source, raw)
    if manifest["missing"]:
        tell(f"{dataset}: {manifest['missing']}")
    reader = checksums.sha256(Path(datasets.__file__).with_name(f"{dataset}.py"))
    write_json(paths.manifest(dataset), manifest | {"reader": reader})


if __name__ == "__main__":
    run_stage(download, prepare)
