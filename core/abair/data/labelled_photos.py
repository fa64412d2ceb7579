"""Real photos that carry only a label: what is wrong with them, without the clean photo.

They show an estimator what life shows, which no synthesiser does: a label needs no reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from abair.data.degrade import to_8_bit
from abair.data.photos import Pixels, find_photos, load_photos, pixels_digest, random_turn, split_photos
from abair.labels import CLEAN
from abair.physics import chance, log_uniform, uniform

SMALLEST: Final = 0.5
"""Least part of a photo's side, or of the longest side wanted, that is cut out."""
EXPOSURE: Final = (0.8, 1.25)
"""Range of the factor by which every second photo is made darker or brighter."""
CLEAN_SHARE: Final = 0.35
"""Share of undamaged photos, where there are some; the other labels are equally likely."""


class LabelledPhotos:
    """Photos (H, W, 3) uint8 in memory by their labels and, within one, by their folders.

    Folders hold kinds of photos, such as walls or pages, and each is drawn equally often, however
    many there are of it.
    """

    def __init__(self, photos: Mapping[str, Sequence[Sequence[Pixels]]]) -> None:
        self.photos = {label: [list(kind) for kind in kinds] for label, kinds in photos.items()}

    def __len__(self) -> int:
        return sum(len(kind) for kinds in self.photos.values() for kind in kinds)

    def digest(self) -> str:
        """Return the SHA-256 of labels and pixels."""
        parts = [f"{label} {pixels_digest(kind)}" for label, kinds in self.photos.items() for kind in kinds]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def draw(self, generator: torch.Generator, longest: int) -> tuple[str, Tensor]:
        """Return a label and a part (3, H, W) of one of its photos, at native resolution.

        It is turned at random, and perhaps a little darker or brighter.
        """
        damaged = [label for label in self.photos if label != CLEAN]
        if CLEAN in self.photos and (not damaged or chance(generator, CLEAN_SHARE)):
            label = CLEAN
        else:
            label = damaged[int(torch.randint(len(damaged), (), generator=generator))]
        kinds = self.photos[label]
        kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
        photo = kind[int(torch.randint(len(kind), (), generator=generator))]
        part = random_turn(_cut(photo, generator, longest), generator)
        if chance(generator, 0.5):
            part = to_8_bit(part * log_uniform(generator, *EXPOSURE))
        return label, part

    def items(self) -> list[tuple[str, Pixels]]:
        """Return all photos with their labels."""
        return [(label, photo) for label, kinds in self.photos.items() for kind in kinds for photo in kind]


def read_labelled(folders: Sequence[tuple[str, Path]]) -> tuple[LabelledPhotos, LabelledPhotos]:
    """Read the photos below folders, each for a label, to train on and held out.

    Raises:
        TrainingError: a folder is missing, holds no photos, or one cannot be read.
    """
    train: dict[str, list[list[Pixels]]] = {}
    held_out: dict[str, list[list[Pixels]]] = {}
    for label, folder in folders:
        for _, paths in groupby(find_photos(folder), lambda path: path.parent):
            for photos, part in zip((train, held_out), split_photos(list(paths)), strict=True):
                photos.setdefault(label, []).append(load_photos(part))
    return LabelledPhotos(train), LabelledPhotos(held_out)


def _cut(photo: Pixels, generator: torch.Generator, longest: int) -> Pixels:
    """Cut out a rectangle, each side a random share of the photo's, at most `longest`."""
    spans = []
    for length in photo.shape[:2]:
        window = max(1, round(min(length, longest) * uniform(generator, SMALLEST, 1.0)))
        start = int(torch.randint(length - window + 1, (), generator=generator))
        spans.append(slice(start, start + window))
    return photo[spans[0], spans[1]]
