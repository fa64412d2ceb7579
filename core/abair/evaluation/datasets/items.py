"""One picture to restore, a set of them, and what all sets need to make theirs: seeds, reading, damage."""

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
Problems = Callable[[AbairError], None]

SEED: Final = 2411
"""Part of every picture's seed; another seed gives another draw of the noise and of the mixtures."""


@dataclass(frozen=True)
class Item:
    """One picture to restore: `degraded` and `clean` (H, W, 3) float32; noise takes `degraded` beyond [0, 1].

    `files` are the SHA-256 of the files that it was read from, by the part they play.
    """

    name: str
    degraded: Float
    clean: Float
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSet:
    """A named list of pictures and the true labels of their damage, which only the Oracle is told; none: not known.

    `load(name)` makes one picture; `iterate` makes them one at a time, so memory holds one. `luma`: the set's papers
    measure on Y, so that is measured, too.
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
        """How many pictures there are, unusable ones included."""
        return len(self.names)

    def iterate(self, problems: Problems) -> Iterator[Item]:
        """Every picture that can be used; one that cannot is given to `problems` as one error, and the rest goes on."""
        for error in self.unpaired:
            problems(error)
        for name in self.names:
            try:
                item = self.load(name)
            except AbairError as error:
                problems(error)
            else:
                yield item


def picture_seed(*key: str) -> torch.Generator:
    """The generator of one picture in one set: a function of `SEED` and the names alone, not of any order."""
    digest = hashlib.sha256("/".join(key).encode()).digest()
    return generator_from(SEED, int.from_bytes(digest[:8], "big"))


def degrade(clean: Float, synthesizers: Sequence[Synthesizer], generator: torch.Generator) -> Float:
    """Damage a picture (H, W, 3) float32 in [0, 1] by one synthesiser after the other; rounded to 8 bits."""
    image = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))
    for synthesizer in synthesizers:
        image = synthesizer(image, generator)
    return to_8_bit(np.ascontiguousarray(image.numpy().transpose(1, 2, 0)))


def read_pixels(path: Path) -> Float:
    """A picture file as (H, W, 3) in [0, 1]. Raises ImageError."""
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
        raise ImageError(f"{path}: not readable ({error.strerror or error}); it is left out") from None
