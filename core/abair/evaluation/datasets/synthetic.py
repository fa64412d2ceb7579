"""Test sets made from clean pictures: noise, fixed severities, mixtures, undamaged pictures.

Each picture's damage is seeded by its set's and its own name, so it does not depend on which other
pictures are measured. Where a paper names a severity exactly, the damage is made here and not by a
plugin, because it is part of the protocol.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from abair.evaluation.datasets.items import (
    EvaluationSet,
    Float,
    Item,
    degrade,
    picture_generator,
    picture_sha256,
    read_pixels,
)
from abair.evaluation.datasets.layouts import DataFolder
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
_MIXTURES: Final = {
    "mix_blur_noise": ("blur + noise", ("blur", "noise")),
    "mix_haze_low-light": ("haze + low-light", ("haze", "low-light")),
    "CBSD68_jpeg20": ("JPEG Q20", ("jpeg",)),
    "CBSD68_4bit": ("4 bits", ("bitdepth",)),
    "CBSD68_snow": ("snow", ("snow",)),
    "mix_blur_jpeg": ("blur + JPEG Q20", ("blur", "jpeg")),
    "mix_haze_snow": ("haze + snow", ("haze", "snow")),
    "mix_low-light_noise": ("low-light + noise", ("low-light", "noise")),
}
"""Title and labels, applied in this order: a lens blurs before the sensor adds noise."""

CLEAN_COUNT: Final = 20
SYNTHETIC_SETS: Final = (*_NOISE, *_MIXTURES)
"""The keys of the sets that are damaged here."""

JPEG_QUALITY: Final = 20
RESAVED_JPEG_QUALITY: Final = 30
"""Of photos that were damaged before they were saved; our choice, in no paper."""
BITS: Final = 4


def compress_jpeg(clean: Tensor, _generator: torch.Generator) -> Tensor:
    """Pass (3, H, W) in [0, 1] through a JPEG file of quality 20, 4:2:0; nothing is random."""
    return _through_jpeg(clean, JPEG_QUALITY)


def keep_four_bits(clean: Tensor, _generator: torch.Generator) -> Tensor:
    """Keep the four highest of the 8 bits of (3, H, W) in [0, 1]; nothing is random."""
    return _to_tensor(_to_bytes(clean) & np.uint8(0xFF << (8 - BITS) & 0xFF))


FIXED_SEVERITY: Final = {"jpeg": compress_jpeg, "bitdepth": keep_four_bits}
"""By label; used instead of the plugin's synthesiser."""
_NOTES: Final = {
    "jpeg": "a JPEG file of quality 20 with 4:2:0 colours (Pillow)",
    "bitdepth": "the four highest of 8 bits kept, the others 0",
}


def make_set(folder: DataFolder, key: str, synthesizers: Mapping[str, Synthesizer]) -> EvaluationSet | str:
    """Return the set of a key of `SYNTHETIC_SETS`, or the `clean` one, or why it cannot be made.

    `synthesizers` maps labels to the plugins' functions; `FIXED_SEVERITY` has precedence.
    """
    base, sigma = _NOISE.get(key, ("CBSD68", 0))
    files = folder.clean(base)
    if isinstance(files, str):
        return files
    if key == CLEAN:
        return _clean_set(files)
    if key in _NOISE:
        return _noise_set(key, base, sigma, files)
    known = {**synthesizers, **FIXED_SEVERITY}
    if lacking := [label for label in _MIXTURES[key][1] if label not in known]:
        return f"needs a plugin for {', '.join(lacking)} to make it; install its package"
    return _mixture_set(key, files, known)


def resaved_set(key: str, damaged: EvaluationSet) -> EvaluationSet:
    """Return a set of pairs whose degraded pictures were saved as JPEG once more."""

    def resave(image: Tensor, _generator: torch.Generator) -> Tensor:
        return _through_jpeg(image, RESAVED_JPEG_QUALITY)

    def load(name: str) -> Item:
        item = damaged.load(name)
        return replace(item, degraded=degrade(item.degraded, [resave], picture_generator(key, name)))

    saved = f"saved as JPEG of quality {RESAVED_JPEG_QUALITY} with 4:2:0 colours (Pillow)"
    return replace(
        damaged,
        key=key,
        title=f"{damaged.title}, as JPEG Q{RESAVED_JPEG_QUALITY}",
        labels=(*damaged.labels, "jpeg"),
        note=f"{damaged.note}; the degraded ones {saved}",
        load=load,
        luma=False,
    )


def _clean_set(files: Mapping[str, Path]) -> EvaluationSet:
    def load(stem: str) -> Item:
        clean = read_pixels(files[stem])
        return Item(stem, clean, clean, {"clean": picture_sha256(files[stem])})

    note = f"the first {CLEAN_COUNT} of CBSD68 in the order of their names, undamaged"
    return EvaluationSet(CLEAN, "clean photos", (CLEAN,), note, tuple(sorted(files)[:CLEAN_COUNT]), load)


def _noise_set(key: str, base: str, sigma: int, files: Mapping[str, Path]) -> EvaluationSet:
    as_file = key.endswith("_8bit")

    def load(stem: str) -> Item:
        clean = read_pixels(files[stem])
        # the same draw for every sigma and for both forms: they differ in nothing else
        drawn = torch.randn(clean.shape, generator=picture_generator(base, stem)).numpy()
        noisy: Float = clean + np.float32(sigma / 255) * drawn.astype(np.float32)
        return Item(stem, to_8_bit(noisy) if as_file else noisy, clean, {"clean": picture_sha256(files[stem])})

    form = "clipped and rounded to 8 bits" if as_file else "neither clipped nor rounded"
    title = f"{base}, s={sigma}" + (", as 8-bit files" if as_file else "")
    return EvaluationSet(key, title, ("noise",), f"Gaussian noise, {form}", tuple(sorted(files)), load)


def _mixture_set(key: str, files: Mapping[str, Path], synthesizers: Mapping[str, Synthesizer]) -> EvaluationSet:
    title, labels = _MIXTURES[key]

    def load(stem: str) -> Item:
        clean = read_pixels(files[stem])
        degraded = degrade(clean, [synthesizers[label] for label in labels], picture_generator(key, stem))
        return Item(stem, degraded, clean, {"clean": picture_sha256(files[stem])})

    fixed = [f"{label}: {_NOTES[label]}" for label in labels if label in FIXED_SEVERITY]
    if len(fixed) == len(labels):
        note = "; ".join(fixed)
    else:
        note = "; ".join([f"the plugins' synthesisers, {' then '.join(labels)}, rounded to 8 bits", *fixed])
    return EvaluationSet(key, f"CBSD68, {title}", labels, note, tuple(sorted(files)), load)


def _through_jpeg(image: Tensor, quality: int) -> Tensor:
    with io.BytesIO() as file:
        Image.fromarray(_to_bytes(image)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        with Image.open(file, formats=("JPEG",)) as again:
            return _to_tensor(np.array(again))


def _to_bytes(image: Tensor) -> NDArray[np.uint8]:
    return image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
