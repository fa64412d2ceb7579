"""`abair train`: the three phases. The options are the settings that one changes most; a TOML file can give all."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from abair.commands.options import PLAIN, Device
from abair.commands.reporting import reporting

app = typer.Typer(help="Train: backbone, adapter, estimator.", **PLAIN)


class Size(StrEnum):
    """The backbone's sizes; said here once more because the module that defines them imports torch."""

    tiny = "tiny"
    nano = "nano"
    small = "small"
    base = "base"


class Precision(StrEnum):
    """Of the network's arithmetic; `auto` is bfloat16 where the machine has it in hardware."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A folder of clean photos.  [default: sample photos, dead leaves]")
]
# not `--run`, which torchrun takes for an option of its own, wherever it stands
Run = Annotated[
    Path | None,
    typer.Option("--checkpoints", metavar="DIR", help="What was cut off goes on from there.  [default: in runs]"),
]
Frozen = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The frozen network.  [default: the factory deployment's]")
]
SettingsFile = Annotated[Path | None, typer.Option("--settings", metavar="FILE", help="Settings in TOML.")]
Steps = Annotated[int | None, typer.Option(min=1, help="How many in all.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples a step.")]
Crop = Annotated[int | None, typer.Option(min=16, help="Side of a sample in pixels, a multiple of 16.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="At its highest.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of all that is drawn.")]
Arithmetic = Annotated[Precision | None, typer.Option("--precision", help="Of the network's arithmetic.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that make samples.")]
Decay = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Last part of the steps, while the rate falls.")]


@app.command()
def backbone(
    out: Annotated[Path, typer.Option(metavar="DIR", help="For weights and checkpoints; what was cut off goes on.")],
    data: Data = None,
    size: Annotated[Size, typer.Option(help="Of the network.")] = Size.nano,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights to start from.")] = None,
    settings: SettingsFile = None,
    device: Device = "cpu",
    steps: Steps = None,
    batch: Batch = None,
    crop: Crop = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    precision: Arithmetic = None,
    workers: Workers = None,
    decay: Decay = None,
) -> None:
    """Phase I: the backbone, on photos damaged on the fly by the installed plugins."""
    with reporting():
        from abair.training.commands import train_backbone

        train_backbone(
            data=data, size=size.value, out=out, settings_file=settings, start=start, device=device, steps=steps,
            batch=batch, crop=crop, learning_rate=learning_rate, seed=seed, precision=precision and precision.value,
            workers=workers, decay=decay,
        )  # fmt: skip


@app.command()
def adapter(
    name: Annotated[str, typer.Argument(help="The degradation, as an installed plugin names it.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the adapter.  [default: the plugin's own folder]")
    ] = None,
    run: Run = None,
    data: Data = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Real pairs: a folder with clean/ and degraded/.")
    ] = None,
    backbone: Frozen = None,
    settings: SettingsFile = None,
    device: Device = "cpu",
    steps: Steps = None,
    batch: Batch = None,
    crop: Crop = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    precision: Arithmetic = None,
    workers: Workers = None,
    decay: Decay = None,
) -> None:
    """Phase II: one degradation's adapter; the backbone stays as it is."""
    with reporting():
        from abair.training.commands import train_adapter

        train_adapter(
            name=name, data=data, pairs=pairs, backbone=backbone, out=out, run=run, settings_file=settings,
            device=device, steps=steps, batch=batch, crop=crop, learning_rate=learning_rate, seed=seed,
            precision=precision and precision.value, workers=workers, decay=decay,
        )  # fmt: skip


@app.command()
def estimator(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The bundle to write: a complete deployment.")],
    run: Run = None,
    name: Annotated[str, typer.Option(help="Of the deployment.")] = "custom",
    backbone: Frozen = None,
    adapters: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Adapters, as DIR/noise/nano and so on.  [default: the plugins' own]"),
    ] = None,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="An estimator to start from.")] = None,
    data: Data = None,
    settings: SettingsFile = None,
    device: Device = "cpu",
    steps: Steps = None,
    batch: Batch = None,
    crop: Crop = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    precision: Arithmetic = None,
    workers: Workers = None,
    decay: Decay = None,
) -> None:
    """Phase III: the estimator; backbone and adapters stay as they are."""
    with reporting():
        from abair.training.commands import train_estimator

        train_estimator(
            data=data, out=out, name=name, run=run, backbone=backbone, adapters=adapters, start=start,
            settings_file=settings, device=device, steps=steps, batch=batch, crop=crop, learning_rate=learning_rate,
            seed=seed, precision=precision and precision.value, workers=workers, decay=decay,
        )  # fmt: skip
