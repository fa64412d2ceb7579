"""Decode TIFFs that Pillow cannot, by tifffile and imagecodecs of the extra `formats`."""

from __future__ import annotations

import logging
from typing import BinaryIO, Final

import numpy as np
from PIL import TiffImagePlugin

from abair.errors import ImageError, MissingExtraError
from abair.images.pixels import to_whole_numbers

# Without a handler, Python prints what tifffile says of damaged files to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_WHITE_IS_ZERO: Final = 0
_PREMULTIPLIED: Final = 1


def decode(name: str, file: BinaryIO, page: int, directory: TiffImagePlugin.ImageFileDirectory_v2) -> np.ndarray:
    """Return the samples of a page as they are stored, (H, W, C) uint8 or uint16.

    C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); other channels are left out. Samples in
    floating point become 16-bit ones.

    Raises:
        ImageError: they are of no known range: not within [0, 1], or whole numbers of other than 8
            and 16 bits.
        MissingExtraError: tifffile or imagecodecs is not installed.
        Exception: whatever a damaged file leads them to.
    """
    try:
        import imagecodecs  # noqa: F401 (tifffile decodes by it)
        import tifffile
    except ImportError as error:
        raise MissingExtraError(
            "tifffile and imagecodecs are missing; install them with: pip install 'abair[formats]'"
        ) from error
    file.seek(0)
    with tifffile.TiffFile(file) as container:
        found = container.pages[page].aspage()
        samples = np.asarray(found.asarray())
    if found.planarconfig == 2 and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(*samples.shape[:2], -1)
    colours = 1 if found.photometric in {0, 1} else 3
    extra = directory.get(TiffImagePlugin.EXTRASAMPLES, ())
    kind = (extra if isinstance(extra, tuple) else (extra,))[:1]
    channels = colours + (kind in {(1,), (2,)})
    if samples.shape[2] < channels:
        raise ImageError(f"{name}: found {samples.shape[2]} channels, expected {channels}; save it again as RGB")
    samples = to_whole_numbers(name, samples[..., :channels])
    if found.photometric == _WHITE_IS_ZERO:
        samples[..., 0] = ~samples[..., 0]
    return _divide_by_alpha(samples) if kind == (_PREMULTIPLIED,) else samples


def _divide_by_alpha(samples: np.ndarray) -> np.ndarray:
    full = np.iinfo(samples.dtype).max
    alpha = np.maximum(samples[..., -1:].astype(np.float64), 1.0)
    straight = np.minimum(samples[..., :-1] * (full / alpha), full)
    return np.concatenate([np.rint(straight).astype(samples.dtype), samples[..., -1:]], axis=2)
