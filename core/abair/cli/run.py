"""Run a command line: one call, one exit code.

0: success. 1: something failed, each failure is one line on stderr. 2: wrong usage. 130: stopped by
Ctrl-C. 141: the reader of stdout is gone. 143: stopped by SIGTERM.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Final, cast

import typer

from abair.cli.console import Reporter, command_line, debug_enabled, flush_stdout, program
from abair.errors import AbairError

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
TERMINATED: Final = 143
_NO_COMMAND: Final = re.compile("No such command '(.*)'")
_PYDANTIC_WORDS: Final = "Input should be "  # from newer versions of Typer
# click's base of all usage errors; newer versions of Typer bring a click of their own
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; the program ends as by Ctrl-C, with everything put in order."""


_terminated = threading.Event()
"""Set by SIGTERM: a library may raise a `KeyboardInterrupt` of its own in place of `Terminated`."""


def heed_termination() -> None:
    """Let SIGTERM raise `Terminated` in this process."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is putting in order
        _terminated.set()
        raise Terminated("stopped by SIGTERM")

    signal.signal(signal.SIGTERM, end)


def run_app(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Call the command line `name` and return its exit code; raises nothing but `SystemExit`."""
    program.set(name)
    command_line.set(tuple(arguments))
    reporter = Reporter()
    # of processes that train together, all meet the same error of the user's, and the first speaks
    speaks = os.environ.get("RANK", "0") == "0"
    try:
        _invoke(app, name, arguments)
    except typer.Exit as done:
        return int(done.exit_code)
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated) or _terminated.is_set()
        if speaks:
            how = "SIGTERM" if terminated else "Ctrl-C"
            reporter.log(f"stopped by {how}; finished files are kept, unfinished ones were removed")
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        flush_stdout()
        return BROKEN_PIPE
    except _UsageError as error:
        return _report_usage_error(error, reporter, name)
    except Exception as error:
        if speaks or not isinstance(error, AbairError):
            reporter.fail(error)
        flush_stdout()  # it may be stdout that failed
        return 1
    return 0


def _invoke(app: typer.Typer, name: str, arguments: Sequence[str]) -> None:
    """Call the command line, but not by its `main`, which has exit codes of its own."""
    command = typer.main.get_command(app)
    with warnings.catch_warnings():
        if not debug_enabled() and not sys.warnoptions:
            warnings.simplefilter("ignore")  # libraries' notes to programmers
        with command.make_context(name, list(arguments)) as context:
            command.invoke(context)
    if sys.stdout is not None:  # None where it was closed: for daemons, by >&-
        sys.stdout.flush()


def _report_usage_error(error: typer.BadParameter, reporter: Reporter, name: str) -> int:
    text = error.format_message().replace("Value error, ", "")  # pydantic's words, in newer versions of Typer
    context = error.ctx
    if context is not None and text == context.get_help():  # a group of commands, without a command
        print(text, file=sys.stderr)
    else:
        path = context.command_path if context is not None else name
        text = text.replace(_PYDANTIC_WORDS, f"found {_given_value(error)}expected ").partition(", unable to parse")[0]
        if (wrong := _NO_COMMAND.match(text)) and os.path.exists(wrong[1]):
            text = f"{text.rstrip('.')}; to restore that photo: {name} restore {wrong[1]}"
        reporter.log(f"{text.rstrip('.')} (see {path} --help)")
    return 2


def _given_value(error: typer.BadParameter) -> str:
    """Return the value that an option was given and a comma, or nothing if it cannot be told."""
    options = getattr(getattr(error, "param", None), "opts", ())
    arguments = command_line.get()
    found = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, mark, value = argument.partition("=")
        if option in options:  # of several the last one counts
            found = f"{(value if mark else following)!r}, "
    return found
