"""The command lines as Markdown: every command, argument, option and default."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Protocol, cast

import typer

import abair.cli.run
from abair.cli import app as core
from abair_registry.cli import app as registry

APPS = {"abair": core.app, "abair-registry": registry.app}


class Context(Protocol):
    """What is read of Click's context.

    Typer may bring a Click of its own, so Click's classes are not imported.
    """

    command_path: str


class Parameter(Protocol):
    """What is read of Click's parameter."""

    name: str | None

    def get_help_record(self, ctx: Context) -> tuple[str, str] | None:
        """Return the names and the help text, None for a hidden one."""


class Command(Protocol):
    """What is read of Click's command."""

    help: str | None
    hidden: bool

    def make_context(
        self, info_name: str, args: list[str], parent: Context | None = None, *, resilient_parsing: bool
    ) -> Context:
        """Return the context of a call."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Return the words of the usage line."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        """Return arguments and options."""


def reference(name: str) -> str:
    """Return a section for each command of one program, in the order of its help."""
    command = cast("Command", typer.main.get_command(APPS[name]))
    context = command.make_context(name, [], resilient_parsing=True)
    return "\n\n".join(_sections(command, context, top=True))


def exit_codes() -> str:
    """Return what the module that ends both programs says of their exit codes."""
    lines = (inspect.getdoc(abair.cli.run) or "").splitlines()
    return "\n".join(lines[1:]).strip()


def _sections(command: Command, context: Context, *, top: bool = False) -> Iterator[str]:
    children = getattr(command, "commands", None) or {}
    path = context.command_path
    if not top:
        yield f"### `{path}`"
    yield _paragraphs(command.help or "")
    if not children:
        pieces = [piece.strip("{}") for piece in command.collect_usage_pieces(context)]
        yield f"```text\n{' '.join([path, *pieces])}\n```"
        yield "\n\n".join(filter(None, (_parameter(given, context) for given in command.get_params(context))))
    for name, child in children.items():
        if not child.hidden:
            yield from _sections(child, child.make_context(name, [], parent=context, resilient_parsing=True))


def _paragraphs(text: str) -> str:
    return _escape(inspect.cleandoc(text))


def _parameter(parameter: Parameter, context: Context) -> str:
    """Return one parameter as an item of a definition list; empty for hidden ones and `--help`."""
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return ""
    record = parameter.get_help_record(context)
    if record is None:
        return ""
    names, text = (re.sub(r"\s+", " ", part).strip() for part in record)
    return f"`{names}`\n: {_escape(text) or '-'}"


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup; code in backticks stays code."""
    return re.sub(r"([*_<>\[\]|])", r"\\\1", text)
