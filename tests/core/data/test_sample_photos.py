"""Sample photos and dead leaves: no download, seeded, with the statistics of photographs."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from abair.data import sample_photos
from abair.errors import ImageError, MissingExtraError


def _leaves(seed: int, side: int = 96) -> np.ndarray:
    return sample_photos.dead_leaves(torch.Generator().manual_seed(seed), side)


def test_sample_photos_are_colour_photographs_in_8_bit() -> None:
    photos = sample_photos.sample_photos()
    assert sorted(photos) == [
        "astronaut", "cat", "coffee", "dahlia", "motorcycle", "portrait", "retina", "rocket", "temple",
    ]  # fmt: skip
    for photo in photos.values():
        assert photo.dtype == np.uint8
        assert photo.ndim == 3
        assert photo.shape[2] == 3
        assert min(photo.shape[:2]) >= 300
        assert not np.array_equal(photo[..., 0], photo[..., 2])


@pytest.mark.slow
def test_reading_them_imports_no_package_that_brings_them_and_no_downloader() -> None:
    code = (
        "import sys; from abair.data.sample_photos import sample_photos; sample_photos(); "
        "sys.exit(', '.join(sorted({'matplotlib', 'skimage', 'sklearn', 'pooch', 'requests'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("package", "project"), sample_photos.PROJECTS.items())
def test_without_a_package_the_error_names_it_and_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, package: str, project: str
) -> None:
    monkeypatch.setattr(sample_photos, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(MissingExtraError, match=rf"{project}, which brings some, .*pip install 'abair\[bench\]'"):
        sample_photos.sample_photos()


def test_a_damaged_photo_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "astronaut.png").write_bytes(b"not a picture")
    monkeypatch.setattr(
        sample_photos, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    with pytest.raises(ImageError, match=r"astronaut\.png: not readable"):
        sample_photos.sample_photos()


def test_dead_leaves_are_a_function_of_the_generator() -> None:
    assert np.array_equal(_leaves(3), _leaves(3))
    assert not np.array_equal(_leaves(3), _leaves(4))


def test_dead_leaves_leave_the_global_seeds_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    _leaves(0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state(legacy=False)["state"]["key"])


@pytest.mark.parametrize("side", [1, 2, 3, 17, 64])
def test_dead_leaves_come_in_every_size(side: int) -> None:
    picture = _leaves(0, side)
    assert picture.shape == (side, side, 3)
    assert picture.dtype == np.uint8


def test_dead_leaves_of_no_size_are_refused() -> None:
    with pytest.raises(ValueError, match="found 0, expected at least 1"):
        _leaves(0, 0)


def test_dead_leaves_have_the_spectrum_and_the_edges_of_photographs() -> None:
    slopes, kurtoses = [], []
    for seed in range(4):
        grey = _leaves(seed, 192).mean(2)
        power = np.abs(np.fft.fft2((grey - grey.mean()) * np.hanning(192)[:, None] * np.hanning(192))) ** 2
        radius = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.fftfreq(192)[None]) * 192
        rings = np.array([power[(radius >= r) & (radius < r + 1)].mean() for r in range(4, 60)])
        slopes.append(np.polyfit(np.log(np.arange(4.5, 60)), np.log(rings), 1)[0])
        steps = np.diff(grey, axis=1)
        kurtoses.append(((steps - steps.mean()) ** 4).mean() / steps.var() ** 2)
    # photographs: power falls as 1/f^2 or a little faster; gradients are far from Gaussian
    # (whose kurtosis is 3)
    assert -3.2 < np.mean(slopes) < -1.4
    assert min(kurtoses) > 5


@pytest.mark.slow
def test_dead_leaves_are_quick() -> None:
    _leaves(0, 320)
    started = time.process_time()
    _leaves(1, 320)
    assert time.process_time() - started < 1.5, "0.2 s on an idle core; a training run makes two dozen of them"
