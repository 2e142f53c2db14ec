"""Run a stage and log what it uses: `python traced.py LOG STAGE [ARGUMENT...]`.

A line of the log is `read` or `written` and a path, or `key` and a key of params.yaml. Processes
that the stage forks write into the same log.
"""

import os
import runpy
import sys
from collections.abc import Callable
from importlib.util import source_from_cache
from pathlib import Path

Note = Callable[[str, object], object]


def watch_files(note: Note) -> None:
    """Note every file that is opened, linked or renamed from now on, and every folder listed."""

    def hook(event: str, args: tuple) -> None:
        match event:
            case "open" if isinstance(args[0], str | bytes) and (args[2] or 0) & os.O_ACCMODE:
                note("written", args[0])
            case "open" if isinstance(args[0], str | bytes):
                cached = "__pycache__" in os.fsdecode(args[0])
                note("read", source_from_cache(args[0]) if cached else args[0])
            case "os.listdir" | "os.scandir" if isinstance(args[0], str | bytes):
                note("read", args[0])
            case "os.link":
                note("read", args[0])
                note("written", args[1])
            case "os.rename":
                note("written", args[1])

    sys.addaudithook(hook)


def watch_keys(note: Note) -> None:
    """Note every key that is read of params.yaml once it is checked: the check reads all."""
    from ibma import params  # once files are watched

    prepare, get = params.prepare, params.Params.__getattribute__

    def noting(self: params.Params, name: str) -> object:
        if name in params.Params.model_fields:
            note("key", name)
        return get(self, name)

    def then_watch() -> params.Params:
        loaded = prepare()
        params.Params.__getattribute__ = noting
        return loaded

    params.prepare = then_watch


if __name__ == "__main__":
    log, *sys.argv = sys.argv[1:]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str, name: object) -> None:
        """Write a line at once, for a process may be killed."""
        where = name if what == "key" else os.path.abspath(os.fsdecode(name))
        if what == "written" and "__pycache__" in where:  # by Python, in a fresh clone
            return
        os.write(file, f"{what} {where}\n".encode())

    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    watch_files(note)
    watch_keys(note)
    runpy.run_path(sys.argv[0], run_name="__main__")
