"""The frame every stage door and the command line share: errors in one line, honest exit codes."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from ibma.errors import IbmaError


def door(main: Callable[[], None]) -> None:
    """Run `main`; tell what a user can mend in one line on stderr.

    Exits with 1 on IbmaError and on a full disk, with 130 on Ctrl-C. Any other exception is a
    defect of this program and keeps its traceback.
    """
    try:
        main()
    except IbmaError as error:
        _leave(str(error), 1)
    except KeyboardInterrupt:
        _leave("interrupted: run again to go on, finished work is kept", 130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _leave(f"disk full{where}: free space and run again, finished work is kept", 1)


def _leave(line: str, code: int) -> None:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(code)
