"""Phase II: with the backbone frozen, train one LoRA for one degradation through PEFT (the only importer of peft here).

On the linear and ungrouped convolution layers; what it learns from is said in `abair.training.adapter_data`. The
paper's best rank of 4, 8, 16 was 4, for a backbone of 26 million weights; for `nano`, a tenth of that, 16 is better
(docs/experiments/phase-2-rank.md).
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos, pixels_digest
from abair.data.seeds import Stream, generator_for
from abair.errors import MissingExtraError, TrainingError
from abair.model.backbone import Backbone, fingerprint, freeze
from abair.model.lora import Adapter, adaptable_layers, backbone_reference
from abair.physics import uniform
from abair.training.adapter_data import SHARES, held_out_pairs, lesson, view_of
from abair.training.backbone import VALIDATION_CROPS, decibel_loss, psnr
from abair.training.loop import Batch
from abair.training.real_pairs import Pairs
from abair.training.settings import Settings

SCALE: Final = 2
"""Of what the adapter adds: LoRA's alpha over its rank."""
REAL_SHARE: Final = 0.5
"""Share of samples cut from real pairs, where there are any."""
TINY: Final = 1e-6
"""What rounding may be wrong by."""


class AdaptTask:
    """Phase II for the loop; it goes on from the adapter `start`, if there is one.

    `degrader` knows the degradation, and those in the settings' `beside`. What carries one of these, too, is restored
    by a blend with that one's adapter, which stays as it is, if it is among the `partners`; else by this adapter alone.
    `start` may be another degradation's adapter. `mean_with` is what `take_mean` averages the trained weights with.

    Raises:
        TrainingError: `start` or `mean_with` is of another rank, or leaves layers out; `beside` names a degradation
            twice, its own, or one that `degrader` does not know.
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
        partners: Sequence[Adapter] = (),
        mean_with: Adapter | None = None,
    ) -> None:
        self.name = f"adapter-{degradation}"
        self.degradation, self.degrader, self.settings = degradation, degrader, settings
        self.photos, self.held_out, self.pairs = photos, held_out, pairs
        self.beside = settings.beside
        unusable = {degradation, *self.beside} - set(degrader.synthesizers)
        if unusable or degradation in self.beside or len(set(self.beside)) < len(self.beside):
            raise TrainingError(
                f"beside: found {', '.join(self.beside)}, expected other degradations than {degradation}, each once, "
                f"of {', '.join(degrader.synthesizers)}"
            )
        self.fingerprint = fingerprint(backbone)
        self.size = backbone.size
        self._bare = copy.deepcopy(backbone)
        freeze(self._bare)
        torch.manual_seed(settings.seed)  # PEFT initialises A at random
        self.module = _with_lora(backbone, self.fingerprint, settings.rank)
        layers = adaptable_layers(self._bare)
        self._adapted = {name: self.module.get_base_model().get_submodule(name) for name in layers}
        self._partners = {one.name: {layer: one.weight_delta(layer) for layer in one.layers} for one in partners}
        self._blended_with = ", ".join(f"{one.name} {one.digest[:16]}" for one in partners)
        self._start = "" if start is None else start.digest
        if start is not None:
            _expect_fit(start, "to start from", self._adapted, settings.rank)
            _move(self._adapted, start, 1.0)
        self._mean_with = mean_with
        if mean_with is not None:
            _expect_fit(mean_with, "for the mean", self._adapted, settings.rank)

    @cached_property
    def depends(self) -> dict[str, str]:
        """The frozen network, photos, damage, real pairs, the adapters that it begins from and is blended with."""
        pairs = "" if self.pairs is None else pixels_digest([*self.pairs[0].clean, *self.pairs[0].degraded])
        photos, damage = self.photos.digest(), self.degrader.digest
        of = {"backbone": self.fingerprint, "photos": photos, "damage": damage, "pairs": pairs}
        return of | {"start": self._start, "blended_with": self._blended_with}

    def batch(self, index: int) -> Batch:
        """(degraded, clean, global views, blend).

        The last ones carry a second degradation. `blend` says how many these are, which it is by its place in `beside`,
        and the adapter's weight there.
        """
        mixed, place, share = self._mixed(index), 0, 1.0
        if mixed:
            drawn = generator_for(self.settings.seed, Stream.ADAPTER_MIXTURE, index)
            place, share = int(torch.randint(len(self.beside), (), generator=drawn)), uniform(drawn, *SHARES)
        chosen = []
        for item in range(self.settings.batch):
            generator = generator_for(self.settings.seed, Stream.ADAPTER_SAMPLE, index, item)
            if self.pairs is not None and item < self._real_ones:
                chosen.append(self._real(self.pairs[0], generator))
            else:
                other = self.beside[place] if item >= self.settings.batch - mixed else None
                chosen.append(lesson(self.degrader, self.degradation, self.photos, self.settings, generator, other))
        degraded, clean, views = (torch.stack(parts) for parts in zip(*chosen, strict=True))
        return degraded, clean, views, torch.tensor([mixed, place, share])

    @property
    def _real_ones(self) -> int:
        """How many samples of a batch are cut from real pairs."""
        return 0 if self.pairs is None else math.ceil(REAL_SHARE * self.settings.batch)

    def _mixed(self, index: int) -> int:
        """How many samples of this batch carry a second degradation; over many batches the part is as it was asked."""
        of_each = self.settings.mixed * (self.settings.batch - self._real_ones) if self.beside else 0.0
        return math.floor((index + 1) * of_each + TINY) - math.floor(index * of_each + TINY)

    def _real(self, pairs: Pairs, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return pairs.crop(generator, self.settings.crop, whole=bool(self.settings.scene))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The error in decibels, as in phase I."""
        degraded, clean, views, blend = batch
        mixed, place, share = blend.tolist()
        own = len(degraded) - int(mixed)
        changes, restored = self._changes(), []
        if own:
            restored.append(self._restore(changes, degraded[:own], views[:own]))
        if mixed:
            partner = self._partners.get(self.beside[int(place)])
            restored.append(self._restore(changes, degraded[own:], views[own:], partner, share))
        return decibel_loss(torch.cat(restored).float(), clean), {}

    def _changes(self) -> dict[str, Tensor]:
        """What the adapter in training adds to each layer's weight."""
        with torch.autocast(next(self.module.parameters()).device.type, enabled=False):
            return {name: layer.get_delta_weight("default") for name, layer in self._adapted.items()}

    def _restore(
        self,
        changes: Mapping[str, Tensor],
        degraded: Tensor,
        views: Tensor,
        partner: Mapping[str, Tensor] | None = None,
        share: float = 1.0,
    ) -> Tensor:
        """What the network restores with the `changes`; with a partner's, too, by their `share` and the rest of its."""
        network = self._bare.to(degraded.device)
        weights = _merged(network, changes, partner, share)
        restored: Tensor = functional_call(
            network, weights, (degraded.contiguous(memory_format=torch.channels_last), views)
        )
        return restored

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """PSNR in dB on held-out samples: with the adapter, of the bare backbone, of the input.

        On mixed samples, scenes and real pairs, too, where it learns from them. Of mixed samples whose other
        degradation has a partner, `blend_halves` is what the two restore by halves, `blend_alone` what the better of
        the two restores alone, on the mean.
        """
        changes, figures = self._changes(), dict[str, float]()
        for prefix, samples in self._judged_by.items():
            figures[f"{prefix}psnr"] = _mean([psnr(self._restored(changes, d, view), c) for d, c, view in samples])
            figures |= {f"{prefix}{way}": figure for way, figure in self._before[prefix].items()}
        blended = [
            (sample, self._partners[other])
            for sample, other in zip(self._judged_by.get("mixed_", ()), cycle(self.beside), strict=False)
            if other in self._partners
        ]
        if blended:
            ways = [
                _mean([psnr(self._restored(changes, d, view, partner, share), c) for (d, c, view), partner in blended])
                for share in (1.0, 0.5, 0.0)
            ]
            figures |= {"blend_halves": ways[1], "blend_alone": max(ways[0], ways[2])}
        return figures

    @cached_property
    def _judged_by(self) -> dict[str, list[tuple[Tensor, Tensor, Tensor]]]:
        """Held-out samples by what they are called in the figures: degraded, clean, global view."""
        sets = {"": held_out_pairs(self.degrader, self.held_out, self.degradation)}
        if self.beside:
            sets["mixed_"] = held_out_pairs(self.degrader, self.held_out, self.degradation, self.beside)
        if self.settings.scene:
            sets["scene_"] = held_out_pairs(self.degrader, self.held_out, self.degradation, scene=self.settings.scene)
        samples = {prefix: [(d, c, view_of(d)) for d, c in pairs] for prefix, pairs in sets.items()}
        if self.pairs is not None:
            generator = generator_for(0, Stream.ADAPTER_VALIDATION_REAL)
            samples["real_"] = [self._real(self.pairs[1], generator) for _ in range(VALIDATION_CROPS)]
        return samples

    @cached_property
    def _before(self) -> dict[str, dict[str, float]]:
        """What the bare backbone makes of them, and what they are: no training changes it."""
        bare = self._bare.to(next(self.module.parameters()).device)
        return {
            prefix: {
                "bare": _mean([psnr(self._shown(bare, d, view), c) for d, c, view in samples]),
                "input": _mean([psnr(d, c) for d, c, _ in samples]),
            }
            for prefix, samples in self._judged_by.items()
        }

    def take_mean(self) -> None:
        """After the training: the mean of its weights and those of `mean_with`, if there is one.

        What is trained on samples alone gets better on samples, and may get worse on what they are not like. In
        between, where one was trained from the other, it is often better than both on either (*weight-space ensemble*,
        Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
        """
        if self._mean_with is not None:
            _move(self._adapted, self._mean_with, 1 - self.settings.trained_part)

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

    def _restored(
        self,
        changes: Mapping[str, Tensor],
        degraded: Tensor,
        view: Tensor,
        partner: Mapping[str, Tensor] | None = None,
        share: float = 1.0,
    ) -> Tensor:
        return self._shown(lambda image, whole: self._restore(changes, image, whole, partner, share), degraded, view)

    def _shown(self, network: Callable[[Tensor, Tensor], Tensor], degraded: Tensor, view: Tensor) -> Tensor:
        """One image and its view through a network, as an image."""
        device = next(self.module.parameters()).device
        return network(degraded[None].to(device), view[None].to(device))[0].clamp(0, 1).cpu()


def _merged(
    network: Backbone, changes: Mapping[str, Tensor], partner: Mapping[str, Tensor] | None, share: float
) -> dict[str, Tensor]:
    """The adapted weights W + B A, as they will be served; of two adapters by the share of the first.

    PEFT would run each layer's two small ones beside it, which takes a third longer.
    """
    merged = {}
    for name, change in changes.items():
        weight = network.get_submodule(name).get_parameter("weight")
        if partner is not None:
            change = share * change
            if name in partner:
                change = change + (1 - share) * partner[name].view_as(weight).to(weight.device)
        merged[f"{name}.weight"] = weight + change
    return merged


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


def _expect_fit(adapter: Adapter, purpose: str, adapted: Mapping[str, nn.Module], rank: int) -> None:
    if adapter.rank != rank:
        raise TrainingError(
            f"{adapter.name}, {purpose}: found rank {adapter.rank}, expected {rank}; give --rank {adapter.rank}"
        )
    if set(adapter.layers) != set(adapted):
        raise TrainingError(
            f"{adapter.name}, {purpose}: found {len(adapter.layers)} layers, expected all {len(adapted)} that "
            "an adapter may change; name another, or none"
        )


@torch.no_grad()
def _move(adapted: Mapping[str, nn.Module], towards: Adapter, part: float) -> None:
    """The weights of the layers by `part` of the way to those of an adapter."""
    for name, (down, up) in towards.layers.items():
        for matrix, tensor in (("lora_A", down), ("lora_B", up * (towards.scaling / SCALE))):
            weight = adapted[name].get_submodule(matrix).get_parameter("default.weight")
            weight.lerp_(tensor.view_as(weight).to(weight), part)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
