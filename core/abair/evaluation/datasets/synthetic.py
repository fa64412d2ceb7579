"""Test sets that are made from clean pictures: noise, damage of one severity, mixtures, and the pictures as they are.

Each picture's damage has a seed of its own name, so a picture's degraded version is the same whichever others are
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from abair.evaluation.datasets.items import (
    EvaluationSet,
    Float,
    Item,
    degrade,
    picture_seed,
    picture_sha256,
    read_pixels,
)
from abair.evaluation.datasets.layouts import DataFolder
from abair.evaluation.datasets.severities import EXACT
from abair.labels import CLEAN
from abair.metrics import to_8_bit

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

_NOISE: Final = {
    "CBSD68_s15": ("CBSD68", 15),
    "CBSD68_s25": ("CBSD68", 25),
    "CBSD68_s50": ("CBSD68", 50),
    "CBSD68_s25_8bit": ("CBSD68", 25),
    "Kodak24_s25": ("Kodak24", 25),
    "Urban100_s25": ("Urban100", 25),
    "McMaster_s25": ("McMaster", 25),
}
_CHAINS: Final = {
    "mix_blur_noise": ("blur + noise", ("blur", "noise")),
    "mix_haze_low-light": ("haze + low-light", ("haze", "low-light")),
    "CBSD68_jpeg20": ("JPEG Q20", ("jpeg",)),
    "CBSD68_4bit": ("4 bits", ("bitdepth",)),
    "CBSD68_snow": ("snow", ("snow",)),
    "mix_blur_jpeg": ("blur + JPEG Q20", ("blur", "jpeg")),
    "mix_haze_snow": ("haze + snow", ("haze", "snow")),
    "mix_low-light_noise": ("low-light + noise", ("low-light", "noise")),
}
"""What is done first stands first: a lens blurs before the sensor adds noise; haze lies over a scene that is dark."""
_HOW: Final = {
    "jpeg": "a JPEG file of quality 20 with 4:2:0 colours (Pillow)",
    "bitdepth": "the four highest of 8 bits kept, the others 0",
}

CLEAN_COUNT: Final = 20
MADE: Final = (*_NOISE, *_CHAINS)
"""The keys of the sets that are damaged here."""


def make_set(folder: DataFolder, key: str, synthesizers: Mapping[str, Synthesizer]) -> EvaluationSet | str:
    """The set of a key of `MADE`, or the `clean` one; or why it cannot be made.

    `synthesizers` (label to function) are the plugins'; they are not asked for what has its severity from the papers.
    """
    base, sigma = _NOISE.get(key, ("CBSD68", 0))
    files = folder.clean(base)
    if isinstance(files, str):
        return files
    if key == CLEAN:
        return _clean(files)
    if key in _NOISE:
        return _noise(key, base, sigma, files)
    known = {**synthesizers, **EXACT}
    if lacking := [label for label in _CHAINS[key][1] if label not in known]:
        return f"needs a plugin for {', '.join(lacking)} to make it; pip install abair-{lacking[0]}"
    return _chain(key, files, known)


def _clean(files: Mapping[str, Path]) -> EvaluationSet:
    def load(stem: str) -> Item:
        clean = read_pixels(files[stem])
        return Item(stem, clean, clean, {"clean": picture_sha256(files[stem])})

    note = f"the first {CLEAN_COUNT} of CBSD68 in the order of their names, undamaged"
    return EvaluationSet(CLEAN, "clean photos", (CLEAN,), note, tuple(sorted(files)[:CLEAN_COUNT]), load)


def _noise(name: str, base: str, sigma: int, files: Mapping[str, Path]) -> EvaluationSet:
    as_file = name.endswith("_8bit")

    def load(stem: str) -> Item:
        clean = read_pixels(files[stem])
        # the same draw for every sigma and for both forms: they differ in nothing else
        drawn = torch.randn(clean.shape, generator=picture_seed(base, stem)).numpy()
        noisy: Float = clean + np.float32(sigma / 255) * drawn.astype(np.float32)
        return Item(stem, to_8_bit(noisy) if as_file else noisy, clean, {"clean": picture_sha256(files[stem])})

    form = "clipped and rounded to 8 bits" if as_file else "neither clipped nor rounded"
    title = f"{base}, s={sigma}" + (", as 8-bit files" if as_file else "")
    return EvaluationSet(name, title, ("noise",), f"Gaussian noise, {form}", tuple(sorted(files)), load)


def _chain(name: str, files: Mapping[str, Path], synthesizers: Mapping[str, Synthesizer]) -> EvaluationSet:
    title, labels = _CHAINS[name]

    def load(stem: str) -> Item:
        clean = read_pixels(files[stem])
        degraded = degrade(clean, [synthesizers[label] for label in labels], picture_seed(name, stem))
        return Item(stem, degraded, clean, {"clean": picture_sha256(files[stem])})

    exact = [f"{label}: {_HOW[label]}" for label in labels if label in EXACT]
    if len(exact) == len(labels):
        note = "; ".join(exact)
    else:
        note = f"the plugins' synthesisers, {' then '.join(labels)}, rounded to 8 bits" + "".join(
            f"; {line}" for line in exact
        )
    return EvaluationSet(name, f"CBSD68, {title}", labels, note, tuple(sorted(files)), load)
