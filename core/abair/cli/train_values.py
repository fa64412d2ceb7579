"""The values of `abair train`'s options: names, labelled folders and times, as users write them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import typer

from abair.cli.console import Reporter
from abair.cli.options import parse_names

Value = TypeVar("Value", str, Path)


def current_value(
    value: Value | None, name: str, old_value: Value | None, old_name: str, reporter: Reporter
) -> Value | None:
    """Return an option's value, given by its name or, with a warning, by its old name.

    Raises:
        BadParameter: both are given.
    """
    if old_value is None:
        return value
    if value is not None:
        raise typer.BadParameter(f"found {old_name}, too, its old name; expected one of them", param_hint=name)
    reporter.log(f"warning: {old_name} is now {name}; the old name will be refused after this release")
    return old_value


def read_labels(labels: str | None) -> tuple[str, ...]:
    """Read A,B,...; None is no labels."""
    return parse_names(labels, "--labels") if labels is not None else ()


def read_labelled(text: str) -> tuple[str, Path]:
    """Read LABEL=DIR.

    Raises:
        BadParameter: it is not of that form.
    """
    label, equals, folder = text.partition("=")
    if not (label and equals and folder):
        raise typer.BadParameter(
            f"found {text!r}, expected a label and a folder, such as haze=photos/haze", param_hint="--labelled"
        )
    return label, Path(folder)


def read_minutes(time: str | None) -> float | None:
    """Read a time such as 1h30m; None stays None.

    Raises:
        BadParameter: it is no time, or none at all.
    """
    if time is None:
        return None
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", time)
    minutes = sum(float(n or 0) * of for n, of in zip(parts.groups(), (60, 1, 1 / 60), strict=True)) if parts else 0
    if not minutes:
        raise typer.BadParameter(
            f"found {time!r}, expected hours, minutes, seconds: 10m, 1h30m, 90s", param_hint="--time-budget"
        )
    return minutes
