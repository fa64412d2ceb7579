"""Run a command line: one call, one exit code.

0: success. 1: something failed, each failure is one line on stderr. 2: wrong usage. 129: stopped by
SIGHUP, a closed terminal. 130: stopped by Ctrl-C. 141: the reader of stdout is gone. 143: stopped
by SIGTERM.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Final, cast

import typer

from abair import signals
from abair.cli.console import Reporter, command_line, debug_enabled, flush_stdout, program
from abair.errors import AbairError

BROKEN_PIPE: Final = 141
_NO_COMMAND: Final = re.compile("No such command '(.*)'")
_PYDANTIC_WORDS: Final = "Input should be "  # from newer versions of Typer
# click's base of all usage errors; newer versions of Typer bring a click of their own
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])


def run_app(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Call the command line `name` and return its exit code; raises nothing but `SystemExit`."""
    program.set(name)
    command_line.set(tuple(arguments))
    reporter = Reporter()
    try:
        with signals.raising():
            _invoke(app, name, arguments)
        code = 0
    except BaseException as error:
        code = _end(error, reporter, name)
    return signals.finish(code)


def _end(error: BaseException, reporter: Reporter, name: str) -> int:
    """Say how the command ended, in one line, and return its exit code.

    Raises:
        SystemExit: a library ended the program.
    """
    if isinstance(error, Exception):
        try:
            signals.raise_if_received()
        except KeyboardInterrupt as stop:
            error = stop
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        how, code = signals.stopped_by(error)
        if signals.speaks():
            reporter.log(f"stopped by {how}; finished files are kept, unfinished ones were removed")
        return code
    if isinstance(error, BrokenPipeError):
        flush_stdout()
        return BROKEN_PIPE
    if isinstance(error, _UsageError):
        return _report_usage_error(error, reporter, name)
    if not isinstance(error, Exception):
        raise error
    # of processes that train together, all meet the same error of the user's, and the first speaks
    if os.environ.get("RANK", "0") == "0" or not isinstance(error, AbairError):
        reporter.fail(error)
    flush_stdout()  # it may be stdout that failed
    return 1


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


def _given_value(error: BaseException) -> str:
    """Return the value that pydantic refused and a comma, or nothing if it cannot be told."""
    refused = getattr(error.__cause__ or error.__context__, "errors", None)
    return f"{refused()[0]['input']!r}, " if refused else ""
