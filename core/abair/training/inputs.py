"""What a training starts from: photos, plugins, and the files of weights that a user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError
from safetensors.torch import load_file

from abair.contract import CONFIG_FILE
from abair.data.photos import CleanPhotos, load_clean_photos
from abair.data.synthesizers import load_synthesizer
from abair.deployment import read_deployment
from abair.discovery import Found, Plugins, discover
from abair.errors import AdapterError, PluginError, TrainingError
from abair.locations import factory_folder
from abair.model.backbone import Backbone, fingerprint
from abair.model.estimator import HIDDEN, Estimator, load_estimator
from abair.model.lora import Adapter, read_adapter
from abair.training.backbone import BackboneWithHead
from abair.training.checkpoint import CHECKPOINT
from abair.training.settings import AdapterSettings

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

CLEAN_DIR: Final = "ABAIR_CLEAN_DIR"
"""The environment variable that names the folder of clean photos where no option does."""


def read_photos(data: Path | None) -> tuple[CleanPhotos, CleanPhotos]:
    """Decode the clean photos to train on and the held-out ones.

    They are those of the folder `data`, or else of `ABAIR_CLEAN_DIR`, or else sample photos.

    Raises:
        TrainingError: there are none, or one cannot be read.
    """
    return load_clean_photos(photo_folder(data))


def photo_folder(data: Path | None) -> Path | None:
    """Return the folder `data`, or else that of `ABAIR_CLEAN_DIR`, or else None."""
    return data or (Path(os.environ[CLEAN_DIR]) if os.environ.get(CLEAN_DIR) else None)


def factory_backbone() -> Path:
    """Return the file of the factory deployment's backbone."""
    factory = read_deployment(factory_folder())
    return factory.find(factory.backbone.file)


def usable_plugins(labels: Sequence[str]) -> Plugins:
    """Return the installed plugins of `labels`, or all of them if none are named.

    A label that is silently missing would be noticed only when photos come back degraded.

    Raises:
        PluginError: a label is not installed, or none are named and a plugin cannot be used.
    """
    plugins = discover()
    if plugins.problems and not labels:
        raise PluginError(
            f"{'; '.join(map(str, plugins.problems))}; training needs all installed plugins: mend or uninstall it, or "
            "name the degradations to train on with --labels"
        )
    for label in labels:
        plugins.get(label)
    return replace(plugins, found={name: plugins.found[name] for name in sorted(labels or plugins.found)})


def load_synthesizers(plugins: Plugins) -> dict[str, Synthesizer]:
    """Import the synthesisers of the plugins, by their labels.

    Raises:
        PluginError: one of them cannot be imported.
    """
    return {degradation.name: load_synthesizer(degradation) for degradation in plugins.degradations}


def with_adapters_in(found: Found, adapters: Path | None) -> Found:
    """Return the plugin with its adapters in `adapters/<degradation>`, if a folder is given."""
    if adapters is None:
        return found
    folder = adapters / found.degradation.name
    return replace(found, degradation=found.degradation.model_copy(update={"adapters": folder}))


def load_start(start: Path, module: BackboneWithHead) -> None:
    """Load the averaged weights of another run's checkpoint, or a finished backbone.

    A finished backbone has no head of phase I, which then starts from random weights.

    Raises:
        TrainingError: `start` cannot be read, or is of another size or other labels.
    """
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


def read_adapter_in(folder: Path | None, network: Backbone, mark: str | None) -> Adapter | None:
    """Read the adapter in a folder that a user names, of whichever degradation.

    `mark` is the backbone's fingerprint; None takes adapters for all backbones of this size.

    Raises:
        TrainingError: the folder holds no adapter.
        AdapterError: the adapter is damaged or another backbone's.
    """
    if folder is None:
        return None
    if not (folder / CONFIG_FILE).is_file():
        raise TrainingError(f"{folder}: found no {CONFIG_FILE}, expected an adapter's folder, such as adapters/nano")
    return read_adapter(folder, network, mark, str(folder))


def read_partners(
    plugins: Plugins, settings: AdapterSettings, network: Backbone, adapters: Path | None, log: Callable[[str], None]
) -> list[Adapter]:
    """Read the adapters of `settings.mix_with`.

    They are those in `adapters/<degradation>`, or by default their plugins' own. A plugin without
    an adapter for this backbone has no partner, which is logged.

    Raises:
        TrainingError: `adapters` is given and nothing is blended.
        AdapterError: an adapter in `adapters` is missing or does not fit the backbone.
    """
    if adapters is not None and not (settings.mix_with and settings.blended):
        raise TrainingError(
            f"--adapters {adapters}: found nothing to blend with; expected --mix-with with the degradations that it "
            "is for, and no `blended = false`"
        )
    if not settings.blended:
        return []
    network_fingerprint, partners = fingerprint(network), []
    for label in settings.mix_with:
        folder = with_adapters_in(plugins.found[label], adapters).degradation.adapters / network.size.name
        try:
            partners.append(read_adapter(folder, network, network_fingerprint, label))
        except AdapterError as error:
            if adapters is not None:
                raise
            log(f"{label} has no adapter for this backbone: what carries it, too, is restored without ({error})")
    return partners


def read_whole_estimator(file: Path | None, labels: Sequence[str], network: Backbone) -> Estimator | None:
    """Read the estimator in a file that a user names.

    Raises:
        TrainingError: it grew with a label after its training.
        DeploymentError: it is no estimator for these labels and this backbone.
    """
    if file is None:
        return None
    estimator = load_estimator(file, labels, network.size)
    if estimator.hidden != HIDDEN:
        raise TrainingError(
            f"{file}: found {estimator.hidden} hidden units, expected {HIDDEN}, as one has that was trained whole; "
            "take one that did not grow with a label"
        )
    return estimator


def check_not_overwritten(average_with: Path | None, *outputs: Path) -> None:
    """Refuse to average with what the command writes: repeated, it would average once more.

    Raises:
        TrainingError: `average_with` is one of the `outputs`.
    """
    for output in outputs:
        if average_with is not None and average_with.resolve() == output.resolve():
            raise TrainingError(
                f"--average-with {average_with}: found what this command writes to, expected another; "
                "copy it first, or write elsewhere with --out"
            )
