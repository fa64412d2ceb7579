"""Real pairs for phase II: degraded photos, and the same scenes clean."""

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
    """Real pairs in memory, (H, W, 3) uint8: photos of equal index are partners of equal size."""

    def __init__(self, clean: Sequence[Pixels], degraded: Sequence[Pixels]) -> None:
        self.clean, self.degraded = clean, degraded

    def crop(self, generator: torch.Generator, side: int, *, whole: bool = False) -> tuple[Tensor, Tensor, Tensor]:
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
