"""`abair train`: the three phases. The options are the settings that one changes most; a TOML file can give all."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from abair.cli.console import reporting
from abair.cli.options import PLAIN, Device, parse_names

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
Labels = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="The degradations to learn.  [default: those of all installed plugins]"),
]
Decay = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Last part of the steps, while the rate falls.")]


@app.command()
def backbone(
    out: Annotated[Path, typer.Option(metavar="DIR", help="For weights and checkpoints; what was cut off goes on.")],
    data: Data = None,
    size: Annotated[Size, typer.Option(help="Of the network.")] = Size.nano,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint or a backbone to start from.")
    ] = None,
    labels: Labels = None,
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
        from abair.training.run import train_backbone

        train_backbone(
            data=data, size=size.value, out=out, settings_file=settings, start=start, labels=_names(labels),
            device=device, steps=steps, batch=batch, crop=crop, learning_rate=learning_rate, seed=seed,
            precision=precision and precision.value, workers=workers, decay=decay,
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
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of training at most: 10m, 1h30m, 90s; measuring comes on top."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="End after so many validations without a better one; 0: never.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, max=64, help="Of the adapter.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="An adapter to go on from, its own or another's: the folder of its files."),
    ] = None,
    mean_with: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The adapter that this one goes on from, or went on from before; the mean of both is written.",
        ),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Other installed degradations, one of which some samples carry, too; a blend with its adapter has to "
            "restore them.",
        ),
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Those of --beside, as in DIR/noise/nano.  [default: their plugins' own]"),
    ] = None,
    track: Annotated[bool, typer.Option("--track", help="Record the training as a run in MLflow.")] = False,
    steps: Steps = None,
    batch: Batch = None,
    crop: Crop = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    precision: Arithmetic = None,
    workers: Workers = None,
    decay: Decay = None,
) -> None:
    """Phase II: one degradation's adapter; the backbone stays as it is.

    At the end held-out samples are restored by it, by the bare backbone and by other adapters: the table goes onto the
    plugin's card, curves and pictures lie beside the checkpoint.
    """
    with reporting() as reporter:
        from abair.plugin_kit.adapter_report import train

        done = train(
            name=name, data=data, pairs=pairs, backbone=backbone, out=out, run=run, settings_file=settings,
            device=device, track=track, say=reporter.log, steps=steps, minutes=_minutes(time_budget), patience=patience,
            batch=batch, crop=crop, learning_rate=learning_rate, seed=seed, precision=precision and precision.value,
            workers=workers, decay=decay, rank=rank, start=start, adapters=adapters, mean_with=mean_with,
            beside=parse_names(beside, "--beside") if beside is not None else None,
        )  # fmt: skip
        if done is not None:
            print(done.efficacy.markdown(), flush=True)
            reporter.log(f"written: {done.adapter}; curves and pictures: {done.evidence}")
            if done.card is not None:
                reporter.log(f"written: the figures in {done.card}")
            if done.run_id is not None:
                reporter.log(f"run {done.run_id}; see it with: abair-registry ui")


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
    mean_with: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The estimator that this one goes on from, or went on from before; the mean is written.",
        ),
    ] = None,
    labels: Labels = None,
    data: Data = None,
    settings: SettingsFile = None,
    device: Device = "cpu",
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of training at most: 10m, 1h30m, 90s; measuring comes on top."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="End after so many validations without a better one; 0: never.")
    ] = None,
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
        from abair.training.run import train_estimator

        train_estimator(
            data=data, out=out, name=name, run=run, backbone=backbone, adapters=adapters, start=start,
            mean_with=mean_with, settings_file=settings, labels=_names(labels), device=device, steps=steps,
            minutes=_minutes(time_budget), patience=patience, batch=batch, crop=crop, learning_rate=learning_rate,
            seed=seed, precision=precision and precision.value, workers=workers, decay=decay,
        )  # fmt: skip


def _names(labels: str | None) -> tuple[str, ...]:
    return parse_names(labels, "--labels") if labels is not None else ()


def _minutes(time: str | None) -> float | None:
    if time is None:
        return None
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", time)
    minutes = sum(float(n or 0) * of for n, of in zip(parts.groups(), (60, 1, 1 / 60), strict=True)) if parts else 0
    if not minutes:
        raise typer.BadParameter(
            f"found {time!r}, expected hours, minutes, seconds: 10m, 1h30m, 90s", param_hint="--time-budget"
        )
    return minutes
