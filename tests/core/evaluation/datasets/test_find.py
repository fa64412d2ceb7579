"""Test sets: found by folder, damaged by seed, named where they are missing, going on where a file is bad."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abair import images
from abair.errors import AbairError, ImageError
from abair.evaluation.datasets.find import ALL_SETS, STANDARD_SETS, find_sets
from abair.evaluation.datasets.items import EvaluationSet, Item, degrade, picture_generator
from abair.evaluation.datasets.synthetic import compress_jpeg
from abair.metrics import psnr

SIDE = 40


def _darker(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * (0.3 + 0.4 * torch.rand((), generator=generator))


def _grainy(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


SYNTHESIZERS = {"noise": _grainy, "blur": _darker, "haze": _darker, "low-light": _darker}


def _picture(path: Path, seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for index in range(24):
        _picture(tmp_path / f"CBSD68/clean/{index:03}.png", index)
    for index in range(3):
        _picture(tmp_path / f"Rain100L/clean/{index}.png", index)
        _picture(tmp_path / f"Rain100L/degraded/{index}.bmp", index + 50)
    return tmp_path


def _sets(data: Path, *names: str, synthesizers: Mapping[str, object] | None = None) -> dict[str, EvaluationSet]:
    found = find_sets(data, SYNTHESIZERS if synthesizers is None else synthesizers, names or ALL_SETS)  # type: ignore[arg-type]
    return {one.key: one for one in found.sets}


def _items(found: EvaluationSet) -> tuple[list[Item], list[AbairError]]:
    problems: list[AbairError] = []
    return list(found.iterate(problems.append)), problems


def test_every_set_that_is_there_is_found_and_every_other_is_named_with_its_reason(data: Path) -> None:
    found = find_sets(data, SYNTHESIZERS, STANDARD_SETS)
    assert [one.key for one in found.sets] == [
        "CBSD68_s25",
        "Rain100L",
        "clean",
        "mix_blur_noise",
        "mix_haze_low-light",
    ]
    assert sorted(found.missing) == ["GoPro", "LOL_eval15", "SOTS_indoor"]
    assert str(data / "GoPro" / "clean") in found.missing["GoPro"]


def test_none_at_all_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"found none of the test sets; expected one or more of CBSD68, Rain100L, .*--data DIR"
    ):
        find_sets(tmp_path, SYNTHESIZERS)
    with pytest.raises(ImageError, match="no such folder"):
        find_sets(tmp_path / "nowhere", SYNTHESIZERS)


def test_an_unknown_set_is_refused_with_the_known_ones(data: Path) -> None:
    with pytest.raises(ImageError, match=r"test set Rain200H: not known; expected some of CBSD68_s25.*five_tasks"):
        find_sets(data, SYNTHESIZERS, ["Rain200H"])


def test_a_mixture_without_its_plugins_is_named_as_missing(data: Path) -> None:
    found = find_sets(data, {"noise": _grainy})
    assert found.missing["mix_blur_noise"] == "needs a plugin for blur to make it; install its package"
    assert "haze, low-light" in found.missing["mix_haze_low-light"]


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_has_its_deviation_and_is_neither_clipped_nor_rounded(data: Path, sigma: int) -> None:
    items, problems = _items(_sets(data)[f"CBSD68_s{sigma}"])
    assert not problems
    assert len(items) == 24
    noise = np.stack([item.degraded - item.clean for item in items]) * 255
    assert noise.std() == pytest.approx(sigma, rel=0.01)
    assert items[0].degraded.dtype == np.float32
    assert min(item.degraded.min() for item in items) < 0
    assert max(item.degraded.max() for item in items) > 1
    assert np.mean([psnr(i.degraded, i.clean) for i in items]) == pytest.approx(20 * np.log10(255 / sigma), abs=0.1)


def test_the_8_bit_form_is_the_same_draw_as_a_file_would_hold_it(data: Path) -> None:
    found = _sets(data, "CBSD68_s25", "CBSD68_s25_8bit")
    plain, rounded = _items(found["CBSD68_s25"])[0][0], _items(found["CBSD68_s25_8bit"])[0][0]
    assert np.array_equal(rounded.degraded * 255, np.rint(rounded.degraded * 255))
    assert np.abs(rounded.degraded - plain.degraded.clip(0, 1)).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("key", ["CBSD68_s25", "mix_blur_noise"])
def test_a_picture_is_damaged_by_its_name_alone_whichever_others_there_are(data: Path, key: str) -> None:
    before = {item.name: item.degraded for item in _items(_sets(data, key)[key])[0]}
    for index in range(0, 24, 2):
        (data / f"CBSD68/clean/{index:03}.png").unlink()
    after = {item.name: item.degraded for item in _items(_sets(data, key)[key])[0]}
    assert len(after) == 12
    assert all(np.array_equal(before[name], picture) for name, picture in after.items())
    assert not np.array_equal(after["001"] - after["003"], np.zeros_like(after["001"]))


def test_clean_is_the_first_twenty_by_name_untouched(data: Path) -> None:
    items, _ = _items(_sets(data)["clean"])
    assert [item.name for item in items] == [f"{index:03}" for index in range(20)]
    assert all(np.array_equal(item.degraded, item.clean) for item in items)


def test_a_mixture_applies_its_synthesisers_in_order_and_knows_both_labels(data: Path) -> None:
    found = _sets(data)["mix_blur_noise"]
    assert found.labels == ("blur", "noise")
    item = _items(found)[0][0]
    again = degrade(item.clean, [_darker, _grainy], picture_generator("mix_blur_noise", item.name))
    assert np.array_equal(item.degraded, again)
    assert item.degraded.min() >= 0


def test_pairs_share_names_up_to_the_ending(data: Path) -> None:
    found = _sets(data)["Rain100L"]
    items, problems = _items(found)
    assert (found.labels, [item.name for item in items], problems) == (("rain",), ["0", "1", "2"], [])


def test_damaged_unpaired_and_unequal_files_cost_one_error_each_and_the_rest_goes_on(data: Path) -> None:
    (data / "Rain100L/clean/0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    _picture(data / "Rain100L/degraded/1.bmp", 0, (SIDE, SIDE + 1))
    _picture(data / "Rain100L/clean/alone.png", 0)
    _picture(data / "Rain100L/degraded/other.png", 0)
    items, problems = _items(_sets(data)["Rain100L"])
    assert [item.name for item in items] == ["2"]
    text = sorted(map(str, problems), key=len)
    assert len(text) == 4
    assert all(isinstance(problem, ImageError) for problem in problems)
    together = "\n".join(text)
    for part in (
        "0.png",
        "41 x 40 pixels, expected 40 x 40",
        "alone.png: found no picture",
        "other.png: found no picture",
    ):
        assert part in together
    assert all("\n" not in line for line in text)


def test_files_are_read_only_when_their_turn_comes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = images.read

    def watching(path: Path) -> images.Photo:
        read.append(path)
        return real(path)

    monkeypatch.setattr(images, "read", watching)
    turn = _sets(data)["Rain100L"].iterate(lambda problem: None)
    assert read == []
    next(turn)
    assert len(read) == 2


def test_a_limit_takes_the_first_of_every_set(data: Path) -> None:
    found = find_sets(data, SYNTHESIZERS, STANDARD_SETS, limit=2)
    assert [len(one) for one in found.sets] == [2] * 5
    assert [item.name for item in _items(found.sets[0])[0]] == ["000", "001"]


def test_asked_for_nothing_in_particular_all_that_is_there_is_found_the_known_sets_first(data: Path) -> None:
    _picture(data / "Hail/clean/a.png", 0)
    _picture(data / "Hail/degraded/a.png", 1)
    _picture(data / "Scans/a.png", 1)
    found = find_sets(data, SYNTHESIZERS, None, limit=1)
    keys = [one.key for one in found.sets]
    assert keys[:4] == ["CBSD68_s25", "Rain100L", "clean", "mix_blur_noise"]
    assert {"CBSD68_jpeg20", "CBSD68_4bit", "mix_blur_jpeg", "mix_low-light_noise"} <= set(keys)
    assert keys[-1] == "Hail"
    assert {*keys, *found.missing} == {*ALL_SETS, "Hail", "Scans"}
    assert found.missing["CBSD68_snow"] == "needs a plugin for snow to make it; install its package"
    assert found.missing["mix_haze_snow"].endswith("a plugin for snow to make it; install its package")
    assert "neither in degraded/ and clean/ nor in input/ and target/" in found.missing["Scans"]


def test_the_name_of_a_table_stands_for_its_sets(data: Path) -> None:
    _picture(data / "Hail/input/a.png", 0)
    _picture(data / "Hail/target/a.png", 1)
    for half in ("hazy/1_0.8", "gt/1"):
        _picture(data / f"SOTS/outdoor/{half}.png", 1)
    found = find_sets(data, SYNTHESIZERS, ["three_tasks", "clean", "unseen_sets", "CBSD68_s25"])
    keys = ["SOTS_outdoor", "Rain100L", "CBSD68_s15", "CBSD68_s25", "CBSD68_s50", "clean", "Hail"]
    assert [one.key for one in found.sets] == keys
    assert sorted(found.missing) == ["HIDE", "Kodak24_s25", "McMaster_s25", "Rain100H", "Urban100_s25"]


def test_a_folder_of_unknown_pairs_has_no_true_labels(data: Path) -> None:
    _picture(data / "Hail/clean/a.png", 0)
    _picture(data / "Hail/degraded/a.png", 1)
    found = _sets(data, "Hail")["Hail"]
    assert (found.labels, found.title, len(_items(found)[0])) == ((), "Hail", 1)
    assert "true labels not known" in found.note


def test_jpeg_is_what_pillow_makes_at_quality_20_with_halved_colours_whichever_plugin_there_is(data: Path) -> None:

    found = _sets(data, "CBSD68_jpeg20", synthesizers=SYNTHESIZERS | {"jpeg": _darker})["CBSD68_jpeg20"]
    item = _items(found)[0][0]
    file = io.BytesIO()
    Image.open(data / "CBSD68/clean/000.png").save(file, "JPEG", quality=20, subsampling=2)
    assert np.array_equal(np.rint(item.degraded * 255), np.asarray(Image.open(file)))
    assert found.labels == ("jpeg",)


def test_of_8_bits_the_four_highest_are_kept(data: Path) -> None:
    item = _items(_sets(data, "CBSD68_4bit", synthesizers={})["CBSD68_4bit"])[0][0]
    assert np.array_equal(np.rint(item.degraded * 255), np.asarray(Image.open(data / "CBSD68/clean/000.png")) & 0xF0)


def test_a_mixture_with_jpeg_is_blurred_by_the_plugin_and_then_compressed_at_quality_20(data: Path) -> None:
    found = _sets(data, "mix_blur_jpeg")["mix_blur_jpeg"]
    item = _items(found)[0][0]
    assert np.array_equal(
        item.degraded, degrade(item.clean, [_darker, compress_jpeg], picture_generator("mix_blur_jpeg", item.name))
    )
    assert "quality 20" in found.note


def test_damaged_pictures_are_saved_as_pillow_saves_them_at_quality_30(data: Path) -> None:
    found = _sets(data, "Rain100L_jpeg30", synthesizers={})["Rain100L_jpeg30"]
    item = _items(found)[0][0]
    file = io.BytesIO()
    Image.open(data / "Rain100L/degraded/0.bmp").save(file, "JPEG", quality=30, subsampling=2)
    assert np.array_equal(np.rint(item.degraded * 255), np.asarray(Image.open(file)))
    before = _items(_sets(data, "Rain100L")["Rain100L"])[0][0]
    assert (item.name, item.files) == (before.name, before.files)
    assert np.array_equal(item.clean, before.clean)
    assert found.labels == ("rain", "jpeg")
    assert "quality 30" in found.note


def test_only_sets_whose_papers_measure_on_y_are_measured_there(data: Path) -> None:
    assert [one.key for one in _sets(data).values() if one.luma] == ["Rain100L"]


def test_an_item_knows_the_hashes_of_the_files_it_was_read_from(data: Path) -> None:
    import hashlib

    rain = _items(_sets(data, "Rain100L")["Rain100L"])[0][0]
    paths = {"degraded": data / "Rain100L/degraded/0.bmp", "clean": data / "Rain100L/clean/0.png"}
    assert rain.files == {part: hashlib.sha256(path.read_bytes()).hexdigest() for part, path in paths.items()}
    assert _items(_sets(data, "CBSD68_s15")["CBSD68_s15"])[0][0].files.keys() == {"clean"}
