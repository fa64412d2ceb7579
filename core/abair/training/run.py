"""What `abair train` does: gather plugins, photos and settings, run the loop, write weights and their record."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from abair.continual.collect import ReplayCounts, build_replay, compute_features
from abair.continual.replay import Replay, concatenate
from abair.contract import CONFIG_FILE, RECORD_FILE
from abair.data.degrade import Degrader, Recipe
from abair.data.photos import CleanPhotos, load_clean_photos
from abair.data.synthesizers import load_synthesizer
from abair.deployment import BACKBONE_FILE, FACTORY, Deployment, read_deployment
from abair.discovery import Found, Plugins, discover
from abair.errors import AdapterError, PluginError, TrainingError
from abair.model.backbone import SIZES, Backbone, fingerprint, load_backbone, save_backbone
from abair.model.blend_cost import BlendCosts
from abair.model.estimator import HIDDEN, Estimator, load_estimator, save_estimator
from abair.model.lora import Adapter, Blender, read_adapter
from abair.training import distributed
from abair.training.adapter import AdaptTask
from abair.training.backbone import Pretraining, PretrainTask
from abair.training.bundle import assemble
from abair.training.estimator import POOL, RECIPE, VALIDATION_SAMPLES, EstimateTask
from abair.training.loop import CHECKPOINT, State, Watch, train
from abair.training.real_pairs import read_pairs
from abair.training.settings import ADAPTING, ESTIMATING, PRETRAINING, Settings, read_settings, write_settings
from abair.training.temperature import SAMPLES, calibrate

CLEAN_DIR = "ABAIR_CLEAN_DIR"


@dataclass(frozen=True)
class SampleCounts:
    """How many samples phase III makes."""

    pool: int = POOL
    """Training samples."""
    validation: int = VALIDATION_SAMPLES
    """Held-out samples a label, for the metrics."""
    temperature: int = SAMPLES
    """Held-out samples by which the temperature is chosen."""
    replay: ReplayCounts = field(default_factory=ReplayCounts)
    """Samples in the bundle's replay."""
    gamma: int = 200
    """Further samples a degradation there, of photos some of which have another gamma."""
    artifacts: int = 300
    """Further samples a degradation there, all damaged and with file artifacts."""


def train_backbone(
    *, data: Path | None, size: str, out: Path, settings_file: Path | None = None, start: Path | None = None,
    labels: Sequence[str] = (), device: str = "cpu", **overrides: Any,
) -> Path:  # fmt: skip
    """Phase I: train a backbone of `size` into `out`; returns the file. `start` is a checkpoint or backbone.

    `labels` are the degradations that it learns, of those installed; all of them by default.

    Raises:
        TrainingError: unknown size, unusable settings, no plugins, no photos, or a checkpoint of another run.
    """
    if size not in SIZES:
        raise TrainingError(f"size {size}: unknown; expected one of {', '.join(SIZES)}")
    settings = read_settings(PRETRAINING, settings_file, **overrides)
    recipe = Recipe(sampling_weights=tuple(sorted(settings.emphasis.items())))
    degrader, (photos, held_out) = Degrader(_synthesizers(_usable(labels)), recipe), photos_of(data)
    torch.manual_seed(settings.seed)
    task = PretrainTask(Backbone(SIZES[size]), degrader, photos, held_out, settings)
    if start is not None:
        _begin_from(start, task.module)
    state = train(task, settings, out, device=device)
    path = out / BACKBONE_FILE
    if distributed.is_first():
        mark = save_backbone(task.module.backbone.cpu(), path)
        _record(out, settings, state, photos, fingerprint=mark, labels=list(degrader.labels), size=size)
    distributed.leave()
    return path


def train_adapter(
    *, name: str, data: Path | None, pairs: Path | None = None, backbone: Path | None = None, out: Path | None = None,
    start: Path | None = None, adapters: Path | None = None, mean_with: Path | None = None, run: Path | None = None,
    settings_file: Path | None = None, device: str = "cpu", watch: Watch | None = None,
    say: Callable[[str], None] = lambda text: None, **overrides: Any,
) -> Path:  # fmt: skip
    """Phase II: train the adapter of one installed degradation; returns its folder (`out/<backbone>`).

    `backbone` defaults to the factory deployment's, `out` to the plugin's own adapters folder; `start` is the folder of
    an adapter to go on from, `mean_with` that of one whose weights and the trained ones' mean is written. Those of the
    degradations in `beside` are in `adapters/<degradation>/<backbone>`; by default they are their plugins' own, of
    which one that this backbone has none of is done without. `watch` hears of each validation, `say` of what is done
    without.

    Raises:
        TrainingError, PluginError: unusable settings, photos, pairs, plugin, `start` or `mean_with`, which is not what
            is written to; `adapters` for nothing.
        AdapterError: one of these adapters is not there or does not belong to the backbone.
    """
    settings = read_settings(ADAPTING, settings_file, **overrides)
    plugins = discover()
    degradation = plugins.get(name)
    degrader = Degrader({label: load_synthesizer(plugins.get(label)) for label in (name, *settings.beside)})
    photos, held_out = photos_of(data)
    network = load_backbone(backbone or _factory_backbone())
    real = read_pairs(pairs, settings.crop) if pairs is not None else None
    begun, averaged = (_named(folder, network) for folder in (start, mean_with))
    partners = _partners(plugins, settings, network, adapters, say)
    task = AdaptTask(network, name, degrader, photos, held_out, settings, real, begun, partners, averaged)
    run, target = run or Path("runs") / f"adapter-{name}", out or degradation.adapters
    _expect_elsewhere(mean_with, target / network.size.name)
    state = train(task, settings, run, device=device, watch=watch)
    if distributed.is_first():
        task.take_mean()
        folder = task.export(target)
        # the name alone: the record is shipped
        given: dict[str, Any] = {"pairs": pairs.resolve().name} if pairs else {}
        given |= {"start": begun.digest} if begun is not None else {}
        given |= {"mean_with": averaged.digest} if averaged is not None else {}
        given |= {"blended_with": {one.name: one.digest for one in partners}} if partners else {}
        _record(folder, settings, state, photos, fingerprint=task.fingerprint, **given, **task.validate())
    distributed.leave()
    return target / network.size.name


def train_estimator(
    *, data: Path | None, out: Path, name: str = "custom", run: Path | None = None, backbone: Path | None = None,
    adapters: Path | None = None, start: Path | None = None, mean_with: Path | None = None,
    settings_file: Path | None = None, labels: Sequence[str] = (), device: str = "cpu",
    counts: SampleCounts | None = None, **overrides: Any,
) -> Deployment:  # fmt: skip
    """Phase III: train the estimator for `labels`, by default all installed ones, and assemble the bundle in `out`.

    The adapters are those that the plugins ship, or those in `adapters/<degradation>/<backbone>`. `start` is an
    estimator's file, for the same labels, to begin from, `mean_with` that of one whose weights and the trained ones'
    mean is written.

    Raises:
        TrainingError: unusable settings or photos, `start` or `mean_with` grew with a label, `mean_with` is what is
            written to, or the frozen backbone changed.
        AdapterError: a plugin's adapter does not belong to the backbone.
        DeploymentError: `start` or `mean_with` is no estimator for these labels.
    """
    settings, counts = read_settings(ESTIMATING, settings_file, **overrides), counts or SampleCounts()
    plugins = _usable(labels)
    degrader, (photos, held_out) = Degrader(_synthesizers(plugins), RECIPE), photos_of(data)
    source = backbone or _factory_backbone()
    network = load_backbone(source)
    before = fingerprint(network)
    members = [_with_adapters(plugins.found[label], adapters) for label in degrader.labels[:-1]]
    folders = [member.degradation.adapters / network.size.name for member in members]
    # before the training, not after it
    adapters_read = [
        read_adapter(folder, network, before, member.degradation.name)
        for folder, member in zip(folders, members, strict=True)
    ]
    begun, averaged = (_estimator(file, degrader.labels, network) for file in (start, mean_with))
    run = run or Path("runs") / "estimator"
    blender = Blender(network, adapters_read)
    made = run / "estimator.safetensors"
    _expect_elsewhere(mean_with, made, out / made.name)
    task = EstimateTask(
        network, degrader, photos, held_out, settings, run, counts.pool, BlendCosts(blender), begun, counts.validation
    )
    state = train(task, settings, run, device=device)
    if distributed.is_first():
        if averaged is not None:
            task.take_mean(averaged)
        # Parts of the samples go into the bundle, which is published: they are photographs that may be, and drawn
        # pictures. Features of them, too: those who bring a label without photos of their own damage the same ones.
        common, samples = load_clean_photos(None)
        sources = [photos] if photos.digest() == common.digest() else [photos, common]
        temperature = calibrate(task.module.cpu(), network, blender, degrader, held_out, counts.temperature)
        save_estimator(task.module, made)
        deployment = assemble(
            out,
            name=name,
            created=datetime.now(UTC),
            backbone=source,
            estimator=made,
            adapters=members,
            replay=_replay(network, degrader, sources, samples, settings.seed, counts),
        )
        if deployment.backbone.fingerprint != before:
            raise TrainingError(
                f"{source}: found fingerprint {deployment.backbone.fingerprint}, expected {before}: the file changed "
                "during the training; train the estimator again"
            )
        given: dict[str, Any] = {"labels": list(degrader.labels), "temperature": temperature}
        given |= {"start": fingerprint(begun)} if begun is not None else {}
        given |= {"mean_with": fingerprint(averaged)} if averaged is not None else {}
        _record(out, settings, state, photos, fingerprint=before, **given, **task.validate())
    distributed.leave()
    return read_deployment(out)


def _estimator(file: Path | None, labels: Sequence[str], network: Backbone) -> Estimator | None:
    """The estimator in a file that a user names."""
    if file is None:
        return None
    estimator = load_estimator(file, labels, network.size)
    if estimator.hidden != HIDDEN:
        raise TrainingError(
            f"{file}: found {estimator.hidden} hidden units, expected {HIDDEN}, as one has that was trained whole; "
            "take one that did not grow with a label"
        )
    return estimator


def _replay(
    network: Backbone,
    degrader: Degrader,
    sources: Sequence[CleanPhotos],
    samples: CleanPhotos,
    seed: int,
    counts: SampleCounts,
) -> Replay:
    """What the labels leave behind for estimators that come later, whatever their labels will be.

    Photos are shown as they are: whether compression, say, is damage is for a later label to tell. But what was hazy
    before it was saved is hazy still, and without samples of that a label that knows files would take it. These are of
    the first source alone, which has most photos.
    """
    synthesizers = degrader.synthesizers
    exact = replace(RECIPE, file_artifacts=0.0, gamma=0.0)
    made = build_replay(network, Degrader(synthesizers, exact), sources, samples, counts.replay, seed)
    toned = replace(exact, mixture=0.0, gamma=RECIPE.gamma)
    recipes = [(toned, counts.gamma), (replace(toned, clean=0.0, file_artifacts=1.0), counts.artifacts)]
    further = [
        compute_features(network, Degrader(synthesizers, recipe), sources[0], count * len(synthesizers), seed + number)
        for number, (recipe, count) in enumerate(recipes, start=1)
    ]
    return replace(made, features=concatenate([made.features, *further]))


def _usable(labels: Sequence[str]) -> Plugins:
    """The installed plugins; a label that is silently missing would be missed only when photos come back damaged.

    Raises:
        PluginError: one of them cannot be used, or one of `labels` is not there.
    """
    plugins = discover()
    if plugins.problems and not labels:
        raise PluginError(
            f"{'; '.join(map(str, plugins.problems))}; training needs all installed plugins: mend or uninstall it, or "
            "say which degradations are meant with --labels"
        )
    for label in labels:
        plugins.get(label)
    chosen = labels or plugins.found
    return replace(plugins, found={name: plugins.found[name] for name in sorted(chosen)})


def _factory_backbone() -> Path:
    factory = read_deployment(FACTORY)
    return factory.find(factory.backbone.file)


def _synthesizers(plugins: Plugins) -> dict[str, Any]:
    return {degradation.name: load_synthesizer(degradation) for degradation in plugins.degradations}


def _with_adapters(found: Found, adapters: Path | None) -> Found:
    if adapters is None:
        return found
    name = found.degradation.name
    return replace(found, degradation=found.degradation.model_copy(update={"adapters": adapters / name}))


def photos_of(data: Path | None) -> tuple[CleanPhotos, CleanPhotos]:
    """Clean photos to train on, and held-out ones: of a folder, or of `ABAIR_CLEAN_DIR`, or samples.

    Raises:
        TrainingError: there are none, or one cannot be read.
    """
    folder = data or (Path(os.environ[CLEAN_DIR]) if os.environ.get(CLEAN_DIR) else None)
    return load_clean_photos(folder)


def _begin_from(start: Path, module: Pretraining) -> None:
    """Load the averaged weights of another run's checkpoint, or a finished backbone, which has no head of phase I."""
    path = start / CHECKPOINT if start.is_dir() else start
    try:
        tensors = load_file(path)
        if averages := {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}:
            module.load_state_dict(averages)
        else:
            module.backbone.load_state_dict(tensors)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: cannot be started from ({' '.join(str(error).split())[:200]}); expected a checkpoint of phase I "
            "with the same size and labels, or a backbone of the same size"
        ) from None


def _named(folder: Path | None, network: Backbone) -> Adapter | None:
    """The adapter in a folder that a user names."""
    if folder is None:
        return None
    if not (folder / CONFIG_FILE).is_file():
        raise TrainingError(f"{folder}: found no {CONFIG_FILE}, expected an adapter's folder, such as adapters/nano")
    return read_adapter(folder, network, fingerprint(network), str(folder))


def _expect_elsewhere(mean_with: Path | None, *written: Path) -> None:
    """What is written there would be averaged once more when the command is given again."""
    for place in written:
        if mean_with is not None and mean_with.resolve() == place.resolve():
            raise TrainingError(
                f"--mean-with {mean_with}: found what this command writes to, expected another; "
                "copy it first, or write elsewhere with --out"
            )


def _partners(
    plugins: Plugins, settings: Settings, network: Backbone, adapters: Path | None, say: Callable[[str], None]
) -> list[Adapter]:
    """The adapters with which an adapter in training is blended: those of `beside`, as far as there are any."""
    if adapters is not None and not (settings.beside and settings.blended):
        raise TrainingError(
            f"--adapters {adapters}: found nothing to blend with; expected --beside with the degradations that it is "
            "for, and no `blended = false`"
        )
    if not settings.blended:
        return []
    mark, partners = fingerprint(network), []
    for label in settings.beside:
        folder = _with_adapters(plugins.found[label], adapters).degradation.adapters / network.size.name
        try:
            partners.append(read_adapter(folder, network, mark, label))
        except AdapterError as error:
            if adapters is not None:
                raise
            say(f"{label} has no adapter for this backbone: what carries it, too, is restored without ({error})")
    return partners


def _record(folder: Path, settings: Settings, state: State, photos: CleanPhotos, **facts: Any) -> None:
    """`training.toml` beside the weights: the settings, and what else made them."""
    results = {key: value if not isinstance(value, float) else round(value, 4) for key, value in facts.items()}
    run = {"minutes": round(state.seconds / 60, 1), "steps": state.step, "photos": len(photos)}
    results |= {"photos_digest": photos.digest()}
    write_settings(folder / RECORD_FILE, settings, run=run | results)
