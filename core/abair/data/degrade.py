"""Training samples: clean photos, and what the degradations of installed plugins make of them.

Every sample is a function of (seed, stream, index) alone, so a run that is resumed sees exactly what it would have
seen, and several workers or processes share the work without talking to each other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from abair import images
from abair.data.file_artifacts import filed
from abair.data.seeds import Stream, generator_for, generator_from
from abair.errors import ImageError, TrainingError
from abair.images.pixels import reduce_to_8_bit
from abair.labels import CLEAN
from abair.physics import chance, log_uniform, uniform

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

HELD_OUT: Final = 0.05
"""Part of the photos that training never sees; chosen by a hash of the name, so it stays when photos are added."""
HELD_OUT_SAMPLES: Final = frozenset({"astronaut", "coffee"})
"""Those of scikit-image's photos that training never sees: what is judged is judged on photographs."""

SAMPLES: Final = "scikit-image's photos and dead leaves"
"""The source of those that serve where no folder is named."""

TONES: Final = (0.55, 1.8)
"""Exponents by which photos are made paler or darker, as exposures and editors do."""

Pixels = NDArray[np.uint8]


class CleanPhotos:
    """Clean photos held in memory (H, W, 3) uint8, of which seeded crops are taken."""

    def __init__(self, photos: Sequence[Pixels], source: str) -> None:
        if not photos:
            raise TrainingError(f"{source}: found no photos, expected at least one; name a folder with --data DIR")
        self.photos = photos
        self.source = source

    def __len__(self) -> int:
        return len(self.photos)

    def digest(self) -> str:
        """SHA-256 over the photos' sizes and pixels: which photos these are, wherever they lie."""
        return pixels_digest(self.photos)

    def crop(self, generator: torch.Generator, side: int) -> Tensor:
        """A crop (3, side, side) in [0, 1], turned and mirrored at random, half of the time from a reduced photo.

        A reduced photo shows more of the scene (haze and darkness are seen in the large) and is cleaner than its
        source, whose compression would be learnt as if it were detail.
        """
        photo = self.photos[int(torch.randint(len(self.photos), (), generator=generator))]
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
        return _turned(patch, generator)

    def scene(
        self, generator: torch.Generator, longest: int, smallest: float = 0.4, which: int | None = None
    ) -> Tensor:
        """A rectangle of a photo (3, H, W) in [0, 1], at most `longest` a side: what a whole small photo looks like.

        The photo is drawn, too, unless it is said `which`.
        Each side is a random part of that, at least the `smallest`. A third is reduced, a third is enlarged up to 1.6
        times: many undamaged photos are soft, which is no blur.
        """
        drawn = int(torch.randint(len(self.photos), (), generator=generator))
        photo = self.photos[drawn if which is None else which]
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
        return _turned(patch, generator)


def _turned(patch: Pixels, generator: torch.Generator) -> Tensor:
    """One of the eight ways to turn and mirror (H, W, 3), as (3, H, W) in [0, 1]."""
    patch = np.rot90(patch, int(torch.randint(4, (), generator=generator)))
    if chance(generator, 0.5):
        patch = patch[:, ::-1]
    return torch.from_numpy(np.array(patch, order="C")).permute(2, 0, 1).float().div_(255).contiguous()


def photos_in(folder: Path) -> list[Path]:
    """All photo files below a folder, in the order of their paths; hidden ones are left out.

    Raises:
        TrainingError: no such folder, or no photos in it.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; expected a folder with clean photos")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in images.SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise TrainingError(f"{folder}: found no photos; expected {', '.join(sorted(images.SUFFIXES))} files below it")
    return paths


def split_photos(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide photos into those to train on and those held out (one in twenty, at least one each)."""
    held = [path for path in paths if _hash(path.name) < HELD_OUT]
    train = [path for path in paths if _hash(path.name) >= HELD_OUT]
    if not held or not train:
        return list(paths[1:]) or list(paths), [paths[0]]
    return train, held


def load_photos(paths: Sequence[Path]) -> list[Pixels]:
    """Decode photos to (H, W, 3) uint8, upright.

    Raises:
        TrainingError: a file is no readable image.
    """
    photos = []
    for path in paths:
        try:
            pixels = images.read(path).pixels
        except ImageError as error:
            raise TrainingError(f"{error}; or remove it from the training folder") from None
        photos.append(pixels if pixels.dtype == np.uint8 else reduce_to_8_bit(pixels))
    return photos


def clean_photos(folder: Path | None) -> tuple[CleanPhotos, CleanPhotos]:
    """The photos to train on and the held-out ones: from `folder`, or without one from scikit-image and dead leaves."""
    if folder is not None:
        seen, unseen = split_photos(photos_in(folder))
        return CleanPhotos(load_photos(seen), str(folder)), CleanPhotos(load_photos(unseen), f"{folder} (held out)")
    from abair.data.sample_photos import dead_leaves, sample_photos

    photos = sorted(sample_photos().items())
    held = [photo for name, photo in photos if name in HELD_OUT_SAMPLES]
    train = [photo for name, photo in photos if name not in HELD_OUT_SAMPLES]
    leaves = [dead_leaves(generator_from(0, index), 320) for index in range(24)]
    return CleanPhotos(train + leaves, SAMPLES), CleanPhotos(held, f"{SAMPLES} (held out)")


def pixels_digest(photos: Sequence[Pixels]) -> str:
    """SHA-256 over the sizes and pixels of photos (H, W, 3) uint8, in their order."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(f"{photo.shape}\n".encode())
        digest.update(photo.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Recipe:
    """Shares of the kinds of samples; what they leave of 1 is one degradation over the whole image.

    Degradations are drawn alike, but those in `emphasis` so many times as often. A share of all, `filed`, has been in
    an inexact file since (`abair.data.file_artifacts`), which changes nothing of what it is; a share, `toned`, shows
    photos that were made paler or darker first, which is no damage.
    """

    cutmix: float = 0.25
    double: float = 0.13
    clean: float = 0.1
    filed: float = 0.0
    toned: float = 0.0
    emphasis: tuple[tuple[str, float], ...] = ()


class SampleKind(StrEnum):
    """How the damage of a sample was put on."""

    CLEAN = "clean"
    """None at all."""
    SINGLE = "single"
    """One degradation over the whole image."""
    MIXTURE = "mixture"
    """Several degradations over the whole image, one after the other."""
    REGIONS = "regions"
    """A rectangle that holds another degradation, or none, than the rest (Degradation CutMix)."""


@dataclass(frozen=True)
class Sample:
    """One training pair (3, H, W) in [0, 1] and how it was made.

    `types` (L, H, W) is each pixel's distribution over the degrader's labels. `labels` are those that occur, each once,
    in the order of the damage: `clean` alone for an undamaged sample, the rectangle's last for regions.
    """

    degraded: Tensor
    clean: Tensor
    types: Tensor
    labels: tuple[str, ...]
    kind: SampleKind


class Degrader:
    """Applies degradations to clean crops: singly, in chains, or mixed by regions (Degradation CutMix).

    `labels` are the degradations' names in the order given and, last, `clean`; that is the order of `types`.
    """

    def __init__(self, synthesizers: Mapping[str, Synthesizer], recipe: Recipe | None = None) -> None:
        if not synthesizers:
            raise TrainingError(
                "no degradations: found no usable plugin; install one, for example pip install abair-noise"
            )
        self.synthesizers = dict(synthesizers)
        self.labels = (*self.synthesizers, CLEAN)
        self.recipe = recipe or Recipe()
        for name, times in self.recipe.emphasis:
            if name not in self.synthesizers or not 0 < times < math.inf:
                raise TrainingError(
                    f"emphasis: found {name} = {times}, expected a number above 0 for one of {', '.join(synthesizers)}"
                )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what the synthesisers make of a small picture: which damage this is, whatever it is called."""
        rows, columns = torch.linspace(0, 1, 48)[:, None], torch.linspace(0, 1, 64)[None]
        picture = torch.stack([rows.expand(48, 64), columns.expand(48, 64), rows * columns])
        digest = hashlib.sha256()
        for name, degrade in self.synthesizers.items():
            for seed in range(4):
                damaged = to_8_bit(degrade(picture.clone(), generator_for(seed, Stream.DEGRADER_DIGEST)))
                digest.update(name.encode() + damaged.mul(255).round_().to(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def sample(self, clean: Tensor, generator: torch.Generator) -> Sample:
        """Damage a clean crop (3, H, W) in a way drawn from the recipe."""
        kind = uniform(generator, 0.0, 1.0)
        if self.recipe.toned and chance(generator, self.recipe.toned):
            clean = toned(clean, generator)
        sample = self._drawn(clean, generator, kind)
        if self.recipe.filed and chance(generator, self.recipe.filed):
            sample = replace(sample, degraded=filed(sample.degraded, generator))
        return replace(sample, degraded=to_8_bit(sample.degraded))

    def single(self, clean: Tensor, name: str, generator: torch.Generator) -> Sample:
        """Damage a clean crop by one named degradation (or leave it, for `clean`)."""
        degraded = clean if name == CLEAN else self.synthesizers[name](clean, generator)
        kind = SampleKind.CLEAN if name == CLEAN else SampleKind.SINGLE
        return Sample(to_8_bit(degraded), clean, self._types(clean, name), (name,), kind)

    def chain(self, clean: Tensor, names: Sequence[str], generator: torch.Generator) -> Sample:
        """Apply several degradations one after the other."""
        degraded = clean
        for name in names:
            degraded = self.synthesizers[name](degraded, generator)
        types = torch.stack([self._types(clean, name) for name in names]).mean(0)
        return Sample(to_8_bit(degraded), clean, types, tuple(names), SampleKind.MIXTURE)

    def _drawn(self, clean: Tensor, generator: torch.Generator, kind: float) -> Sample:
        recipe = self.recipe
        names = list(self.synthesizers)
        if kind < recipe.clean:
            return Sample(clean, clean, self._types(clean, CLEAN), (CLEAN,), SampleKind.CLEAN)
        first, second = self._two(generator)
        if kind < recipe.clean + recipe.double and len(names) > 1:
            return self.chain(clean, (names[first], names[second]), generator)
        name = names[first]
        degraded, types = self.synthesizers[name](clean, generator), self._types(clean, name)
        if kind < recipe.clean + recipe.double + recipe.cutmix:
            other = self.labels[int(torch.randint(len(self.labels), (), generator=generator))]
            patch = clean if other == CLEAN else self.synthesizers[other](clean, generator)
            rows, columns = _rectangle(clean.shape[-2], clean.shape[-1], generator)
            degraded = degraded.clone()
            degraded[:, rows, columns] = patch[:, rows, columns]
            types[:, rows, columns] = self._types(clean, other)[:, rows, columns]
            labels = (name,) if other == name else (name, other)
            return Sample(degraded, clean, types, labels, SampleKind.REGIONS)
        return Sample(degraded, clean, types, (name,), SampleKind.SINGLE)

    def _two(self, generator: torch.Generator) -> tuple[int, int]:
        """Two degradations by their positions: different ones, where there are two."""
        count = len(self.synthesizers)
        if not self.recipe.emphasis:
            order = torch.randperm(count, generator=generator)
        else:
            times = dict(self.recipe.emphasis)
            weights = torch.tensor([times.get(name, 1.0) for name in self.synthesizers])
            order = torch.multinomial(weights, min(2, count), generator=generator)
        return int(order[0]), int(order[min(1, count - 1)])

    def _types(self, clean: Tensor, name: str) -> Tensor:
        types = torch.zeros((len(self.labels), *clean.shape[-2:]))
        types[self.labels.index(name)] = 1.0
        return types


def toned(clean: Tensor, generator: torch.Generator) -> Tensor:
    """A photo (3, H, W) paler or darker, as people's are and those that we train on are not; rounded to 8 bits."""
    return to_8_bit(clean ** log_uniform(generator, *TONES))


def to_8_bit(image: Tensor) -> Tensor:
    """Round to the values that an 8-bit file can hold: the network will be given files."""
    return image.clamp(0.0, 1.0).mul(255).round_().div_(255)


def _rectangle(height: int, width: int, generator: torch.Generator) -> tuple[slice, slice]:
    """A rectangle of a quarter to three quarters of each side, anywhere (after CutMix, Yun et al., ICCV 2019)."""
    rows, columns = (max(1, round(side * uniform(generator, 0.25, 0.75))) for side in (height, width))
    top = int(torch.randint(height - rows + 1, (), generator=generator))
    left = int(torch.randint(width - columns + 1, (), generator=generator))
    return slice(top, top + rows), slice(left, left + columns)


def _hash(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
