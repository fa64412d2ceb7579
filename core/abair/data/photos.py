"""Clean photos that training samples are made of: found in a folder, decoded, split, cropped."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from abair import images
from abair.data.sample_photos import dead_leaves, sample_photos
from abair.data.seeds import generator_from
from abair.errors import ImageError, TrainingError
from abair.images.pixels import reduce_to_8_bit
from abair.physics import chance, uniform

HELD_OUT: Final = 0.05
"""Share of the photos of a folder that training never sees."""
HELD_OUT_SAMPLES: Final = frozenset({"astronaut", "coffee"})
"""Sample photos that training never sees; drawn images are not evaluated on."""
SAMPLE_SOURCE: Final = "sample photos and dead leaves"
"""The source of the photos that are used when no folder is given."""
SAMPLE_SHARE: Final = 10
"""How often a sample photo is drawn for each dead-leaves image. Damage is learnt from photographs;
there are few, and the drawn images keep a network from learning these by heart."""

Pixels = NDArray[np.uint8]


class CleanPhotos:
    """Clean photos (H, W, 3) uint8 in memory, of which seeded crops are taken.

    Each is drawn as often as its `shares` among all say, by default all alike.

    Raises:
        TrainingError: There are no photos.
    """

    def __init__(self, photos: Sequence[Pixels], source: str, shares: Sequence[int] | None = None) -> None:
        if not photos:
            raise TrainingError(f"{source}: found no photos, expected at least one; name a folder with --data DIR")
        self.photos = photos
        self.source = source
        self._drawn = [
            index for index, share in enumerate(shares or itertools.repeat(1, len(photos))) for _ in range(share)
        ]

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos)

    def digest(self) -> str:
        """Return the SHA-256 over sizes and pixels: it identifies the photos in any folder."""
        return pixels_digest(self.photos)

    def crop(self, generator: torch.Generator, side: int) -> Tensor:
        """Return a crop (3, side, side) in [0, 1], randomly rotated and mirrored.

        Half of the crops come from a photo reduced up to three times. These show more of the scene
        (haze and darkness are visible at large scale only), and are cleaner than their source,
        whose compression would be learnt as detail. A photo smaller than `side` is enlarged.
        """
        photo = self.photos[self.draw(generator)]
        height, width = photo.shape[:2]
        largest = min(height, width) / side
        factor = min(uniform(generator, 1.0, 3.0), largest) if chance(generator, 0.5) else 1.0
        factor = max(factor, min(1.0, largest)) if largest < 1 else factor
        window = max(1, min(round(side * factor), height, width))
        top = int(torch.randint(height - window + 1, (), generator=generator))
        left = int(torch.randint(width - window + 1, (), generator=generator))
        patch = photo[top : top + window, left : left + window]
        if window != side:
            patch = np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.LANCZOS))
        return random_turn(patch, generator)

    def scene(
        self, generator: torch.Generator, longest: int, smallest: float = 0.4, index: int | None = None
    ) -> Tensor:
        """Return a rectangle (3, H, W) in [0, 1] of a photo, at most `longest` pixels a side.

        It stands for a whole small photo. Each side is a random share, at least `smallest`, of
        `longest`. A third of the scenes are reduced up to three times. Another third are enlarged
        up to 1.6 times, because many undamaged photos are soft without being blurred. The photo is
        drawn unless its `index` is given.
        """
        drawn = self.draw(generator)  # drawn in any case: seeds stay the same
        photo = self.photos[drawn if index is None else index]
        kind = int(torch.randint(3, (), generator=generator))
        factor = (1.0, uniform(generator, 1.0, 3.0), uniform(generator, 1 / 1.6, 1.0))[kind]
        spans = []
        for length in photo.shape[:2]:
            window = max(1, min(length, round(longest * factor * uniform(generator, smallest, 1.0))))
            start = int(torch.randint(length - window + 1, (), generator=generator))
            spans.append((start, window, min(longest, max(1, round(window / factor)))))
        (top, rows, height), (left, columns, width) = spans
        patch = photo[top : top + rows, left : left + columns]
        if (height, width) != (rows, columns):
            patch = np.asarray(Image.fromarray(patch).resize((width, height), Image.Resampling.LANCZOS))
        return random_turn(patch, generator)

    def draw(self, generator: torch.Generator) -> int:
        """Draw the index of a photo, by the shares."""
        return self._drawn[int(torch.randint(len(self._drawn), (), generator=generator))]


def load_clean_photos(folder: Path | None) -> tuple[CleanPhotos, CleanPhotos]:
    """Return the photos to train on and the held-out ones.

    They come from `folder`, which may be a ZIP file of one, or without it from installed packages,
    with 24 dead-leaves images.

    Raises:
        TrainingError: The folder does not exist, holds no photos, or a photo cannot be read.
        MissingExtraError: No folder is given and a package with sample photos is not installed.
    """
    if folder is not None:
        with _unpacked(folder) as unpacked:
            train_paths, held_out_paths = split_photos(find_photos(unpacked))
            train = CleanPhotos(load_photos(train_paths), str(folder))
            return train, CleanPhotos(load_photos(held_out_paths), f"{folder} (held out)")
    return _sample_set()


@cache
def _sample_set() -> tuple[CleanPhotos, CleanPhotos]:
    """Return sample photos and dead leaves, read and drawn once: a set takes seconds."""
    photos = sorted(sample_photos().items())
    held_out = [photo for name, photo in photos if name in HELD_OUT_SAMPLES]
    others = [photo for name, photo in photos if name not in HELD_OUT_SAMPLES]
    leaves = [dead_leaves(generator_from(0, index), 320) for index in range(24)]
    shares = [SAMPLE_SHARE] * len(others) + [1] * len(leaves)
    return CleanPhotos(others + leaves, SAMPLE_SOURCE, shares), CleanPhotos(held_out, f"{SAMPLE_SOURCE} (held out)")


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yield the folder at `path`, or the content of the ZIP file there in a temporary folder.

    Raises:
        TrainingError: it is a file, and no ZIP file that can be read.
    """
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="abair-photos-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:  # encrypted; another method
            raise TrainingError(
                f"{path}: cannot be unpacked ({error}); expected a folder of clean photos, or a ZIP file of one, such "
                "as `abair train pack` writes"
            ) from None
        yield Path(folder)


def find_photos(folder: Path) -> list[Path]:
    """Return all photo files below a folder, sorted by path, without hidden ones.

    Raises:
        TrainingError: The folder does not exist, or there are no photos in it.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; expected a folder with clean photos")
    paths = list_photos(folder)
    if not paths:
        raise TrainingError(f"{folder}: found no photos; expected {', '.join(sorted(images.SUFFIXES))} files below it")
    return paths


def list_photos(folder: Path) -> list[Path]:
    """Return all photo files below a folder, sorted by path, without hidden ones; perhaps none."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in images.SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def split_photos(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split photos into those to train on and a share of `HELD_OUT`, at least one each.

    A hash of the file name decides, so the split stays when photos are added.
    """
    held_out = [path for path in paths if _unit_hash(path.name) < HELD_OUT]
    train = [path for path in paths if _unit_hash(path.name) >= HELD_OUT]
    if not held_out or not train:
        return list(paths[1:]) or list(paths), [paths[0]]
    return train, held_out


def load_photos(paths: Sequence[Path]) -> list[Pixels]:
    """Decode photos to (H, W, 3) uint8, upright.

    Raises:
        TrainingError: A file is no readable image.
    """
    photos = []
    for path in paths:
        try:
            pixels = images.read(path).pixels
        except ImageError as error:
            raise TrainingError(f"{error}; or remove it from the training folder") from None
        photos.append(pixels if pixels.dtype == np.uint8 else reduce_to_8_bit(pixels))
    return photos


def pixels_digest(photos: Sequence[Pixels]) -> str:
    """Return the SHA-256 over the sizes and pixels of photos (H, W, 3) uint8, in their order."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(f"{photo.shape}\n".encode())
        digest.update(photo.tobytes())
    return digest.hexdigest()


def random_turn(patch: Pixels, generator: torch.Generator) -> Tensor:
    """Rotate by right angles and mirror (H, W, 3) at random; return (3, H, W) in [0, 1]."""
    patch = np.rot90(patch, int(torch.randint(4, (), generator=generator)))
    if chance(generator, 0.5):
        patch = patch[:, ::-1]
    return torch.from_numpy(np.array(patch, order="C")).permute(2, 0, 1).float().div_(255).contiguous()


def _unit_hash(name: str) -> float:
    """Map a name to [0, 1) by its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
