"""Text for people: printable lines, near misses of a mistyped name, Markdown tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST_FOREIGN: Final = 800
"""Most characters that are quoted from text that other people wrote."""


def one_line(text: str) -> str:
    """Return the text on one line, with control characters and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.splitlines()).strip())


def quote_foreign(text: str, longest: int = LONGEST_FOREIGN) -> str:
    """Return text by strangers on one line, without control characters.

    A text longer than `longest` characters is cut and ends in `...`.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * longest]).split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _dotted(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place))


def error_text(error: BaseException) -> str:
    """Return an error's message on one line, or its type's name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def describe_error(error: BaseException) -> str:
    """Return type and message of an error on one line.

    Of a validation error it is every field and what is wrong with it.
    """
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    try:
        text = " ".join(str(error).split())
    except Exception:  # the error is a plugin's, and so is its `__str__`
        text = ""
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def describe_fields(error: ValidationError, name_of: Callable[[tuple[int | str, ...]], str] = _dotted) -> str:
    """Return each wrong field of a validation error, what was found, and what was expected.

    Args:
        error: the error.
        name_of: gives the name that the reader knows a field by, from its place.
    """
    return "; ".join(f"{name_of(each['loc'])}: {_found_and_expected(each)}" for each in error.errors())


def _found_and_expected(error: ErrorDetails) -> str:
    found = f"found {quote_foreign(repr(error['input']), 100)}"
    if error["type"] == "extra_forbidden":
        return f"{found}; there is no such setting"
    wrong = error["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ", 1)
    wrong = wrong.partition(", unable")[0]  # how pydantic tried to read a text says nothing more
    if wrong.startswith("found "):
        return wrong
    return f"{found}, {wrong}" if wrong.startswith("expected ") else f"{found}: {wrong}"


def near_misses(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` known names that a mistyped `name` may mean, the likeliest first."""
    return get_close_matches(name, list(known), n=count, cutoff=0.6)


def format_measured(value: float) -> str:
    """Return a number with two decimals, or in the shorter scientific form from a million on."""
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:g}"


def escape_markdown(text: str) -> str:
    """Return text on one line for Markdown that shows it as it is: no link, tag or emphasis.

    A `|` is left to `markdown_table`.
    """
    return re.sub(r"([\\`*_\[\]<>&~])", r"\\\1", text)


def markdown_paragraph(text: str) -> str:
    """Return a paragraph of Markdown, broken between words into lines of up to 100 columns."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Return a Markdown table with padded cells, which reads well as plain text too.

    The columns whose numbers are in `left` hold text and are flush left; the others hold numbers
    and are flush right. A `|` in a cell is escaped.
    """
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (heading, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if column in left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    padded = [
        [cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))
