"""The standard test sets below a folder, one picture at a time, with what was done to each.

A folder of pairs holds `clean/` and `degraded/`, whose files share their names up to the ending. Noise and mixtures are
made here from `CBSD68/clean`, each picture's with a seed of its own name, so a picture's degraded version is the same
whichever others are measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from abair import images
from abair.contract import CLEAN
from abair.errors import AbairError, ImageError
from abair.evaluation.metrics import to_8_bit
from abair.synthesis import generator_for

if TYPE_CHECKING:
    from abair.discovery import Synthesizer

Float = NDArray[np.float32]
Problems = Callable[[AbairError], None]

SEED: Final = 2411
"""Part of every picture's seed; another seed gives another draw of the noise and of the mixtures."""


@dataclass(frozen=True)
class Item:
    """One picture to restore: `degraded` and `clean` (H, W, 3) float32; noise takes `degraded` beyond [0, 1]."""

    name: str
    degraded: Float
    clean: Float


@dataclass(frozen=True)
class EvaluationSet:
    """A named list of pictures and the true labels of their damage, which only the Oracle is told.

    `load(name)` makes one picture; `iterate` makes them one at a time, so memory holds one.
    """

    key: str
    title: str
    labels: tuple[str, ...]
    note: str
    names: tuple[str, ...]
    load: Callable[[str], Item]
    unpaired: tuple[ImageError, ...] = ()

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


@dataclass(frozen=True)
class FoundSets:
    """The sets that are there, and for each that is not, why (`missing`, key to reason)."""

    sets: tuple[EvaluationSet, ...]
    missing: Mapping[str, str]


_PAIRS: Final = {
    "Rain100L": ("Rain100L", "rain"),
    "SOTS_indoor": ("SOTS indoor", "haze"),
    "GoPro": ("GoPro", "blur"),
    "LOL_eval15": ("LOL eval15", "low-light"),
}
_NOISE: Final = {"CBSD68_s15": 15, "CBSD68_s25": 25, "CBSD68_s50": 50, "CBSD68_s25_8bit": 25}
_MIXTURES: Final = {"mix_blur_noise": ("blur", "noise"), "mix_haze_low-light": ("haze", "low-light")}
"""What is done first stands first: a lens blurs before the sensor adds noise; haze lies over a scene that is dark."""

FIVE_TASKS: Final = ("CBSD68_s25", "Rain100L", "SOTS_indoor", "GoPro", "LOL_eval15")
"""The sets of the five-task mean."""

STANDARD: Final = (*FIVE_TASKS, CLEAN, *_MIXTURES)
ALL: Final = (*STANDARD, "CBSD68_s15", "CBSD68_s50", "CBSD68_s25_8bit")
CLEAN_COUNT: Final = 20


def find_sets(
    data: Path, synthesizers: Mapping[str, Synthesizer], names: Sequence[str] = STANDARD, *, limit: int | None = None
) -> FoundSets:
    """The sets of `names` (of `ALL`) below `data`, in that order, each with at most `limit` pictures.

    `synthesizers` (label to function) make the mixtures. A set that is not there, or cannot be made, is named in
    `missing`.

    Raises:
        ImageError: no such folder, an unknown name, or none of the sets is there.
    """
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise ImageError(f"test set {unknown[0]}: not known; expected some of {', '.join(ALL)}")
    if not data.is_dir():
        raise ImageError(f"{data}: no such folder; expected the folder of the test sets (--data DIR)")
    sets: list[EvaluationSet] = []
    missing: dict[str, str] = {}
    for name in names:
        found = _find(data, name, synthesizers)
        if isinstance(found, str):
            missing[name] = found
        elif limit is not None:
            sets.append(EvaluationSet(**{**vars(found), "names": found.names[:limit]}))
        else:
            sets.append(found)
    if not sets:
        folders = ", ".join(["CBSD68", *_PAIRS])
        raise ImageError(
            f"{data}: found none of the test sets; expected one or more of {folders}, "
            "with clean/ and degraded/ in each (CBSD68: clean/ alone); name the folder that holds them with --data DIR"
        )
    return FoundSets(tuple(sets), missing)


def picture_seed(*key: str) -> torch.Generator:
    """The generator of one picture in one set: a function of `SEED` and the names alone, not of any order."""
    digest = hashlib.sha256("/".join(key).encode()).digest()
    return generator_for(SEED, int.from_bytes(digest[:8], "big"))


def _find(data: Path, name: str, synthesizers: Mapping[str, Synthesizer]) -> EvaluationSet | str:
    """One set, or why it is not there."""
    if name in _PAIRS:
        return _pairs(data / name, name)
    folder = data / "CBSD68" / "clean"
    files = _files(folder)
    if not files:
        return f"found no pictures in {folder}"
    if name == CLEAN:
        first = tuple(sorted(files)[:CLEAN_COUNT])
        note = f"the first {CLEAN_COUNT} of CBSD68 in the order of their names, undamaged"
        return EvaluationSet(name, "clean photos", (CLEAN,), note, first, lambda n: _untouched(n, files[n]))
    if name in _NOISE:
        return _noise(name, files)
    labels = _MIXTURES[name]
    if lacking := [label for label in labels if label not in synthesizers]:
        return f"needs a plugin for {', '.join(lacking)} to make it; pip install abair-{lacking[0]}"
    return _mixture(name, files, labels, synthesizers)


def _pairs(folder: Path, name: str) -> EvaluationSet | str:
    clean, degraded = _files(folder / "clean"), _files(folder / "degraded")
    both = tuple(sorted(clean.keys() & degraded.keys()))
    if not both:
        return f"found no pairs in {folder / 'clean'} and {folder / 'degraded'}"
    unpaired = tuple(
        ImageError(f"{path}: found no picture of that name in {folder / other}; expected a pair; it is left out")
        for mine, others, other in ((clean, degraded, "degraded"), (degraded, clean, "clean"))
        for stem, path in sorted(mine.items())
        if stem not in others
    )

    def load(stem: str) -> Item:
        item = Item(stem, _read(degraded[stem]), _read(clean[stem]))
        if item.degraded.shape != item.clean.shape:
            (h, w), (ch, cw) = item.degraded.shape[:2], item.clean.shape[:2]
            raise ImageError(
                f"{degraded[stem]}: found {w} x {h} pixels, expected {cw} x {ch} as {clean[stem]}; it is left out"
            )
        return item

    title, label = _PAIRS[name]
    return EvaluationSet(name, title, (label,), "pairs as published", both, load, unpaired)


def _noise(name: str, files: Mapping[str, Path]) -> EvaluationSet:
    sigma, as_file = _NOISE[name], name.endswith("_8bit")

    def load(stem: str) -> Item:
        clean = _read(files[stem])
        # the same draw for every sigma and for both forms: they differ in nothing else
        drawn = torch.randn(clean.shape, generator=picture_seed("CBSD68", stem)).numpy()
        noisy: Float = clean + np.float32(sigma / 255) * drawn.astype(np.float32)
        return Item(stem, to_8_bit(noisy) if as_file else noisy, clean)

    form = "clipped and rounded to 8 bits" if as_file else "neither clipped nor rounded"
    title = f"CBSD68, s={sigma}" + (", as 8-bit files" if as_file else "")
    return EvaluationSet(name, title, ("noise",), f"Gaussian noise, {form}", tuple(sorted(files)), load)


def _mixture(
    name: str, files: Mapping[str, Path], labels: tuple[str, ...], synthesizers: Mapping[str, Synthesizer]
) -> EvaluationSet:
    def load(stem: str) -> Item:
        clean = _read(files[stem])
        return Item(stem, degrade(clean, [synthesizers[label] for label in labels], picture_seed(name, stem)), clean)

    note = f"the plugins' synthesisers, {' then '.join(labels)}, rounded to 8 bits"
    return EvaluationSet(name, f"CBSD68, {' + '.join(labels)}", labels, note, tuple(sorted(files)), load)


def degrade(clean: Float, synthesizers: Sequence[Synthesizer], generator: torch.Generator) -> Float:
    """Damage a picture (H, W, 3) float32 in [0, 1] by one synthesiser after the other; rounded to 8 bits."""
    image = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))
    for synthesizer in synthesizers:
        image = synthesizer(image, generator)
    return to_8_bit(np.ascontiguousarray(image.numpy().transpose(1, 2, 0)))


def _untouched(name: str, path: Path) -> Item:
    clean = _read(path)
    return Item(name, clean, clean)


def _files(folder: Path) -> dict[str, Path]:
    """The picture files of a folder by their name without the ending."""
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in images.SUFFIXES}


def _read(path: Path) -> Float:
    pixels = images.read(path).pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
