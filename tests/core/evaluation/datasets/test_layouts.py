"""The layouts of the public test sets: recognised as they are distributed; what nearly fits is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from abair.evaluation.datasets.find import find_sets
from abair.evaluation.datasets.layouts import PAIRED_SETS, DataFolder, Pairs


def _files(data: Path, *names: str, size: tuple[int, int] = (12, 14)) -> None:
    for name in names:
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), len(name), np.uint8)).save(path)


def _found(data: Path, key: str) -> dict[str, tuple[str, str]]:
    pairs = DataFolder(data).pairs(key)
    assert isinstance(pairs, Pairs), pairs
    assert pairs.unpaired == ()
    return {
        name: (path.relative_to(data).as_posix(), pairs.clean[name].relative_to(data).as_posix())
        for name, path in pairs.degraded.items()
    }


@pytest.mark.parametrize(
    ("key", "degraded", "clean", "name"),
    [
        ("Rain100L", "Rain100L/rain-001.png", "Rain100L/norain-001.png", "001"),
        ("Rain100L", "Rain100L/rainy/rain-001.png", "Rain100L/norain-001.png", "001"),
        ("Rain100L", "rain100L/rain/rain-001.png", "rain100L/norain/norain-001.png", "001"),
        (
            "Rain100L",
            "rain_data_test_Light/rain/X2/norain-001x2.png",
            "rain_data_test_Light/norain/norain-001.png",
            "001",
        ),
        ("Rain100L", "derain/Rain100L/input/1.png", "derain/Rain100L/target/1.png", "1"),
        ("Rain100H", "Rain100H/rain/7.png", "Rain100H/norain/7.png", "7"),
        ("SOTS_outdoor", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg", "SOTS/outdoor/gt/0001.png", "0001_0.8_0.2"),
        ("SOTS_indoor", "RESIDE/SOTS/indoor/hazy/1400_1.png", "RESIDE/SOTS/indoor/clear/1400.png", "1400_1"),
        ("SOTS_indoor", "SOTS/indoor/nyuhaze500/hazy/1400_1.png", "SOTS/indoor/nyuhaze500/gt/1400.png", "1400_1"),
        ("SOTS_indoor", "SOTS_indoor/degraded/1400_1.webp", "SOTS_indoor/clean/1400_1.webp", "1400_1"),
        ("LOL_eval15", "LOLdataset/eval15/low/1.png", "LOLdataset/eval15/high/1.png", "1"),
        ("LOL_eval15", "LOL/eval15/low/1.png", "LOL/eval15/high/1.png", "1"),
        ("GoPro", "GOPRO_Large/test/G_11/blur/0.png", "GOPRO_Large/test/G_11/sharp/0.png", "G_11/0"),
        ("GoPro", "GoPro/test/input/G-1.png", "GoPro/test/target/G-1.png", "G-1"),
        ("HIDE", "HIDE/input/1.png", "HIDE/target/1.png", "1"),
        ("HIDE", "HIDE_dataset/test/test-close-ups/1.png", "HIDE_dataset/GT/1.png", "1"),
    ],
)
def test_pairs_are_found_as_they_are_distributed(
    tmp_path: Path, key: str, degraded: str, clean: str, name: str
) -> None:
    _files(tmp_path, degraded, clean)
    assert _found(tmp_path, key) == {name: (degraded, clean)}


@pytest.mark.parametrize(
    ("key", "file", "name"),
    [
        ("CBSD68", "CBSD68/clean/1.jpg", "1"),
        ("CBSD68", "CBSD68-dataset/CBSD68/original_png/0000.png", "0000"),
        ("CBSD68", "CBSD68/101085.png", "101085"),
        ("Kodak24", "Kodak24/kodim01.png", "kodim01"),
        ("Urban100", "Urban100/img_001.png", "img_001"),
        ("McMaster", "McMaster/1.tif", "1"),
    ],
)
def test_clean_pictures_are_found_as_they_are_distributed(tmp_path: Path, key: str, file: str, name: str) -> None:
    _files(tmp_path, file, f"{key}/noisy15/{name}.png")
    assert DataFolder(tmp_path).clean(key) == {name: tmp_path / file}


def test_several_levels_of_haze_share_one_clean_picture(tmp_path: Path) -> None:
    _files(tmp_path, *(f"SOTS/indoor/hazy/1400_{level}.png" for level in (1, 2, 10)), "SOTS/indoor/gt/1400.png")
    found = _found(tmp_path, "SOTS_indoor")
    assert sorted(found) == ["1400_1", "1400_10", "1400_2"]
    assert {clean for _, clean in found.values()} == {"SOTS/indoor/gt/1400.png"}


def test_the_border_that_hazy_pictures_lack_is_cut_off_evenly_or_the_pair_is_refused(tmp_path: Path) -> None:
    _files(tmp_path, "SOTS/indoor/hazy/1_1.png", "SOTS/indoor/hazy/2_1.png", size=(12, 14))
    _files(tmp_path, "SOTS/indoor/gt/1.png", size=(16, 18))
    _files(tmp_path, "SOTS/indoor/gt/2.png", size=(16, 22))
    problems: list[Exception] = []
    (found,) = find_sets(tmp_path, {}, ["SOTS_indoor"]).sets
    items = list(found.iterate(problems.append))
    assert [(item.name, item.clean.shape) for item in items] == [("1_1", (12, 14, 3))]
    assert "2_1.png: found 14 x 12 pixels, expected 22 x 16" in str(problems[0])


def test_the_training_part_is_not_taken_for_the_test_part(tmp_path: Path) -> None:
    for part in ("test", "train"):
        _files(tmp_path, f"GoPro/{part}/{part[0]}/blur/0.png", f"GoPro/{part}/{part[0]}/sharp/0.png")
    assert sorted(_found(tmp_path, "GoPro")) == ["t/0"]
    assert all(path.startswith("GoPro/test/") for pair in _found(tmp_path, "GoPro").values() for path in pair)


def test_a_name_that_nearly_fits_is_told_for_the_set_it_may_be(tmp_path: Path) -> None:
    _files(tmp_path, "Rain100L_new/rain-1.png", "Rain100L_new/norain-1.png", "Rain100H/clean/1.png")
    folder = DataFolder(tmp_path)
    assert str(folder.pairs("Rain100L")).endswith("; if Rain100L_new is this set, rename it to Rain100L")
    assert "Rain100L" not in str(folder.pairs("GoPro"))
    unpaired = folder.pairs("Rain100H")
    assert isinstance(unpaired, str)
    assert str(tmp_path / "Rain100H" / "clean") in unpaired
    assert "\n" not in unpaired


def test_folders_that_hold_known_sets_or_no_pictures_are_not_taken_for_others(tmp_path: Path) -> None:
    _files(
        tmp_path,
        "RESIDE/SOTS/outdoor/hazy/1_1.png",
        "RESIDE/SOTS/outdoor/gt/1.png",
        "Urban100/1.png",
        "Mine/input/1.png",
    )
    _files(tmp_path, "Mine/target/1.png", ".cache/a/1.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/read.me").write_text("")
    others = DataFolder(tmp_path).other_pairs()
    assert list(others) == ["Mine"]
    assert isinstance(others["Mine"], Pairs)


def test_every_known_set_is_found_in_the_layout_that_we_keep(tmp_path: Path) -> None:
    assert len(PAIRED_SETS) == 7
    for key in PAIRED_SETS:
        _files(tmp_path, f"{key}/clean/1.png", f"{key}/degraded/1.webp")
        assert _found(tmp_path, key) == {"1": (f"{key}/degraded/1.webp", f"{key}/clean/1.png")}
