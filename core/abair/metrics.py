"""PSNR and SSIM on RGB or luma, as papers measure them; scikit-image is the reference for SSIM."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from abair.errors import ImageError, MissingExtraError

PSNR_CAP: Final = 100.0
"""dB. Identical images have infinite PSNR, which would spoil every mean; values are capped here."""

SMALLEST_FOR_SSIM: Final = 11
"""Pixels: SSIM needs a window of 11x11; smaller images have none."""

Image = NDArray[np.floating[Any]]


def psnr(a: Image, b: Image) -> float:
    """Return the peak signal-to-noise ratio in dB of two images in [0, 1], at most `PSNR_CAP`.

    The images are (H, W, 3) or (H, W). The mean squared error is taken over all pixels and channels
    together, the peak is 1. Values beyond [0, 1] are used as they are.

    Raises:
        ImageError: the shapes differ, or an image is empty.
    """
    _check(a, b)
    error = float(np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return min(PSNR_CAP, -10 * float(np.log10(error))) if error > 0 else PSNR_CAP


def ssim(a: Image, b: Image) -> float:
    """Return the structural similarity, at most 1, of two images in [0, 1] (Wang et al., 2004).

    The images are (H, W, 3) or (H, W). Gaussian window of sigma 1.5, biased covariance, range 1:
    the paper's settings; the mean over the channels. NaN where a side is under `SMALLEST_FOR_SSIM`.

    Raises:
        ImageError: the shapes differ, or an image is empty.
        MissingExtraError: scikit-image is not installed.
    """
    _check(a, b)
    if min(a.shape[:2]) < SMALLEST_FOR_SSIM:
        return float("nan")
    if np.array_equal(a, b):
        return 1.0
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        raise MissingExtraError("SSIM: scikit-image is not installed; pip install 'abair[bench]'") from None
    value: Any = structural_similarity(  # type: ignore[no-untyped-call,unused-ignore]
        np.asarray(a, np.float64),
        np.asarray(b, np.float64),
        data_range=1.0,
        channel_axis=-1 if a.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def luma(image: Image) -> NDArray[np.float64]:
    """Return the luma (H, W) of an RGB image (H, W, 3) in [0, 1]; BT.601, studio range.

    It lies in [16/255, 235/255]. Papers on rain measure on this channel; it gives about 1.4 dB more
    than RGB on the same images.
    """
    weights = np.array([65.481, 128.553, 24.966])
    y: NDArray[np.float64] = (np.asarray(image, np.float64) @ weights + 16.0) / 255.0
    return y


def to_8_bit(image: Image) -> NDArray[np.float32]:
    """Clip floats to [0, 1] and round them to the 256 values of an 8-bit file; float32.

    For uint16 samples see `images.pixels.reduce_to_8_bit`.
    """
    return np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.float32) / np.float32(255)


def _check(a: Image, b: Image) -> None:
    if a.shape != b.shape:
        raise ImageError(f"images to compare: found shapes {a.shape} and {b.shape}, expected the same")
    if a.size == 0:
        raise ImageError(f"images to compare: found shape {a.shape}, expected at least one pixel")
