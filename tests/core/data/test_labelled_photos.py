"""Labelled photos: each label's folders equally often, parts at native resolution, some held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abair.data.labelled_photos import CLEAN_SHARE, LabelledPhotos, read_labelled
from abair.data.seeds import generator_from
from abair.errors import TrainingError


def _photo(value: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_labels_and_folders_are_drawn_alike_however_many_photos_they_have() -> None:
    photos = LabelledPhotos(
        {
            "clean": [[_photo(10)] * 30, [_photo(50)]],
            "haze": [[_photo(90)] * 9],
            "rain": [[_photo(130)]],
        }
    )
    assert len(photos) == 41
    drawn: Counter[str] = Counter()
    kinds: Counter[int] = Counter()
    for seed in range(600):
        label, part = photos.draw(generator_from(seed), 512)
        drawn[label] += 1
        kinds[min((10, 50, 90, 130), key=lambda value: abs(value - float(part.mean()) * 255))] += 1
        assert all(0.5 * side - 1 <= length for side, length in zip((60, 60), part.shape[1:], strict=True))
    assert drawn["clean"] / 600 == pytest.approx(CLEAN_SHARE, abs=0.06)
    assert drawn["haze"] == pytest.approx(drawn["rain"], abs=60)
    assert kinds[10] == pytest.approx(kinds[50], abs=45)


def test_without_clean_photos_damaged_ones_are_all_there_is() -> None:
    photos = LabelledPhotos({"haze": [[_photo(90)]]})
    assert {photos.draw(generator_from(seed), 40)[0] for seed in range(20)} == {"haze"}
    only = LabelledPhotos({"clean": [[_photo(90)]]})
    assert {only.draw(generator_from(seed), 40)[0] for seed in range(20)} == {"clean"}


def test_a_part_is_no_longer_than_asked_and_depends_on_its_seed() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    photos = LabelledPhotos({"rain": [[photo]]})
    for seed in range(20):
        _, part = photos.draw(generator_from(seed), 128)
        assert max(part.shape[1:]) <= 128
        assert torch.equal(part, photos.draw(generator_from(seed), 128)[1])
        assert torch.allclose(part * 255, (part * 255).round(), atol=1e-4)


def test_a_part_of_each_folder_is_held_out_and_the_digest_tells_photos_apart(tmp_path: Path) -> None:
    for number in range(40):
        for folder in ("a", "b"):
            path = tmp_path / folder / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(_photo(number * 5 + (folder == "b"))).save(path)
    train, held_out = read_labelled([("haze", tmp_path / "a"), ("clean", tmp_path / "b")])
    assert len(train) + len(held_out) == 80
    assert {label for label, _ in held_out.items()} == {"haze", "clean"}
    same, _ = read_labelled([("haze", tmp_path / "a"), ("clean", tmp_path / "b")])
    other, _ = read_labelled([("haze", tmp_path / "b"), ("clean", tmp_path / "a")])
    assert train.digest() == same.digest() != other.digest()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere: no such folder"):
        read_labelled([("haze", tmp_path / "nowhere")])
