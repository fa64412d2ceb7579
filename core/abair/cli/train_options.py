"""Options that the commands of `abair train` share, and the values that some of them take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer


class Size(StrEnum):
    """The backbone's sizes; repeated here because the module that defines them imports torch."""

    tiny = "tiny"
    nano = "nano"
    nano_2 = "nano-2"
    small = "small"
    base = "base"


class Precision(StrEnum):
    """Arithmetic of the network; `auto` is bfloat16 where the hardware has it."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


_TIME_HELP: Final = (
    "Train for at most this long, for example 10m, 1h30m or 90s; validation counts, the final measurements do not."
)
OLD_NAME: Final = "An old name, understood in this release."

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Train on the clean photos in this folder and its subfolders; one in twenty is held out for validation.  "
        "[default: $ABAIR_CLEAN_DIR, or else sample photos and drawn pictures, enough to try training]",
    ),
]
# not `--run`, which torchrun takes for an option of its own, wherever it stands
Run = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        metavar="DIR",
        help="Keep checkpoint and history in this folder; a run that was stopped goes on from there.  "
        "[default: a folder in runs]",
    ),
]
Frozen = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Train for this backbone, which stays frozen.  [default: the factory's]"),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="Read settings from the table [settings] of this TOML file, for example the training.toml of an earlier "
        "run. Options override them.",
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Train for this many optimiser steps.")]
Batch = Annotated[
    int | None, typer.Option(min=1, help="Use this many samples in each step; fewer need less memory and time.")
]
Crop = Annotated[
    int | None,
    typer.Option(min=16, help="Cut samples of this side in pixels, a multiple of 16; larger ones show more context."),
]
SceneCrop = Annotated[
    int | None,
    typer.Option("--crop", min=16, help="Use samples of at most this many pixels a side, a multiple of 16."),
]
Rate = Annotated[
    float | None, typer.Option("--learning-rate", help="Peak learning rate; lower it if the loss is not finite.")
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, help="Seed of everything drawn at random; the same seed and data give the same weights."),
]
Arithmetic = Annotated[
    Precision | None,
    typer.Option("--precision", help="Arithmetic of the network; auto is bfloat16 where the hardware has it."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Make samples in this many processes besides the training; 0: in the training process."),
]
Pairs = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Cut half of the samples from real pairs: DIR/clean and DIR/degraded hold files of equal names. May be "
        "given several times.",
    ),
]
Layers = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Give half of the samples real layers of damage: each file in DIR holds what rain, for example, added to "
        "a photo, and is put on the clean photos. May be given several times.",
    ),
]
Labelled = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LABEL=DIR",
        help="Learn from the real photos in DIR and its subfolders, too, which carry only a label, such as haze, or "
        "clean for undamaged ones. Subfolders are drawn equally often. May be given several times.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network first, which takes a minute or more and counts as training time: for GPUs.",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        min=1,
        help="Train in this many processes, best one a processor core or GPU; a step has the samples of them all.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...", help="Train on these degradations only.  [default: those of all installed plugins]"
    ),
]
Decay = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Lower the learning rate to zero over this last part of the steps."),
]
TimeBudget = Annotated[str | None, typer.Option(metavar="TIME", help=_TIME_HELP)]
Patience = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Stop after this many validations in a row without a better one, and keep the best weights; 0: never.",
    ),
]
