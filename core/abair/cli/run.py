"""How a command line of ours begins and ends: one call, one exit code.

0 all done; 1 something failed, each failure in one line on stderr; 2 wrong usage; 130 stopped by Ctrl-C; 141 nobody
reads stdout any more.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final, cast

import typer

from abair.cli.console import Reporter, debugging, program, settle_stdout

INTERRUPTED: Final = 130
NOBODY_READS: Final = 141
_UsageError = cast(
    "type[Exception]", typer.BadParameter.__bases__[0]
)  # click's; newer Typers bring a click of their own


def run_app(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """One call of the command line `name`; returns the exit code and never raises for anything but `SystemExit`."""
    command = typer.main.get_command(app)
    program.set(name)
    reporter = Reporter()
    try:
        # not `command.main`, which has words and exit codes of its own for Ctrl-C and wrong usage
        with warnings.catch_warnings():
            if not debugging() and not sys.warnoptions:
                warnings.simplefilter("ignore")  # libraries' notes to programmers
            with command.make_context(name, list(arguments)) as context:
                command.invoke(context)
        if sys.stdout is not None:  # as where it was closed: for daemons, by >&-
            sys.stdout.flush()
    except typer.Exit as done:
        return int(done.exit_code)
    except KeyboardInterrupt:
        reporter.say("stopped by Ctrl-C; what was being written is not there, what was finished stays")
        return INTERRUPTED
    except BrokenPipeError:
        settle_stdout()
        return NOBODY_READS
    except _UsageError as error:
        return _wrong_usage(error, reporter, name)
    except Exception as error:
        reporter.fail(error)
        settle_stdout()  # it may be stdout that failed
        return 1
    return 0


def _wrong_usage(error: Any, reporter: Reporter, name: str) -> int:
    text = error.format_message().replace("Value error, ", "")  # pydantic's words, in newer Typers
    context = getattr(error, "ctx", None)
    if context is not None and text == context.get_help():  # a group of commands, without a command
        print(text, file=sys.stderr)
    else:
        path = context.command_path if context is not None else name
        reporter.say(f"{text.rstrip('.')} (see {path} --help)")
    return 2
