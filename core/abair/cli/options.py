"""Options that several commands share, and the values that they take."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typing_extensions import override

from abair.labels import MOST_LOOKS

_WHOLE: Final = 10_000
"""Characters of a command's line in a list of commands, at most; a sentence is wrapped, not cut."""


class WholeHelp(TyperGroup):
    """A group of commands whose help shows each command's first sentence to its end."""

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a row a command."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, found.get_short_help_str(_WHOLE)) for name, found in commands if found and not found.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


PLAIN: Final[dict[str, Any]] = {
    "cls": WholeHelp,
    "rich_markup_mode": None,
    "no_args_is_help": True,
    "add_completion": False,
}
"""Arguments of a group of commands. Help is plain text, because importing rich for it is slow."""

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


class Policy(StrEnum):
    """Blend all adapters by the estimate, use the likeliest alone, or use none."""

    soft = "soft"
    one_hot = "one-hot"
    backbone = "backbone"


class Quality(StrEnum):
    """Restore a photo once, or in four orientations for the mean of the results."""

    standard = "standard"
    best = "best"


class Precision(StrEnum):
    """The precision of the network's arithmetic when restoring."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Engine(StrEnum):
    """Where photos are restored: in this process, or by the workers of a Ray cluster."""

    local = "local"
    ray = "ray"


def _check_device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise typer.BadParameter(f"found {name!r}, expected cpu, cuda, cuda:1, mps or xpu")
    return name


Paths = Annotated[list[str], typer.Argument(metavar="PATHS", help="Photos, or folders of photos.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Search folders with all their sub-folders.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout; messages go to stderr.")]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", callback=_check_device, help="Compute on cpu, cuda, cuda:1, mps or xpu."
    ),
]
Bundle = Annotated[
    str | None,
    typer.Option(
        "--deployment",
        metavar="NAME|DIR|FILE|models:/...|runs:/ID",
        help="Use these weights: factory or paper, which come with ABAIR; a bundle's folder or its deployment.json; "
        "a model of the MLflow registry such as models:/abair@champion; or runs:/ID, what an operation's run holds, "
        "also if it was refused.  [default: the live deployment]",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="bfloat16 is faster on hardware that supports it, and slightly less exact; auto uses it there, but for "
        "photos that are mostly clean. float32 gives the same on all machines but for rounding."
    ),
]
Looks = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_LOOKS,
        metavar="N",
        help="Look at the result, too, and restore what it shows: at most so many looks in all.  [default: 1, and 3 "
        "with --quality best]",
    ),
]
QualityOption = Annotated[
    Quality,
    typer.Option("--quality", help="best restores each photo in four orientations and averages: four times as slow."),
]
EngineOption = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="ray restores by all workers of a Ray cluster, or of this machine, and takes URLs, too; needs the extra "
        "ray.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Ray's workers at most.  [default: one for each CPU]"),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FILE.parquet",
        help="Table of what Ray's workers did, one row a photo.  [default: manifest.parquet in the output folder]",
    ),
]
MaxMegapixels = Annotated[
    float,
    typer.Option(
        "--max-megapixels", min=0.0, metavar="N", help="Refuse larger photos; raise it if you trust the files."
    ),
]


def parse_names(text: str, option: str) -> tuple[str, ...]:
    """Split an option's value at its commas.

    Raises:
        BadParameter: a name is empty.
    """
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise typer.BadParameter("found an empty name, expected NAME or NAME,NAME", param_hint=option)
    return names


def parse_numbers(text: str, option: str, *, whole: bool = False) -> tuple[float, ...]:
    """Split an option's value at its commas, and read numbers above 0.

    Raises:
        BadParameter: one is no number above 0, or not whole where it has to be.
    """
    numbers = []
    for name in parse_names(text, option):
        try:
            number = float(name)
        except ValueError:
            number = math.nan
        if not (0 < number < math.inf) or (whole and number % 1):
            expected = "a whole number above 0" if whole else "a number above 0"
            raise typer.BadParameter(f"found {name!r}, expected {expected}, or several with commas", param_hint=option)
        numbers.append(number)
    return tuple(numbers)


def check_estimate(policy: Policy | None, looks: int | None, *, given: bool) -> None:
    """Refuse options that need an estimate where weights are given, or another policy.

    Raises:
        typer.BadParameter: the option, and what it cannot be used with.
    """
    if given and policy is not None:
        raise typer.BadParameter("cannot be used with --weights, which replaces the estimate", param_hint="--policy")
    if looks is not None and (given or policy not in {None, Policy.soft}):
        raise typer.BadParameter(
            "cannot be used with --weights or another policy than soft: it looks by estimates", param_hint="--looks"
        )
