"""Let DVC record stages that ran outside of it: `python -m ibma.commit STAGE...` in its folder.

As `dvc commit --force STAGE...` does, but with one writing of the lock file for all of them: that
takes DVC seconds where there are hundreds of stages.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo

from ibma.doors import door
from ibma.errors import IbmaError


def commit(names: Collection[str]) -> None:
    """Record the dependencies, parameters and outputs of stages as they are now.

    Raises IbmaError with DVC's complaint, of a missing output for example.
    """
    try:
        _commit(names)
    except DvcException as error:
        raise IbmaError(f"dvc.yaml: {error}") from None


def _commit(names: Collection[str]) -> None:
    with Repo() as repo, lock_repo(repo):
        stages = [stage for stage in repo.index.stages if stage.name in names]
        for stage in stages:
            # DVC keeps no stage whose outputs persist in its run cache, and takes long to see that
            stage.save(run_cache=not any(out.persist for out in stage.outs))
            stage.commit()
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


if __name__ == "__main__":
    door(lambda: commit(sys.argv[1:]))
