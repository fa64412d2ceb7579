"""Test sets: found by folder, damaged by seed, named where they are missing, going on where a file is bad."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abair import images
from abair.errors import AbairError, ImageError
from abair.evaluation import testsets
from abair.evaluation.metrics import psnr
from abair.evaluation.testsets import ALL, STANDARD, EvaluationSet, Item, degrade, find_sets

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
    found = find_sets(data, SYNTHESIZERS if synthesizers is None else synthesizers, names or ALL)  # type: ignore[arg-type]
    return {one.key: one for one in found.sets}


def _items(found: EvaluationSet) -> tuple[list[Item], list[AbairError]]:
    problems: list[AbairError] = []
    return list(found.iterate(problems.append)), problems


def test_every_set_that_is_there_is_found_and_every_other_is_named_with_its_reason(data: Path) -> None:
    found = find_sets(data, SYNTHESIZERS, STANDARD)
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
    with pytest.raises(ImageError, match="test set Rain100H: not known; expected some of CBSD68_s25"):
        find_sets(data, SYNTHESIZERS, ["Rain100H"])


def test_a_mixture_without_its_plugins_is_named_as_missing(data: Path) -> None:
    found = find_sets(data, {"noise": _grainy})
    assert found.missing["mix_blur_noise"] == "needs a plugin for blur to make it; pip install abair-blur"
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
    again = degrade(item.clean, [_darker, _grainy], testsets.picture_seed("mix_blur_noise", item.name))
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
    found = find_sets(data, SYNTHESIZERS, STANDARD, limit=2)
    assert [len(one) for one in found.sets] == [2] * 5
    assert [item.name for item in _items(found.sets[0])[0]] == ["000", "001"]
