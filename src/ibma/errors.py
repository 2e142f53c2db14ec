"""The one error a user is meant to see."""

from __future__ import annotations


class IbmaError(Exception):
    """Bad input or a broken environment, told in one line.

    The message names the file, row or key, says what was expected and what to do.
    Doors (`stages/`) and the command line print it and exit with status 1; no traceback is shown.
    """
