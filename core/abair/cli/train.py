"""`abair train`: the three phases. Options are the settings changed most; TOML can give all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from abair.cli.console import command_line, reporting
from abair.cli.options import PLAIN, Device, parse_names
from abair.cli.train_options import (
    OLD_NAME,
    Arithmetic,
    Batch,
    Compile,
    Crop,
    Data,
    Decay,
    Frozen,
    Labelled,
    Labels,
    Layers,
    Pairs,
    Patience,
    Processes,
    Rate,
    Run,
    SceneCrop,
    Seed,
    SettingsFile,
    Size,
    Steps,
    TimeBudget,
    Workers,
)
from abair.cli.train_pack import pack
from abair.cli.train_values import current_value, read_labelled, read_labels, read_minutes

app = typer.Typer(
    help="Train the network in three phases: the backbone, one adapter a degradation, the estimator.", **PLAIN
)

app.command()(pack)


@app.command()
def backbone(
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Write weights, record and checkpoint to this folder; a run that was stopped goes on from there.",
        ),
    ],
    data: Data = None,
    size: Annotated[
        Size, typer.Option(help="Size of the network; larger ones restore better and take longer.")
    ] = Size.nano_2,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Begin from this checkpoint or backbone instead of random weights."),
    ] = None,
    labels: Labels = None,
    settings: SettingsFile = None,
    device: Device = "cpu",
    time_budget: TimeBudget = None,
    compile_network: Compile = False,
    steps: Steps = None,
    batch: Batch = None,
    crop: Crop = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    precision: Arithmetic = None,
    workers: Workers = None,
    processes: Processes = 1,
    decay: Decay = None,
) -> None:
    """Phase I: train the backbone on photos that the installed plugins degrade on the fly.

    Takes hours. Adapters and estimators belong to one backbone: after this phase the other two must
    be repeated.
    """
    with reporting() as reporter:
        _start_processes(processes)
        from abair.training.run import train_backbone

        train_backbone(
            data=data,
            size=size.value,
            out=out,
            settings_file=settings,
            start=start,
            labels=read_labels(labels),
            device=device,
            log=reporter.log,
            minutes=read_minutes(time_budget),
            compile=compile_network or None,
            steps=steps,
            batch=batch,
            crop=crop,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision and precision.value,
            workers=workers,
            decay=decay,
        )


@app.command()
def adapter(
    name: Annotated[str, typer.Argument(help="The degradation, by the name that `abair plugin list` shows.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the adapter to this folder.  [default: the plugin's own folder]"),
    ] = None,
    run: Run = None,
    data: Data = None,
    pairs: Pairs = None,
    layers: Layers = None,
    backbone: Frozen = None,
    settings: SettingsFile = None,
    device: Device = "cpu",
    time_budget: TimeBudget = None,
    patience: Patience = None,
    rank: Annotated[
        int | None, typer.Option(min=1, max=64, help="Rank of the adapter; a higher one has more weights.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Begin from the adapter in this folder, of this degradation or another, instead of random weights. It "
            "may be for an earlier backbone of the same size.",
        ),
    ] = None,
    average_with: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the average of the trained weights and those of the adapter in this folder, usually the one "
            "that the training began from: it keeps what further training would lose.",
        ),
    ] = None,
    mix_with: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Let a quarter of the samples carry one of these installed degradations as well, and restore them by "
            "a blend with its adapter: for photos with several degradations.",
        ),
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Take the adapters of --mix-with from this folder, as DIR/noise/nano.  [default: their plugins' own]",
        ),
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Record settings, metrics and charts as a run in MLflow.")
    ] = False,
    steps: Steps = None,
    batch: Batch = None,
    crop: Crop = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    precision: Arithmetic = None,
    workers: Workers = None,
    processes: Processes = 1,
    decay: Decay = None,
    beside: Annotated[str | None, typer.Option("--beside", metavar="A,B,...", hidden=True, help=OLD_NAME)] = None,
    mean_with: Annotated[Path | None, typer.Option("--mean-with", metavar="DIR", hidden=True, help=OLD_NAME)] = None,
) -> None:
    """Phase II: train the adapter of one degradation; the backbone stays frozen.

    At the end held-out samples are restored by the adapter, by the bare backbone and by other
    adapters. The table is printed and written to the plugin's README; curves and pictures are
    written beside the checkpoint.
    """
    with reporting() as reporter:
        _start_processes(processes)
        mix_with = current_value(mix_with, "--mix-with", beside, "--beside", reporter)
        average_with = current_value(average_with, "--average-with", mean_with, "--mean-with", reporter)
        partners = parse_names(mix_with, "--mix-with") if mix_with is not None else None
        _check_installed(name, *(partners or ()))
        from abair.plugin_kit.adapter_report import train

        outcome = train(
            name=name,
            data=data,
            pairs=tuple(pairs or ()),
            layers=tuple(layers or ()),
            backbone=backbone,
            out=out,
            run=run,
            settings_file=settings,
            start=start,
            adapters=adapters,
            average_with=average_with,
            device=device,
            track=track,
            log=reporter.log,
            steps=steps,
            minutes=read_minutes(time_budget),
            patience=patience,
            batch=batch,
            crop=crop,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision and precision.value,
            workers=workers,
            decay=decay,
            rank=rank,
            mix_with=partners,
        )
        if outcome is not None:
            print(outcome.efficacy.markdown(), flush=True)
            reporter.log(f"written: {outcome.adapter}; curves and pictures: {outcome.charts}")
            if outcome.card is not None:
                reporter.log(f"written: the results in {outcome.card}")
            if outcome.run_id is not None:
                reporter.log(f"run {outcome.run_id}; see it with: abair-registry ui")


@app.command()
def estimator(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write the bundle, a complete deployment, to this folder.")],
    run: Run = None,
    name: Annotated[str, typer.Option(help="Name of the deployment.")] = "custom",
    backbone: Frozen = None,
    adapters: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Take the adapters from this folder, as DIR/noise/nano.  [default: the plugins' own]"
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Begin from this estimator of the same labels instead of random weights."),
    ] = None,
    average_with: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the average of the trained weights and those of this estimator, usually the one that the "
            "training began from: it keeps what further training would lose.",
        ),
    ] = None,
    labels: Labels = None,
    data: Data = None,
    labelled: Labelled = None,
    settings: SettingsFile = None,
    device: Device = "cpu",
    time_budget: TimeBudget = None,
    patience: Patience = None,
    steps: Steps = None,
    batch: Batch = None,
    crop: SceneCrop = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    precision: Arithmetic = None,
    workers: Workers = None,
    processes: Processes = 1,
    decay: Decay = None,
    mean_with: Annotated[Path | None, typer.Option("--mean-with", metavar="FILE", hidden=True, help=OLD_NAME)] = None,
) -> None:
    """Phase III: train the estimator and write a bundle; backbone and adapters stay frozen."""
    with reporting() as reporter:
        _start_processes(processes)
        average_with = current_value(average_with, "--average-with", mean_with, "--mean-with", reporter)
        from abair.training.run import train_estimator

        train_estimator(
            data=data,
            out=out,
            name=name,
            run=run,
            backbone=backbone,
            adapters=adapters,
            start=start,
            average_with=average_with,
            settings_file=settings,
            labels=read_labels(labels),
            labelled=[read_labelled(text) for text in labelled or ()],
            device=device,
            log=reporter.log,
            steps=steps,
            minutes=read_minutes(time_budget),
            patience=patience,
            batch=batch,
            crop=crop,
            learning_rate=learning_rate,
            seed=seed,
            precision=precision and precision.value,
            workers=workers,
            decay=decay,
        )


def _start_processes(count: int) -> None:
    """Repeat this command in so many processes, and end with their exit code; 1 is this process."""
    if "WORLD_SIZE" in os.environ:  # this is one of them
        from abair.training.parent import end_with_launcher

        end_with_launcher()
    elif count > 1:
        from abair.training.launch import run_in_processes

        raise typer.Exit(run_in_processes(count, command_line.get()))


def _check_installed(*names: str) -> None:
    """Check degradations' names before anything is imported that takes seconds.

    Raises:
        PluginError: no usable plugin declares one of them.
    """
    from abair.discovery import discover

    plugins = discover()
    for name in names:
        plugins.get(name)
