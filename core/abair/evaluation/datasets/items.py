"""Pictures to restore, sets of them, and what all sets share: seeds, reading, damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from abair import images
from abair.data.seeds import generator_from
from abair.errors import AbairError, ImageError
from abair.files import file_sha256
from abair.metrics import to_8_bit

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

Float = NDArray[np.float32]
OnProblem = Callable[[AbairError], None]

SEED: Final = 2411
"""Part of every picture's seed: another one draws other noise and other mixtures."""


@dataclass(frozen=True)
class Item:
    """One picture to restore: `degraded` and `clean`, both (H, W, 3) float32.

    `clean` is in [0, 1]; noise takes `degraded` beyond it. `files` maps `degraded` and `clean` to
    the SHA-256 of the file that was read.
    """

    name: str
    degraded: Float
    clean: Float
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSet:
    """A test set: pictures by name, and the true labels of their damage, empty if unknown.

    Only the Oracle sees the labels. `load(name)` makes one picture, so that memory holds one at a
    time. `luma` also measures on Y, as the set's papers do.
    """

    key: str
    title: str
    labels: tuple[str, ...]
    note: str
    names: tuple[str, ...]
    load: Callable[[str], Item]
    unpaired: tuple[ImageError, ...] = ()
    luma: bool = False

    def __len__(self) -> int:
        """Return the number of pictures, unusable ones included."""
        return len(self.names)

    def iterate(self, on_problem: OnProblem) -> Iterator[Item]:
        """Yield every usable picture; pass one error for each of the others to `on_problem`."""
        for error in self.unpaired:
            on_problem(error)
        for name in self.names:
            try:
                item = self.load(name)
            except AbairError as error:
                on_problem(error)
            else:
                yield item


def picture_generator(*key: str) -> torch.Generator:
    """Return the random generator of one picture, which depends on `SEED` and `key` alone."""
    digest = hashlib.sha256("/".join(key).encode()).digest()
    return generator_from(SEED, int.from_bytes(digest[:8], "big"))


def degrade(clean: Float, synthesizers: Sequence[Synthesizer], generator: torch.Generator) -> Float:
    """Apply the synthesisers in order to a picture (H, W, 3) in [0, 1]; round it to 8 bits."""
    image = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))
    for synthesizer in synthesizers:
        image = synthesizer(image, generator)
    return to_8_bit(np.ascontiguousarray(image.numpy().transpose(1, 2, 0)))


def read_pixels(path: Path) -> Float:
    """Read a picture file as (H, W, 3) float32 in [0, 1].

    Raises:
        ImageError: the file cannot be read as a photo.
    """
    pixels = images.read(path).pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def picture_sha256(path: Path) -> str:
    """Return the SHA-256 of a picture file's bytes.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error}); it is left out") from None
