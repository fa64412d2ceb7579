"""Real damage for phase II: pairs of a degraded photo and the same scene clean, or layers.

A layer is what rain, say, added to one photo. It fits any other photo: degraded = clean + layer,
clipped. So a few hundred layers, each turned, scaled and tinted, damage all clean photos as real
pairs do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from abair.data.degrade import to_8_bit
from abair.data.photos import CleanPhotos, Pixels, find_photos, load_photos, pixels_digest, split_photos
from abair.errors import TrainingError
from abair.physics import chance, log_uniform, uniform
from abair.training.adapter_data import view_of

AS_IT_IS: Final = 0.3
"""Share of the layers that are only cut and mirrored."""
TURN: Final = 15.0
"""Largest turn of a layer in degrees, either way."""
SCALE: Final = (0.6, 1.8)
"""Range of the factor by which a layer is enlarged."""
STRENGTH: Final = (0.5, 1.6)
"""Range of the factor of its values."""
BEND: Final = (0.7, 1.5)
"""Range of the exponent of its values: below 1 streaks grow thicker, above 1 thinner."""
TINT: Final = 0.15
"""Largest deviation of a channel's factor from 1."""

Sample = tuple[Tensor, Tensor, Tensor]
"""Degraded and clean image (3, H, W), and the global view (3, 64, 64)."""


class RealDamage(Protocol):
    """A set of real damage, from which training samples are cut."""

    def __len__(self) -> int:
        """Return the number of pairs or layers."""
        ...

    def crop(self, generator: torch.Generator, side: int, *, whole: bool = False) -> Sample:
        """Return a crop (3, side, side), degraded and clean, and its global view (3, 64, 64)."""
        ...

    def digest(self) -> str:
        """Return the SHA-256 of the set's pixels."""
        ...


class Pairs:
    """Real pairs in memory, (H, W, 3) uint8: photos of equal index are partners of equal size."""

    def __init__(self, clean: Sequence[Pixels], degraded: Sequence[Pixels]) -> None:
        self.clean, self.degraded = clean, degraded

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.clean)

    def digest(self) -> str:
        """Return the SHA-256 of all pixels."""
        return pixels_digest([*self.clean, *self.degraded])

    def crop(self, generator: torch.Generator, side: int, *, whole: bool = False) -> Sample:
        """Return a crop (3, side, side), degraded and clean, and its global view (3, 64, 64).

        All are rotated and mirrored alike. With `whole` the view is that of the whole photo.
        """
        index = int(torch.randint(len(self.clean), (), generator=generator))
        height, width = self.clean[index].shape[:2]
        top = int(torch.randint(height - side + 1, (), generator=generator))
        left = int(torch.randint(width - side + 1, (), generator=generator))
        turns, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))

        def orient(photo: Pixels) -> Tensor:
            patch = np.rot90(photo, turns)
            patch = patch[:, ::-1] if mirror else patch
            return torch.from_numpy(patch.copy()).permute(2, 0, 1).float().div_(255)

        pair = self.degraded[index], self.clean[index]
        degraded, clean = (orient(photo[top : top + side, left : left + side]) for photo in pair)
        return degraded, clean, view_of(orient(self.degraded[index]) if whole else degraded)


class Layers:
    """Additive layers (H, W, 3) uint8 in memory, put on clean photos."""

    def __init__(self, layers: Sequence[Pixels], photos: CleanPhotos) -> None:
        self.layers, self.photos = layers, photos

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)

    def digest(self) -> str:
        """Return the SHA-256 of the layers' pixels."""
        return pixels_digest(self.layers)

    def crop(self, generator: torch.Generator, side: int, *, whole: bool = False) -> Sample:  # noqa: ARG002
        """Return a crop (3, side, side) of a photo with a layer, without, and its global view."""
        clean = self.photos.crop(generator, side)
        layer = self.layers[int(torch.randint(len(self.layers), (), generator=generator))]
        degraded = to_8_bit(clean + _cut_layer(layer, generator, side))
        return degraded, clean, view_of(degraded)


def _cut_layer(layer: Pixels, generator: torch.Generator, side: int) -> Tensor:
    """Return a part (3, side, side) of a layer, mirrored, and mostly turned, scaled and tinted.

    What lies outside the layer is reflected into it.
    """
    values = torch.from_numpy(layer).permute(2, 0, 1).float().div_(255)
    height, width = values.shape[1:]
    changed = not chance(generator, AS_IT_IS)
    angle = math.radians(uniform(generator, -TURN, TURN)) if changed else 0.0
    scale = log_uniform(generator, *SCALE) if changed else 1.0
    mirror = -1.0 if chance(generator, 0.5) else 1.0
    centre_y, centre_x = (
        uniform(generator, 0.5 * min(side, length), length - 0.5 * min(side, length)) for length in (height, width)
    )
    offset = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2) / scale
    dy, dx = offset[:, None], mirror * offset[None, :]
    if changed:
        x = centre_x + dx * math.cos(angle) - dy * math.sin(angle)
        y = centre_y + dx * math.sin(angle) + dy * math.cos(angle)
    else:  # whole pixels, so that nothing is interpolated
        x = (math.floor(centre_x - side / 2) + (side - 1) / 2 + dx).expand(side, side)
        y = (math.floor(centre_y - side / 2) + (side - 1) / 2 + dy).expand(side, side)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    part = F.grid_sample(values[None], grid[None], padding_mode="reflection", align_corners=False)[0].clamp_min_(0.0)
    if not changed:
        return part
    part = part ** uniform(generator, *BEND) * log_uniform(generator, *STRENGTH)
    tint = TINT * uniform(generator, 0.0, 1.0) if chance(generator, 0.3) else 0.0
    return part * (1 + tint * (2 * torch.rand((3, 1, 1), generator=generator) - 1))


def read_layers(folder: Path, photos: CleanPhotos, held_out: CleanPhotos) -> tuple[Layers, Layers]:
    """Read the additive layers in a folder, to train on and held out, each for its photos.

    Raises:
        TrainingError: the folder is missing, holds no pictures, or one cannot be read.
    """
    train, kept = (load_photos(paths) for paths in split_photos(find_photos(folder)))
    return Layers(train, photos), Layers(kept, held_out)


def read_pairs(folder: Path, smallest: int) -> tuple[Pairs, Pairs]:
    """Read the pairs to train on and those held out.

    Partners have equal names in `clean/` and `degraded/`, up to the suffix.

    Raises:
        TrainingError: a folder is missing, a name has no partner, two partners differ in size, or
            one is smaller than `smallest` pixels a side.
    """
    clean = {path.stem: path for path in find_photos(folder / "clean")}
    degraded = {path.stem: path for path in find_photos(folder / "degraded")}
    if unpaired := sorted(clean.keys() ^ degraded.keys()):
        raise TrainingError(
            f"{folder}: found {unpaired[0]} without a partner; expected equal names in clean/ and degraded/"
        )
    train, held_out = split_photos([clean[name] for name in sorted(clean)])
    return _load_pairs(train, degraded, smallest), _load_pairs(held_out, degraded, smallest)


def _load_pairs(clean: Sequence[Path], degraded: dict[str, Path], smallest: int) -> Pairs:
    pairs = Pairs(load_photos(clean), load_photos([degraded[path.stem] for path in clean]))
    for path, one, other in zip(clean, pairs.clean, pairs.degraded, strict=True):
        if one.shape != other.shape:
            raise TrainingError(f"{path}: found {one.shape} and {other.shape}, expected partners of equal size")
        if min(one.shape[:2]) < smallest:
            raise TrainingError(
                f"{path}: found {one.shape[1]}x{one.shape[0]} pixels, expected at least {smallest} a side; "
                "leave the pair out or train with a smaller --crop"
            )
    return pairs
