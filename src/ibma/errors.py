"""Print errors in one line, show progress, and end processes on signals."""

from __future__ import annotations

import ctypes
import errno
import inspect
import os
import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

PATIENCE = 1.2  # seconds from a signal to the end of the process, whatever its cleanup does
STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
REMEDIES = {
    errno.ENOSPC: "disk full: free space",
    errno.EDQUOT: "disk quota used up: free space or ask for more",
    errno.EFBIG: "file larger than is allowed: raise `ulimit -f` or use another file system",
    errno.EROFS: "file system is read-only: make it writable or move the project",
    errno.EACCES: "permission denied: get the right to read and write it",
    errno.EPERM: "operation not permitted: get the right to read and write it",
    errno.EIO: "the disk cannot be read or written: check it and restore the file",
    errno.EMFILE: "too many open files: raise `ulimit -n` or lower engine.workers in params.yaml",
}
PATHS = {  # causes that lie in how folders and files are called
    errno.EISDIR: "a folder, expected a file: remove or rename it",
    errno.ENOTDIR: "leads through a file as if it were a folder: remove or rename that file",
    errno.EEXIST: "a file or a dead link, expected a folder: remove or rename it",
    errno.ENAMETOOLONG: "a name that is too long for this file system: shorten it",
    errno.ELOOP: "a link that leads to itself: remove it",
}

LOG_SECONDS = 10.0  # between two lines of progress in a log file

TOKEN = 20  # a user name of this length or more in an address is taken for a token
_LOGIN = re.compile(r"(?<=://)([^\s/@:?#]*)(:(?!\d{1,5}(?:[/?#]|\s|$))\S*)?@")
_BARE_LOGIN = re.compile(r"(?<![^\s'\"])([^\s/@:?#'\"]+):[^\s/@]+@(?=\w)")  # without a scheme
# requests quotes a header that it refuses
_BEARER = re.compile(r"\b(Bearer|Authorization: Basic) [^\s:'\"]+")
_SECRET = re.compile(  # MLflow calls a view by a key, which is no secret
    r"([?&;#](?!viewStateShareKey=)[\w.-]*(?:token|key|secret|pass|pwd|auth|credential|sig)"
    r"[\w.-]*=)[^\s&;#'\"]+",
    re.IGNORECASE,
)
_NAMED = re.compile(  # outside of an address: AWS_SECRET_ACCESS_KEY=..., {'password': '...'}
    r"((?:token|secret|passw(?:or)?d|pwd|passphrase|credentials?|(?:api|access|secret|private|"
    r"account|auth)[_-]?key)(?:_id)?(?:\s*=|['\"]\s*[:=])\s*)(?!\*\*\*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s&;#'\"]+)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Hide passwords and tokens of a text: `http://bob:***@host/?token=***`, `HF_TOKEN=***`."""

    def hide(login: re.Match[str]) -> str:
        user = "***" if len(login[1]) >= TOKEN else login[1]
        return f"{user}:***@" if login[2] else f"{user}@"

    shown = _BARE_LOGIN.sub(r"\1:***@", _LOGIN.sub(hide, text))
    for pattern, hidden in ((_BEARER, r"\1 ***"), (_SECRET, r"\1***"), (_NAMED, r"\1***")):
        shown = pattern.sub(hidden, shown)
    return shown


def installing(extra: str) -> str:
    """Return the command that installs ibma with the packages of an extra."""
    return f"`pip install '.[{extra}]'` in a clone of ibma"


def tell(line: str) -> None:
    """Print a line on standard error, without secrets; go on if it cannot be written."""
    try:
        print(redact(line), file=sys.stderr, flush=True)
    except OSError:  # a log on a full disk, a pipe or terminal that is gone
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, sys.stderr.fileno())  # what is left to print must not fail at the exit
        os.close(silent)


class IbmaError(Exception):
    """Bad input or a broken environment, explained in one line.

    The message names the file, row or key, says what was expected and what to do.
    Stages and the command line print it and exit with status 1; no traceback is shown.
    """

    def __init__(self, message: str) -> None:
        """Keep the message without the secrets of addresses in it."""
        super().__init__(redact(message))


class Stopped(BaseException):
    """SIGINT or SIGTERM, raised in the main thread so that `finally` blocks run.

    It is no KeyboardInterrupt: libraries catch that one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_stage(main: Callable[..., object], *load: Callable[[], object]) -> None:
    """Run a program; print an error that a user can solve in one line, and exit with its status.

    The status is 1 for IbmaError and for errors of the file system, 130 for SIGINT, 143 for
    SIGTERM. Any other exception is a defect of this program and keeps its traceback.

    Args:
        main: takes what `load` returns, then the texts of the command line.
        load: called for the first arguments once the command line is known to be right.
    """
    if not sys.stderr.isatty():  # transformers' own bars would write carriage returns into a log
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    once = threading.Lock()
    with _raising_on_signals(once):
        try:
            _check_usage(main, len(load))
            main(*(each() for each in load), *sys.argv[1:])
        except IbmaError as error:
            _print(str(error), once)
            sys.exit(1)
        except Stopped as stop:
            _print(_stopped(stop.number), once)
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(128 + stop.number)  # at once: threads may wait for calls made elsewhere
        except OSError as error:
            told = (REMEDIES | PATHS).get(error.errno or 0)
            if told is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _print(f"{where}{told}, then run again: finished work is kept", once)
            sys.exit(1)


def follow(parent: int) -> None:
    """Ignore SIGINT in a child process, and end this process when its parent ends.

    Args:
        parent: its process id, taken before this process was started.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


@contextmanager
def blocking_signals() -> Iterator[None]:
    """Block SIGINT and SIGTERM; a process that is started meanwhile gets none before `follow`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Keep the signal handlers of this process while a library sets up its own.

    Raises:
        Stopped: a signal came meanwhile, and the library's own handler ended the process.
    """
    handlers = {number: signal.getsignal(number) for number in STOPS}
    try:
        yield
    except SystemExit as end:  # of the library's own handler
        raise Stopped(end.code) if end.code in STOPS else end from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def one_line(told: object) -> str:
    """Return a text, or what an error says, with single spaces and no line break."""
    return " ".join(str(told).split())


def tidy(text: str) -> str:
    """Return a text as it is compared with others: in one line, in one form of Unicode."""
    return one_line(unicodedata.normalize("NFC", text))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _check_usage(main: Callable[..., object], loaded: int) -> None:
    """Raise IbmaError with the right usage if the command line has too few or too many texts."""
    signature = inspect.signature(main)
    try:
        signature.bind(*[None] * loaded, *sys.argv[1:])
    except TypeError:
        names = [
            name.upper() if each.default is each.empty else f"[{name.upper()}]"
            for name, each in signature.parameters.items()
        ]
        raise IbmaError(f"usage: {' '.join(['python', sys.argv[0], *names[loaded:]])}") from None


@contextmanager
def _raising_on_signals(once: threading.Lock) -> Iterator[None]:
    """Raise `Stopped` on SIGINT and SIGTERM, and end the process when that does not help."""
    awake, write = os.pipe()
    os.set_blocking(write, False)
    threading.Thread(target=_end, args=(awake, once), daemon=True).start()
    # written to by the C handler: the guard wakes even while the main thread is in native code
    before = signal.set_wakeup_fd(write)
    handlers = {number: signal.signal(number, _stop) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(write)


def _stop(number: int, _: object) -> None:
    for each in STOPS:  # a second signal must not interrupt the cleanup
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def _end(awake: int, once: threading.Lock) -> None:
    """Wait for a signal, then end the process if it is still there after `PATIENCE`."""
    while (received := os.read(awake, 1)) and received[0] not in STOPS:
        pass
    os.close(awake)
    if received:
        time.sleep(PATIENCE)
        _print(_stopped(received[0]), once)
        os._exit(128 + received[0])


def _stopped(number: int) -> str:
    return f"{STOPS[signal.Signals(number)]}: run again to go on, finished work is kept"


def _print(line: str, once: threading.Lock) -> None:
    """Print an error unless one was printed; the lock is never released."""
    if once.acquire(blocking=False):
        tell(f"error: {' '.join(line.splitlines())}")


# --- progress ------------------------------------------------------------------------------------


class _Lines:
    """A log file for a progress bar: it gets lines, where a terminal is drawn over."""

    def write(self, text: str) -> None:
        """Print what the bar shows; the moves of a cursor are left out."""
        if shown := text.strip():
            tell(shown)

    def flush(self) -> None:
        """Do nothing: every line is flushed."""


def progress_bar(steps: Iterable[Any] | None = None, **shown: Any) -> Any:
    """Show how far a task is: a bar on a terminal, a line now and then in a log file.

    Args:
        steps: what to walk; None: the caller calls `update`.
        shown: arguments of tqdm, `desc`, `total` and `unit` among them.
    """
    if steps is not None and find_spec("tqdm") is None:
        return steps  # the loss and the estimators do without
    from tqdm import tqdm

    if sys.stderr.isatty():
        return tqdm(steps, mininterval=1.0, dynamic_ncols=True, **shown)
    seldom = {"mininterval": LOG_SECONDS, "maxinterval": LOG_SECONDS, "file": _Lines()}
    of_all = "{desc}: {n_fmt} of {total_fmt}, {elapsed}, {remaining} left{postfix}"
    form = of_all if shown.get("total") else "{desc}: {n_fmt} {unit}, {elapsed}"
    return tqdm(steps, bar_format=form, **seldom, **shown)
