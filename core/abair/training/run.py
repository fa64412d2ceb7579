"""What `abair train` does: gather inputs, run the loop, write weights and their record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from abair.continual.known import familiarity_of
from abair.contract import RECORD_FILE
from abair.data.degrade import Degrader, Recipe
from abair.data.labelled_photos import LabelledPhotos, read_labelled
from abair.data.photos import CleanPhotos, load_clean_photos
from abair.data.synthesizers import load_synthesizer
from abair.deployment import BACKBONE_FILE, Deployment, read_deployment
from abair.discovery import Plugins
from abair.errors import TrainingError
from abair.model.backbone import SIZES, Backbone, fingerprint, load_backbone, save_backbone
from abair.model.blend_cost import BlendCosts
from abair.model.estimator import LATER, save_estimator
from abair.model.lora import Blender, read_adapter
from abair.training import distributed
from abair.training.adapter import AdapterTask
from abair.training.backbone import BackboneTask
from abair.training.bundle import assemble
from abair.training.bundle_replay import BundleReplayCounts, make_replay
from abair.training.estimator import POOL, RECIPE, VALIDATION_SAMPLES, EstimatorTask
from abair.training.inputs import (
    check_not_overwritten,
    factory_backbone,
    load_start,
    load_synthesizers,
    read_adapter_in,
    read_partners,
    read_photos,
    read_whole_estimator,
    usable_plugins,
    with_adapters_in,
)
from abair.training.loop import train
from abair.training.real_pairs import RealDamage, read_layers, read_pairs
from abair.training.report import OnValidation
from abair.training.settings import ESTIMATING, PRETRAINING, AdapterSettings, Settings, read_settings, write_settings
from abair.training.task import State
from abair.training.temperature import SAMPLES, calibrate, calibrate_confidence


@dataclass(frozen=True)
class SampleCounts:
    """How many samples phase III makes."""

    pool: int = POOL
    """Training samples."""
    validation: int = VALIDATION_SAMPLES
    """Held-out samples a label, for the metrics."""
    temperature: int = SAMPLES
    """Held-out samples by which the temperature is chosen."""
    replay: BundleReplayCounts = field(default_factory=BundleReplayCounts)
    """Samples in the bundle's replay."""


def train_backbone(
    *,
    data: Path | None,
    size: str,
    out: Path,
    settings_file: Path | None = None,
    start: Path | None = None,
    labels: Sequence[str] = (),
    device: str = "cpu",
    log: Callable[[str], None] = lambda _: None,
    **overrides: object,
) -> Path:
    """Run phase I: train a backbone of `size` into `out` and return its file.

    Args:
        data: a folder of clean photos.
        size: the network's size, a key of `SIZES`.
        out: the folder for weights, record and checkpoint.
        settings_file: settings in TOML.
        start: a checkpoint or a backbone to begin from.
        labels: the degradations to learn, of those installed; all of them by default.
        device: where the network is trained.
        log: receives warnings, one line each.
        overrides: settings that override those of the file.

    Raises:
        TrainingError: unknown size, unusable settings, no photos, or a checkpoint of another run.
        PluginError: a plugin that is needed cannot be used.
    """
    if size not in SIZES:
        raise TrainingError(f"size {size}: unknown; expected one of {', '.join(SIZES)}")
    settings = read_settings(PRETRAINING, settings_file, log=distributed.on_rank_zero(log), **overrides)
    recipe = Recipe(sampling_weights=tuple(sorted(settings.sampling_weights.items())))
    degrader = Degrader(load_synthesizers(usable_plugins(labels)), recipe)
    photos, held_out = read_photos(data)
    torch.manual_seed(settings.seed)
    task = BackboneTask(Backbone(SIZES[size]), degrader, photos, held_out, settings)
    if start is not None:
        load_start(start, task.module)
    state = train(task, settings, out, device=device)
    path = out / BACKBONE_FILE
    if distributed.is_rank_zero():
        digest = save_backbone(task.module.backbone.cpu(), path)
        _write_record(out, settings, state, photos, fingerprint=digest, labels=list(degrader.labels), size=size)
    distributed.leave_group()
    return path


def train_adapter(
    *,
    name: str,
    plugins: Plugins,
    photos: CleanPhotos,
    held_out: CleanPhotos,
    settings: AdapterSettings,
    pairs: Sequence[Path] = (),
    layers: Sequence[Path] = (),
    backbone: Path | None = None,
    out: Path | None = None,
    start: Path | None = None,
    adapters: Path | None = None,
    average_with: Path | None = None,
    run: Path | None = None,
    device: str = "cpu",
    on_validation: OnValidation | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Path:
    """Run phase II: train one degradation's adapter and return its folder, `out/<backbone>`.

    Args:
        name: the degradation.
        plugins: the installed plugins.
        photos: clean photos to train on.
        held_out: clean photos for validation.
        settings: those of the phase.
        pairs: folders of real pairs, `clean/` and `degraded/`.
        layers: folders of additive layers.
        backbone: the frozen network's file; the factory deployment's by default.
        out: the folder for the adapter; the plugin's own by default.
        start: the folder of an adapter to begin from, for this backbone or an earlier one of its
            size; `settings.start_scale` says how much of it.
        adapters: the folder of those of `settings.mix_with`, as
            `adapters/<degradation>/<backbone>`. By default they are their plugins' own, and one
            that has none for this backbone is done without.
        average_with: the folder of an adapter; its weighted average with the trained one is
            written.
        run: the folder for checkpoint and history.
        device: where the network is trained.
        on_validation: called after each validation.
        log: receives warnings, one line each.

    Raises:
        TrainingError: unusable pairs or layers, `start` or `average_with`, which is not what is
            written to; `adapters` for nothing; or a checkpoint of another run.
        PluginError: a degradation is not installed, or its synthesiser cannot be imported.
        AdapterError: one of these adapters is missing or does not belong to the backbone.
    """
    log = distributed.on_rank_zero(log)
    degradation = plugins.get(name)
    degrader = Degrader({label: load_synthesizer(plugins.get(label)) for label in (name, *settings.mix_with)})
    network = load_backbone(backbone or factory_backbone())
    real = _read_real_damage(pairs, layers, settings.crop, photos, held_out)
    first, other = read_adapter_in(start, network, None), read_adapter_in(average_with, network, fingerprint(network))
    partners = read_partners(plugins, settings, network, adapters, log)
    task = AdapterTask(network, name, degrader, photos, held_out, settings, real, first, partners, other)
    run, out = run or Path("runs") / f"adapter-{name}", out or degradation.adapters
    check_not_overwritten(average_with, out / network.size.name)
    state = train(task, settings, run, device=device, on_validation=on_validation)
    if distributed.is_rank_zero():
        task.average_weights()
        folder = task.export(out)
        facts: dict[str, object] = {"fingerprint": task.fingerprint}
        # the names alone: the record is shipped
        facts |= {"pairs": [folder.resolve().name for folder in pairs]} if pairs else {}
        facts |= {"layers": [folder.resolve().name for folder in layers]} if layers else {}
        facts |= {"start": first.digest} if first is not None else {}
        facts |= {"average_with": other.digest} if other is not None else {}
        facts |= {"blended_with": {one.name: one.digest for one in partners}} if partners else {}
        _write_record(folder, settings, state, photos, **facts, **task.validate())
    distributed.leave_group()
    return out / network.size.name


def train_estimator(
    *,
    data: Path | None,
    out: Path,
    name: str = "custom",
    run: Path | None = None,
    backbone: Path | None = None,
    adapters: Path | None = None,
    start: Path | None = None,
    average_with: Path | None = None,
    settings_file: Path | None = None,
    labels: Sequence[str] = (),
    labelled: Sequence[tuple[str, Path]] = (),
    device: str = "cpu",
    counts: SampleCounts | None = None,
    log: Callable[[str], None] = lambda _: None,
    **overrides: object,
) -> Deployment:
    """Run phase III: train the estimator and assemble the bundle in `out`.

    Args:
        data: a folder of clean photos.
        out: the bundle's folder.
        name: the deployment's.
        run: the folder for checkpoint, history and samples.
        backbone: the frozen network's file; the factory deployment's by default.
        adapters: the folder of the adapters, as `adapters/<degradation>/<backbone>`; by default the
            plugins' own.
        start: the file of an estimator for the same labels to begin from.
        average_with: the file of an estimator; its weighted average with the trained one is
            written.
        settings_file: settings in TOML.
        labels: the degradations, of those installed; all of them by default.
        labelled: folders of real photos, each for a label, to learn from beside the samples.
        device: where the estimator is trained.
        counts: how many samples are made.
        log: receives warnings, one line each.
        overrides: settings that override those of the file.

    Raises:
        TrainingError: unusable settings, photos or labels of them, `start` or `average_with` grew
            with a label, `average_with` is what is written to, or the frozen backbone changed.
        AdapterError: a plugin's adapter does not belong to the backbone.
        DeploymentError: `start` or `average_with` is no estimator for these labels.
        PluginError: a plugin that is needed cannot be used.
    """
    counts = counts or SampleCounts()
    settings = read_settings(ESTIMATING, settings_file, log=distributed.on_rank_zero(log), **overrides)
    plugins = usable_plugins(labels)
    recipe = replace(
        RECIPE,
        file_degradations=tuple(sorted(settings.file_degradations.items())),
        likely_mixtures=settings.likely_mixtures,
    )
    degrader, (photos, held_out) = Degrader(load_synthesizers(plugins), recipe), read_photos(data)
    real = _read_labelled(labelled, degrader.labels)
    source = backbone or factory_backbone()
    network = load_backbone(source)
    frozen = fingerprint(network)
    members = [with_adapters_in(plugins.found[label], adapters) for label in degrader.labels[:-1]]
    # read before the training, so that a wrong one does not stop it at the end
    blender = Blender(
        network,
        [
            read_adapter(one.degradation.adapters / network.size.name, network, frozen, one.degradation.name)
            for one in members
        ],
    )
    first, other = (read_whole_estimator(file, degrader.labels, network) for file in (start, average_with))
    run = run or Path("runs") / "estimator"
    trained = run / "estimator.safetensors"
    check_not_overwritten(average_with, trained, out / trained.name)
    task = EstimatorTask(
        network,
        degrader,
        photos,
        held_out,
        settings,
        run,
        samples=counts.pool,
        costs=BlendCosts(blender),
        start=first,
        validation_samples=counts.validation,
        labelled=real,
    )
    if first is None:
        task.standardize_inputs()
    state = train(task, settings, run, device=device)
    if distributed.is_rank_zero():
        if other is not None:
            task.average_weights(other)
        # Parts of the samples go into the bundle, which is published: they are photographs that may
        # be, and drawn pictures. Features of them, too: who brings a label without photos of their
        # own degrades the same ones.
        common, common_held_out = load_clean_photos(None)
        sources = [photos] if photos.digest() == common.digest() else [photos, common]
        temperature = calibrate(task.module.cpu(), network, blender, degrader, held_out, counts.temperature)
        errors = calibrate_confidence(task.module, *task.held_out_features())
        replay = make_replay(network, degrader, sources, common_held_out, settings.seed, counts.replay)
        task.module.known = familiarity_of([replay])
        save_estimator(task.module, trained)
        deployment = assemble(
            out,
            name=name,
            created=datetime.now(UTC),
            backbone=source,
            estimator=trained,
            adapters=members,
            replay=replay,
        )
        if deployment.backbone.fingerprint != frozen:
            raise TrainingError(
                f"{source}: found fingerprint {deployment.backbone.fingerprint}, expected {frozen}: the file changed "
                "during the training; train the estimator again"
            )
        facts: dict[str, object] = {"labels": list(degrader.labels), "temperature": temperature}
        facts |= {name: float(getattr(task.module, name)) for name in LATER} | errors
        # the names alone, as of pairs
        facts |= {"labelled_photos": [f"{label}={folder.name}" for label, folder in labelled]} if labelled else {}
        facts |= {"start": fingerprint(first)} if first is not None else {}
        facts |= {"average_with": fingerprint(other)} if other is not None else {}
        _write_record(out, settings, state, photos, fingerprint=frozen, **facts, **task.validate())
    distributed.leave_group()
    return read_deployment(out)


def _read_labelled(
    folders: Sequence[tuple[str, Path]], labels: Sequence[str]
) -> tuple[LabelledPhotos, LabelledPhotos] | None:
    """Read labelled photos to train on and held out, if folders are given.

    Raises:
        TrainingError: a label is none of the estimator's, or a folder cannot be used.
    """
    for label, folder in folders:
        if label not in labels:
            raise TrainingError(
                f"--labelled {label}={folder}: unknown label {label}; expected one of {', '.join(labels)}"
            )
    return read_labelled(folders) if folders else None


def _read_real_damage(
    pairs: Sequence[Path], layers: Sequence[Path], smallest: int, photos: CleanPhotos, held_out: CleanPhotos
) -> tuple[list[RealDamage], list[RealDamage]]:
    """Read all sets of real damage: the parts to train on, and those held out."""
    sets: list[tuple[RealDamage, RealDamage]] = [read_pairs(folder, smallest) for folder in pairs]
    sets += [read_layers(folder, photos, held_out) for folder in layers]
    return [train for train, _ in sets], [kept for _, kept in sets]


def _write_record(folder: Path, settings: Settings, state: State, photos: CleanPhotos, **facts: object) -> None:
    """Write `training.toml` beside the weights: the settings, and what else made them."""
    facts = {key: value if not isinstance(value, float) else round(value, 4) for key, value in facts.items()}
    run = {"minutes": round(state.seconds / 60, 1), "steps": state.step, "photos": len(photos)}
    write_settings(folder / RECORD_FILE, settings, run=run | facts | {"photos_digest": photos.digest()})
