"""Phase II: with the backbone frozen, train one LoRA for one degradation through PEFT (the only importer of peft here).

On the linear and ungrouped convolution layers, on synthetic samples of the degradation and, where there are any, real
pairs. The paper's best rank of 4, 8, 16 was 4, for a backbone of 26 million weights; for `nano`, a tenth of that, 16 is
better (docs/training-log.md).

An adapter that has seen its degradation alone brings any other one out more. So some of the samples may carry a second
one, before or after its own, and are to be restored from both.

When a photo is restored, each tile is told of the whole by the global view. A sample that is a crop and nothing else is
its own whole, so what is seen in the large, haze over depth and darkness, may be put on a scene, of which the sample is
a part. Some samples stay their own whole even then: there are small photos.

Collections of photos are brighter than rooms are, and haze is told from brightness by what is usual. So photos may be
made darker before they are damaged.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from abair.backbone import Backbone, fingerprint, freeze, global_view
from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.errors import MissingExtraError, TrainingError
from abair.lora import Adapter, adaptable_layers, backbone_reference
from abair.physics import chance, uniform
from abair.synthesis import (
    CleanPhotos,
    Degrader,
    Pixels,
    Sample,
    generator_for,
    load_photos,
    photos_in,
    pixels_digest,
    split_photos,
    to_8_bit,
)
from abair.training.loop import Batch
from abair.training.pretrain import VALIDATION_CROPS, VALIDATION_SIDE, decibel_loss, psnr
from abair.training.settings import Settings

SCALE: Final = 2
"""Of what the adapter adds: LoRA's alpha over its rank."""
REAL_SHARE: Final = 0.5
"""Share of samples cut from real pairs, where there are any."""
MIXED: Final = 0.3
"""Share of the synthetic samples that carry a second degradation, where `degrader` has any other."""
DARKER: Final = (1.2, 2.4)
"""Exponents by which photos are made darker: a mean of 0.44 becomes one of 0.40 to 0.23."""
NARROWEST: Final = 0.6
"""Least part of a scene's side that is drawn."""


class Pairs:
    """Real pairs below a folder: `clean/` and `degraded/` with equal names up to the ending."""

    def __init__(self, clean: Sequence[Pixels], degraded: Sequence[Pixels]) -> None:
        self.clean, self.degraded = clean, degraded

    def crop(self, generator: torch.Generator, side: int, *, whole: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """One crop (3, side, side), degraded and clean, turned and mirrored alike; its view, or that of the `whole`."""
        index = int(torch.randint(len(self.clean), (), generator=generator))
        height, width = self.clean[index].shape[:2]
        top = int(torch.randint(height - side + 1, (), generator=generator))
        left = int(torch.randint(width - side + 1, (), generator=generator))
        turns, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))

        def turned(photo: Pixels) -> Tensor:
            patch = np.rot90(photo, turns)
            patch = patch[:, ::-1] if mirror else patch
            return torch.from_numpy(patch.copy()).permute(2, 0, 1).float().div_(255)

        pair = self.degraded[index], self.clean[index]
        degraded, clean = (turned(photo[top : top + side, left : left + side]) for photo in pair)
        return degraded, clean, _view(turned(self.degraded[index]) if whole else degraded)


def read_pairs(folder: Path, smallest: int) -> tuple[Pairs, Pairs]:
    """The pairs to train on and those held out, each at least `smallest` pixels a side.

    Raises:
        TrainingError: a folder is missing, a name has no partner, two partners differ in size, or a pair is too small.
    """
    clean = {path.stem: path for path in photos_in(folder / "clean")}
    degraded = {path.stem: path for path in photos_in(folder / "degraded")}
    if alone := sorted(clean.keys() ^ degraded.keys()):
        raise TrainingError(
            f"{folder}: found {alone[0]} without a partner; expected equal names in clean/ and degraded/"
        )
    train, held = split_photos([clean[name] for name in sorted(clean)])
    made = []
    for paths in (train, held):
        pairs = Pairs(load_photos(paths), load_photos([degraded[path.stem] for path in paths]))
        for path, one, other in zip(paths, pairs.clean, pairs.degraded, strict=True):
            if one.shape != other.shape:
                raise TrainingError(f"{path}: found {one.shape} and {other.shape}, expected partners of equal size")
            if min(one.shape[:2]) < smallest:
                raise TrainingError(
                    f"{path}: found {one.shape[1]}x{one.shape[0]} pixels, expected at least {smallest} a side; "
                    "leave the pair out or train with a smaller --crop"
                )
        made.append(pairs)
    return made[0], made[1]


class AdaptTask:
    """Phase II for the loop; it goes on from the adapter `start`, if there is one.

    `degrader` knows the degradation, and those in the settings' `beside`. `start` may be another degradation's adapter.

    Raises:
        TrainingError: `start` is of another rank, or leaves layers out; `beside` names a degradation twice, or its own.
    """

    def __init__(
        self,
        backbone: Backbone,
        degradation: str,
        degrader: Degrader,
        photos: CleanPhotos,
        held_out: CleanPhotos,
        settings: Settings,
        pairs: tuple[Pairs, Pairs] | None = None,
        start: Adapter | None = None,
    ) -> None:
        self.name = f"adapter-{degradation}"
        self.degradation, self.degrader, self.settings = degradation, degrader, settings
        self.photos, self.held_out, self.pairs = photos, held_out, pairs
        self.others = settings.beside
        if degradation in self.others or len(set(self.others)) < len(self.others):
            raise TrainingError(
                f"beside: found {', '.join(self.others)}, expected other degradations than {degradation}, each once"
            )
        self.fingerprint = fingerprint(backbone)
        self.size = backbone.size
        self._bare = copy.deepcopy(backbone)
        freeze(self._bare)
        torch.manual_seed(settings.seed)  # PEFT initialises A at random
        self.module = _with_lora(backbone, self.fingerprint, settings.rank)
        layers = adaptable_layers(self._bare)
        self._adapted = {name: self.module.get_base_model().get_submodule(name) for name in layers}
        self._start = "" if start is None else start.digest
        if start is not None:
            _copy(start, self._adapted, settings.rank)

    @cached_property
    def depends(self) -> dict[str, str]:
        """The frozen network, photos, damage, real pairs, and the adapter that it begins from."""
        pairs = "" if self.pairs is None else pixels_digest([*self.pairs[0].clean, *self.pairs[0].degraded])
        photos, damage = self.photos.digest(), self.degrader.digest
        of = {"backbone": self.fingerprint, "photos": photos, "damage": damage, "pairs": pairs}
        return of | {"start": self._start}

    def batch(self, index: int) -> Batch:
        """(degraded, clean, global views)."""
        chosen = []
        for item in range(self.settings.batch):
            generator = generator_for(self.settings.seed, 2, index, item)
            if self.pairs is not None and item < self.settings.batch * REAL_SHARE:
                chosen.append(self._real(self.pairs[0], generator))
            else:
                chosen.append(self._sample(generator))
        degraded, clean, views = (torch.stack(parts) for parts in zip(*chosen, strict=True))
        return degraded, clean, views

    def _real(self, pairs: Pairs, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return pairs.crop(generator, self.settings.crop, whole=bool(self.settings.scene))

    def _sample(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        side = self.settings.crop
        scene = None
        if self.settings.scene and chance(generator, self.settings.scenes):
            scene = self.photos.scene(generator, self.settings.scene, NARROWEST)
        if scene is None or min(scene.shape[1:]) < side:
            scene = self.photos.crop(generator, side)
        if self.settings.dim and chance(generator, self.settings.dim):
            scene = to_8_bit(scene ** uniform(generator, *DARKER))
        if self.others and chance(generator, MIXED):
            sample = mixed_sample(self.degrader, scene, self.degradation, self.others, generator)
        else:
            sample = self.degrader.single(scene, self.degradation, generator)
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in scene.shape[1:])
        rows, columns = slice(top, top + side), slice(left, left + side)
        return sample.degraded[:, rows, columns], sample.clean[:, rows, columns], _view(sample.degraded)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The error in decibels, as in phase I."""
        degraded, clean, views = batch
        degraded = degraded.contiguous(memory_format=torch.channels_last)
        network = self._bare.to(degraded.device)
        restored = functional_call(network, self._merged(network), (degraded, views))
        return decibel_loss(restored.float(), clean), {}

    def _merged(self, network: Backbone) -> dict[str, Tensor]:
        """The adapted weights W + B A, as they will be served.

        PEFT would run each layer's two small ones beside it, which takes a third longer.
        """
        with torch.autocast(next(network.parameters()).device.type, enabled=False):
            return {
                f"{name}.weight": network.get_submodule(name).weight + layer.get_delta_weight("default")
                for name, layer in self._adapted.items()
            }

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """PSNR in dB on held-out samples: with the adapter, of the bare backbone, of the input.

        On mixed samples, scenes and real pairs, too, where it learns from them.
        """
        figures: dict[str, float] = {}
        for prefix, samples in self._judged_by.items():
            figures[f"{prefix}psnr"] = _mean([psnr(self._restored(d, view), c) for d, c, view in samples])
            figures |= {f"{prefix}{way}": figure for way, figure in self._before[prefix].items()}
        return figures

    @cached_property
    def _judged_by(self) -> dict[str, list[tuple[Tensor, Tensor, Tensor]]]:
        """Held-out samples by what they are called in the figures: degraded, clean, global view."""
        sets = {"": held_out_pairs(self.degrader, self.held_out, self.degradation)}
        if self.others:
            sets["mixed_"] = held_out_pairs(self.degrader, self.held_out, self.degradation, self.others)
        if self.settings.scene:
            sets["scene_"] = held_out_pairs(self.degrader, self.held_out, self.degradation, scene=self.settings.scene)
        samples = {prefix: [(d, c, _view(d)) for d, c in pairs] for prefix, pairs in sets.items()}
        if self.pairs is not None:
            generator = generator_for(0, 8)
            samples["real_"] = [self._real(self.pairs[1], generator) for _ in range(VALIDATION_CROPS)]
        return samples

    @cached_property
    def _before(self) -> dict[str, dict[str, float]]:
        """What the bare backbone makes of them, and what they are: no training changes it."""
        with self.module.disable_adapter():
            return {
                prefix: {
                    "bare": _mean([psnr(self._restored(d, view), c) for d, c, view in samples]),
                    "input": _mean([psnr(d, c) for d, c, _ in samples]),
                }
                for prefix, samples in self._judged_by.items()
            }

    def export(self, folder: Path) -> Path:
        """Write the adapter in PEFT's format, in 16 bits, to `folder/<backbone>`; returns that folder.

        Raises:
            TrainingError: the backbone was changed by the training, which must never happen.
        """
        if (after := self.base_fingerprint()) != self.fingerprint:
            raise TrainingError(
                f"{self.name}: the frozen backbone changed: found fingerprint {after}, expected {self.fingerprint}; "
                "do not use this adapter"
            )
        out = folder / self.size.name
        aside = folder / f".{self.size.name}.partial"
        lora = {name: tensor.half() for name, tensor in self.module.state_dict().items() if ".lora_" in name}
        # PEFT would ask a model hub about embeddings, which this network has none of
        self.module.save_pretrained(aside, safe_serialization=True, save_embedding_layers=False, state_dict=lora)
        out.mkdir(parents=True, exist_ok=True)
        # PEFT writes a set in the order of its hashes: equal runs shall give equal files
        config = json.loads((aside / CONFIG_FILE).read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])
        (aside / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            (aside / name).chmod(0o644)  # safetensors makes files that only their owner reads
            (aside / name).replace(out / name)
        shutil.rmtree(aside)
        return out

    def base_fingerprint(self) -> str:
        """The fingerprint of the network under the adapter, as it is now."""
        base = Backbone(self.size)
        state = self.module.get_base_model().state_dict()
        base.load_state_dict(
            {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}
        )
        return fingerprint(base)

    def _restored(self, degraded: Tensor, view: Tensor) -> Tensor:
        device = next(self.module.parameters()).device
        restored: Tensor = self.module(degraded[None].to(device), view[None].to(device))
        return restored[0].clamp(0, 1).cpu()


def held_out_pairs(
    degrader: Degrader, photos: CleanPhotos, degradation: str, others: Sequence[str] = (), scene: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """What an adapter is judged on: crops (3, S, S) of held-out photos, degraded and clean, always the same ones.

    Each carries one of the `others`, too, if there are any. With `scene` they are scenes of at most that size.
    """
    pairs = []
    for item in range(2 * VALIDATION_CROPS):
        generator = generator_for(0, 7, item)
        clean = photos.scene(generator, scene, NARROWEST) if scene else photos.crop(generator, VALIDATION_SIDE)
        if others:
            sample = mixed_sample(degrader, clean, degradation, others, generator)
        else:
            sample = degrader.single(clean, degradation, generator)
        pairs.append((sample.degraded, sample.clean))
    return pairs


def mixed_sample(
    degrader: Degrader, clean: Tensor, degradation: str, others: Sequence[str], generator: torch.Generator
) -> Sample:
    """A clean crop (3, H, W) with the degradation and one of the others, in either order."""
    other = others[int(torch.randint(len(others), (), generator=generator))]
    names = (degradation, other) if chance(generator, 0.5) else (other, degradation)
    return degrader.chain(clean, names, generator)


def _with_lora(backbone: Backbone, found: str, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError(
            "training an adapter: peft is missing; install it with: pip install 'abair[train]'"
        ) from error
    freeze(backbone)
    config = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=sorted(adaptable_layers(backbone)))
    model = get_peft_model(backbone, config)
    # only now: get_peft_model overwrites it with the model's own name, of which a plain module has none
    model.peft_config["default"].base_model_name_or_path = backbone_reference(backbone.size.name, found)
    return model


def _view(image: Tensor) -> Tensor:
    return global_view(image[None])[0]


def _copy(start: Adapter, adapted: Mapping[str, nn.Module], rank: int) -> None:
    if start.rank != rank:
        raise TrainingError(
            f"adapter {start.name} to start from: found rank {start.rank}, expected {rank}; give --rank {start.rank}"
        )
    if set(start.layers) != set(adapted):
        raise TrainingError(
            f"adapter {start.name} to start from: found {len(start.layers)} layers, expected all {len(adapted)} that "
            "an adapter may change; start from another, or from nothing"
        )
    with torch.no_grad():
        for name, (down, up) in start.layers.items():
            for part, tensor in (("lora_A", down), ("lora_B", up * (start.scaling / SCALE))):
                weight = adapted[name].get_submodule(part).get_parameter("default.weight")
                weight.copy_(tensor.view_as(weight))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
