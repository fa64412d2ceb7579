"""PSNR and SSIM: known values, the cap, and agreement with scikit-image."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from abair.errors import ImageError, MissingExtraError
from abair.metrics import PSNR_CAP, luma, psnr, ssim, to_8_bit


def _pair(sigma: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = np.kron(rng.random((8, 8, 3)), np.ones((6, 6, 1))).astype(np.float32)
    return clean, (clean + sigma * rng.standard_normal(clean.shape)).astype(np.float32)


def test_psnr_of_a_known_error() -> None:
    a = np.full((4, 5, 3), 0.25, np.float32)
    assert psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_identical_images_have_the_cap_and_nothing_has_more() -> None:
    a = np.full((4, 5, 3), 0.25)
    assert psnr(a, a) == PSNR_CAP
    assert psnr(a, a + 1e-9) == PSNR_CAP
    assert ssim(_pair()[0], _pair()[0]) == 1.0


def test_values_beyond_the_range_count_as_they_are() -> None:
    a = np.zeros((3, 3, 3))
    assert psnr(a - 0.1, a) == pytest.approx(20.0)


def test_ssim_falls_with_noise_and_is_that_of_the_paper() -> None:
    from skimage.metrics import structural_similarity

    clean, noisy = _pair()
    value = ssim(clean, noisy)
    assert ssim(clean, _pair(0.2)[1]) < value < 1
    channels = [
        structural_similarity(  # type: ignore[no-untyped-call]
            clean[..., c].astype(float),
            noisy[..., c].astype(float),
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for c in range(3)
    ]
    assert value == pytest.approx(np.mean(channels))


def test_an_image_too_small_for_the_window_has_no_ssim() -> None:
    a = np.zeros((10, 40, 3))
    assert math.isnan(ssim(a, a + 0.1))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_of_different_shapes_are_refused(measure: object) -> None:
    with pytest.raises(ImageError, match=r"found shapes \(4, 4, 3\) and \(4, 5, 3\)"):
        measure(np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))  # type: ignore[operator]


def test_without_scikit_image_the_error_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'abair\[bench\]'"):
        ssim(*_pair())


def test_luma_is_in_studio_range() -> None:
    image = np.array([[[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]])
    assert luma(image) * 255 == pytest.approx(np.array([[16.0, 235.0, 81.481]]), abs=1e-3)


def test_rounding_to_8_bits_clips_and_keeps_what_is_8_bit() -> None:
    steps = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(to_8_bit(steps), steps)
    assert to_8_bit(np.array([-0.2, 0.5001, 1.3])).tolist() == pytest.approx([0, 128 / 255, 1])
