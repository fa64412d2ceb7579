"""Real pairs, a damaged photo and the same scene undamaged, for phase II."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from abair.data.photos import Pixels, find_photos, load_photos, split_photos
from abair.errors import TrainingError
from abair.training.adapter_data import view_of


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
        return degraded, clean, view_of(turned(self.degraded[index]) if whole else degraded)


def read_pairs(folder: Path, smallest: int) -> tuple[Pairs, Pairs]:
    """The pairs to train on and those held out, each at least `smallest` pixels a side.

    Raises:
        TrainingError: a folder is missing, a name has no partner, two partners differ in size, or a pair is too small.
    """
    clean = {path.stem: path for path in find_photos(folder / "clean")}
    degraded = {path.stem: path for path in find_photos(folder / "degraded")}
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
