"""Ctrl-C, SIGTERM and a closed terminal: what stops a program, from its first import to its end.

Only the standard library is imported here, so that the handlers are in place before anything else
loads. While modules load there is nothing to put in order, and a signal ends the program at once.
While a command works, a signal raises `KeyboardInterrupt` or its child `Terminated`, so that every
`finally` is run.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from types import FrameType

HOW: Final[dict[int, str]] = {
    getattr(signal, name): how
    for name, how in (("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGHUP"))
    if hasattr(signal, name)
}
"""The signals that stop a program, and what people call them; Windows has no SIGHUP."""
LAUNCHER: Final = "ABAIR_LAUNCHER"
"""The variable with the process id of the `abair train --processes` that started this process."""
Handler = Callable[[int, "FrameType | None"], object] | signal.Handlers
RETRY_SECONDS: Final = 0.02


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received; the program ends as by Ctrl-C, with everything in order."""


class _Program:
    """What the handlers of this process know.

    Attributes:
        name: of the program; empty until `exit_at_once` makes the handlers this process's.
        received: the signal that stops it, if any.
        timer: calls the handler again, if an exception would be lost now.
        due: that call is being made.
        works: whether a signal is to raise an exception.
    """

    name = ""
    received: int | None = None
    timer: threading.Timer | None = None
    due = False
    works = False


def exit_at_once(program: str) -> None:
    """Let a signal end this process in one line and without a traceback: for while modules load.

    A signal that whoever started this process ignores stays ignored: shells start background jobs
    without Ctrl-C, and `nohup` without SIGHUP.
    """
    _Program.name = program
    _handle(_exit)
    sys.unraisablehook = _hear_unraisable
    atexit.register(_handle, signal.SIG_IGN)  # called last; then the interpreter takes its handlers away


@contextmanager
def raising() -> Iterator[None]:
    """Let a signal raise `KeyboardInterrupt` or `Terminated` in this block, if this is a program.

    Without `exit_at_once` before it, this does nothing: who calls a command line as a function has
    handlers of their own.
    """
    if not _Program.name:
        yield
        return
    _Program.works = True
    _handle(_raise)
    try:
        yield
    finally:
        _Program.works = False
        _handle(_ignore)  # until `finish`: what is left is to say how it ended


def finish(code: int) -> int:
    """Return the program's exit code; from now on a signal only shortens the interpreter's end."""
    if _Program.name:

        def leave(_number: int, _frame: FrameType | None) -> None:
            os._exit(code)

        _handle(leave)
    return code


def raise_if_received() -> None:
    """Raise the signal that was received, if any: a library may have turned it into another error.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        Terminated: SIGTERM or SIGHUP was received.
    """
    if _Program.received is not None:
        raise _stop(_Program.received)


def stopped_by(stop: KeyboardInterrupt) -> tuple[str, int]:
    """Return what stopped the program, for people, and its exit code: 128 + the signal's number."""
    number = _Program.received
    if number is None:
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
    return HOW[number], 128 + number


def speaks() -> bool:
    """Tell whether this process says that it was stopped.

    Of processes that train together it is the one that started them, or else the one of rank zero.
    """
    return LAUNCHER not in os.environ and os.environ.get("RANK", "0") == "0"


def _handle(handler: Handler) -> None:
    for number in HOW:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _hear_unraisable(unraisable: sys.UnraisableHookArgs, /) -> None:
    """Take what Python can raise nowhere: in `__del__` and in weak references' callbacks."""
    if _Program.received is None:
        sys.__unraisablehook__(unraisable)
    elif isinstance(unraisable.exc_value, KeyboardInterrupt) and _Program.works:
        _raise_later(_Program.received)
    # else a library stumbles over processes that were stopped, too: no news


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    if speaks():
        with suppress(OSError):  # stderr is closed
            os.write(2, f"{_Program.name}: stopped by {HOW[number]}; nothing was begun\n".encode())
    os._exit(128 + number)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def _raise(number: int, frame: FrameType | None) -> None:
    sent_again = _Program.received is not None and not _Program.due
    _Program.due = False
    if _Program.received in (None, signal.SIGINT):
        _Program.received = number
    if _imports(frame) and not sent_again:
        _raise_later(number)
        return
    if _Program.timer is not None:
        _Program.timer.cancel()
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_IGN)  # once is enough: what follows is putting in order
    raise _stop(number)


def _imports(frame: FrameType | None) -> bool:
    """Return whether a module is being imported.

    Some modules in C++ abort the process, before its clean-up, if their import is interrupted.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _raise_later(number: int) -> None:
    """Let the handler be called again in a moment, from where an exception is not lost."""

    def again() -> None:
        if _Program.works:
            _Program.due = True
            _thread.interrupt_main(signal.Signals(number))

    signal.signal(number, _raise)
    _Program.timer = threading.Timer(RETRY_SECONDS, again)
    _Program.timer.daemon = True
    _Program.timer.start()


def _stop(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(f"stopped by {HOW[number]}")
