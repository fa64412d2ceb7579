"""Clean photos: found, decoded, split, and cropped by seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abair.data.photos import CleanPhotos, find_photos, load_clean_photos, load_photos, split_photos
from abair.data.seeds import generator_from
from abair.errors import TrainingError


@pytest.fixture
def photos() -> CleanPhotos:
    random = np.random.default_rng(0)
    return CleanPhotos([random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((60, 90), (40, 40))], "test")


@pytest.mark.parametrize("side", [1, 16, 40, 64, 200])
def test_crops_have_the_side_asked_for_even_of_smaller_photos(photos: CleanPhotos, side: int) -> None:
    for index in range(8):
        crop = photos.crop(generator_from(index), side)
        assert crop.shape == (3, side, side)
        assert crop.dtype == torch.float32
        assert crop.is_contiguous()
        assert crop.min() >= 0
        assert crop.max() <= 1


def test_photos_are_drawn_by_their_shares() -> None:
    greys = [np.full((40, 40, 3), value, dtype=np.uint8) for value in (0, 51, 255)]
    photos = CleanPhotos(greys, "greys", [1, 3, 0])
    for take in (CleanPhotos.crop, CleanPhotos.scene):
        means = [float(take(photos, generator_from(index), 20).mean()) for index in range(400)]
        assert all(mean == pytest.approx(0) or mean == pytest.approx(0.2) for mean in means)
        assert 0.68 < np.mean([mean > 0.1 for mean in means]) < 0.82


def test_sample_photos_are_drawn_more_often_than_drawn_images() -> None:
    train, held_out = load_clean_photos(None)
    assert len(held_out) == 2
    sides = [train.photos[train.draw(generator_from(index))].shape[:2] for index in range(400)]
    leaves = sum(shape == (320, 320) for shape in sides)
    assert 70 < leaves < 140
    assert len(set(sides)) == len({photo.shape[:2] for photo in train.photos}) > 5


def test_a_crop_of_a_flat_photo_is_flat() -> None:
    flat = CleanPhotos([np.full((50, 70, 3), 51, dtype=np.uint8)], "flat")
    for index in range(8):
        assert torch.allclose(flat.crop(generator_from(index), 20), torch.tensor(0.2))


def test_crops_come_from_everywhere_turned_and_mirrored() -> None:
    gradient = np.zeros((80, 80, 3), dtype=np.uint8)
    gradient[..., 0], gradient[..., 1] = np.arange(80)[:, None], np.arange(80)
    photos = CleanPhotos([gradient], "gradient")
    crops = [photos.crop(generator_from(index), 16) for index in range(60)]
    slopes = {
        tuple(torch.sign(crop[channel].mean(1 - axis).diff().mean()).item() for channel in (0, 1) for axis in (0, 1))
        for crop in crops
    }
    assert len(slopes) == 8
    assert min(float(crop[0].min()) for crop in crops) < 8 / 255
    assert max(float(crop[0].max()) for crop in crops) > 72 / 255


@pytest.mark.parametrize("longest", [1, 40, 64, 300])
def test_scenes_are_rectangles_of_a_photo_that_stay_within_the_longest_side(photos: CleanPhotos, longest: int) -> None:
    shapes = set()
    for index in range(24):
        scene = photos.scene(generator_from(index), longest)
        assert torch.equal(scene, photos.scene(generator_from(index), longest))
        assert scene.dtype == torch.float32
        assert scene.is_contiguous()
        assert scene.min() >= 0
        assert scene.max() <= 1
        shapes.add(tuple(scene.shape))
    assert all(channels == 3 and min(sides) >= 1 and max(sides) <= longest for channels, *sides in shapes)
    assert longest == 1 or len(shapes) > 12


def test_no_photos_are_refused() -> None:
    with pytest.raises(TrainingError, match="folder: found no photos, expected at least one"):
        CleanPhotos([], "folder")


def _save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 9, 3), 80, dtype=np.uint8)).save(path)
    return path


def test_photos_are_found_below_a_folder_in_the_order_of_their_paths(tmp_path: Path) -> None:
    expected = sorted(_save(tmp_path / name) for name in ("b.png", "a.JPG", "sub/c.webp"))
    (tmp_path / "readme.txt").write_text("no photo", encoding="utf-8")
    (tmp_path / "._a.jpg").write_bytes(b"what a file manager leaves behind")
    _save(tmp_path / ".thumbnails" / "a.png")
    assert find_photos(tmp_path) == expected
    assert [photo.shape for photo in load_photos(expected)] == [(8, 9, 3)] * 3


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="found no photos; expected"):
        find_photos(tmp_path)
    with pytest.raises(TrainingError, match="none: no such folder"):
        load_clean_photos(tmp_path / "none")


def test_a_damaged_photo_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"a\.png: found text, .*remove it"):
        load_photos([tmp_path / "a.png"])


def test_sixteen_bits_become_eight_and_a_photo_is_upright(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 30_000, np.uint16)).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (5, 4)).save(tmp_path / "turned.jpg", exif=exif)
    deep, turned = load_photos(find_photos(tmp_path))
    assert (deep == round(30_000 / 257)).all()
    assert turned.shape == (5, 4, 3)


def test_grey_and_palette_photos_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA"):
        Image.new(mode, (5, 4)).save(tmp_path / f"{mode}.png")
    assert [photo.shape for photo in load_photos(find_photos(tmp_path))] == [(4, 5, 3)] * 3


def test_the_held_out_part_is_a_twentieth_and_stays_when_photos_are_added() -> None:
    paths = [Path(f"/photos/{index:04}.jpg") for index in range(1000)]
    train, held = split_photos(paths)
    assert len(held) == pytest.approx(50, abs=20)
    assert sorted(train + held) == paths
    fewer_train, fewer_held = split_photos(paths[:500])
    assert set(fewer_train) < set(train)
    assert set(fewer_held) < set(held)
    assert {path.name for path in split_photos([Path("/elsewhere") / p.name for p in paths])[1]} == {
        path.name for path in held
    }


def test_neither_part_is_ever_empty() -> None:
    for count in range(1, 12):
        train, held = split_photos([Path(f"{index}.jpg") for index in range(count)])
        assert train
        assert held
        assert count == 1 or not set(train) & set(held)


def test_a_folder_gives_photos_to_train_on_and_others_held_out(tmp_path: Path) -> None:
    for index in range(4):
        _save(tmp_path / f"{index}.png")
    train, held = load_clean_photos(tmp_path)
    assert len(train) + len(held) == 4
    assert str(tmp_path) in train.source
    assert "held out" in held.source
