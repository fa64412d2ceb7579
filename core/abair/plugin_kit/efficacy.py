"""What an adapter is worth: held-out samples of its damage, restored by it, by the bare backbone and by other adapters.

The gate that a plugin meets when it is added asks the same question of samples of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abair.data.degrade import Degrader, to_8_bit
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.metrics import psnr, ssim
from abair.model.backbone import Backbone
from abair.model.lora import Adapter, Blender
from abair.text import markdown_table

COUNT: Final = 20
SIDE: Final = 192
"""Samples, and their sides in pixels."""
SHOWN: Final = 5
"""Samples whose pictures are kept for the sheet."""
INPUT: Final = "the damaged photo"
BARE: Final = "the bare backbone"

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Efficacy:
    """Mean PSNR in dB and SSIM by what restored; the adapter's own row is called `own`.

    `pictures` holds of the first samples the damaged part, the bare backbone's, the adapter's, and the undamaged one.
    """

    own: str
    count: int
    means: dict[str, tuple[float, float]]
    pictures: tuple[tuple[Picture, Picture, Picture, Picture], ...] = ()

    @property
    def gain(self) -> float:
        """In dB, over the bare backbone."""
        return self.means[self.own][0] - self.means[BARE][0]

    @property
    def best_other(self) -> str | None:
        """The other adapter that does best, if there is one."""
        others = [name for name in self.means if name not in (self.own, INPUT, BARE)]
        return max(others, key=lambda name: self.means[name][0]) if others else None

    def markdown(self) -> str:
        """Return a table with one row per network."""
        rows = [
            [f"**{name}**" if name == self.own else name, f"{decibels:.2f}", f"{similarity:.3f}"]
            for name, (decibels, similarity) in self.means.items()
        ]
        return markdown_table(["restored by", "PSNR in dB", "SSIM"], rows)


def measure(
    backbone: Backbone,
    own: Adapter,
    others: Mapping[str, Adapter],
    degrader: Degrader,
    photos: CleanPhotos,
    tell: Callable[[], object] = lambda: None,
) -> Efficacy:
    """Restore `COUNT` samples of the adapter's degradation, made from `photos`, by each; `tell` is called after each.

    Samples depend on the photos and the synthesiser alone.
    """
    blender = Blender(backbone, [own, *others.values()])
    names = [f"adapter {own.name}", *(f"adapter {name}" for name in others)]
    networks = {BARE: backbone} | {
        name: blender.blend([float(place == at) for at in range(len(names))]) for place, name in enumerate(names)
    }
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in (INPUT, *networks)}
    pictures = []
    for item in range(COUNT):
        generator = generator_for(0, Stream.ADAPTER_EFFICACY, item)
        sample = degrader.single(photos.crop(generator, SIDE), own.name, generator)
        clean, made = _pixels(sample.clean), {INPUT: _pixels(sample.degraded)}
        made |= {name: _restored(network, sample.degraded) for name, network in networks.items()}
        for name, picture in made.items():
            scores[name].append((psnr(picture, clean), ssim(picture, clean)))
        if item < SHOWN:
            pictures.append((made[INPUT], made[BARE], made[names[0]], clean))
        tell()
    means = {name: _mean(values) for name, values in scores.items()}
    return Efficacy(names[0], COUNT, means, tuple(pictures))


@torch.inference_mode()
def _restored(network: Backbone, degraded: Tensor) -> Picture:
    return _pixels(to_8_bit(network(degraded[None])[0]))


def _pixels(image: Tensor) -> Picture:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _mean(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(a for a, _ in values) / len(values), sum(b for _, b in values) / len(values)
