"""One photo of a batch: what is held while it is written."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.image_files import noise

from abair import images
from abair.batch.photo import Choices, restore_photo
from abair.images.photo import Photo


class Inverter:
    """Stands for a restorer: its result is the photo's negative."""

    def __call__(self, pixels: np.ndarray, **_: object) -> SimpleNamespace:
        return SimpleNamespace(
            image=255 - pixels, weights={"clean": 1.0}, policy="soft", quality="standard", seconds=0.0, megapixels=1.0,
            deployment="inverter", warnings=(), confidence=None, unknown=None, further_looks=(),
        )  # fmt: skip


def test_the_pixels_that_were_read_are_free_before_the_result_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[np.ndarray]] = []
    read, write = images.read, images.write

    def reading(*arguments: Any, **options: Any) -> Photo:
        photo = read(*arguments, **options)
        held.append(weakref.ref(photo.pixels))
        return photo

    def writing(*arguments: Any, **options: Any) -> Any:
        assert held[0]() is None
        return write(*arguments, **options)

    monkeypatch.setattr(images, "read", reading)
    monkeypatch.setattr(images, "write", writing)
    Image.fromarray(noise(9, 12)).save(tmp_path / "a.png")
    restorer: Any = Inverter()
    record = restore_photo(
        restorer, tmp_path / "a.png", tmp_path / "b.png", Choices(), keep_format=False, overwrite=False
    )
    assert not record["unchanged"]
    assert np.array_equal(images.read(tmp_path / "b.png").pixels, 255 - noise(9, 12))
