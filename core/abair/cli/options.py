"""Options that several commands share, and the values that some of them take."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

PLAIN: Final[dict[str, Any]] = {"rich_markup_mode": None, "no_args_is_help": True, "add_completion": False}
"""How a group of commands looks: plain, since to import rich for the help would cost as much as all the rest."""

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


class Policy(StrEnum):
    """How the estimate becomes weights."""

    soft = "soft"
    one_hot = "one-hot"


class Precision(StrEnum):
    """Of the network's arithmetic when restoring."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def _device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise typer.BadParameter(f"found {name!r}, expected cpu, cuda, cuda:1, mps or xpu")
    return name


Paths = Annotated[list[str], typer.Argument(metavar="PATHS", help="Photos, or folders of photos.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Folders with all that lies below them.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, nothing else there.")]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", callback=_device, help="cpu, cuda, cuda:1, mps or xpu.")
]
Bundle = Annotated[
    str | None,
    typer.Option(
        "--deployment", metavar="DIR|FILE", help="A bundle's folder or its deployment.json, not the factory's."
    ),
]
MaxMegapixels = Annotated[
    float, typer.Option("--max-megapixels", min=0.0, metavar="N", help="Larger photos are refused before decoding.")
]


def names_in(given: str, option: str) -> tuple[str, ...]:
    """The names between the commas of an option's value.

    Raises:
        BadParameter: one is empty.
    """
    names = tuple(name.strip() for name in given.split(","))
    if "" in names:
        raise typer.BadParameter("found an empty name, expected NAME or NAME,NAME", param_hint=option)
    return names
