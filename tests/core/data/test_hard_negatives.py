"""Undamaged scenes that look damaged: of any shape, seeded, and each unlike the others."""

from __future__ import annotations

import pytest
import torch

from abair.data.degrade import Degrader, Recipe, SampleKind, to_8_bit
from abair.data.hard_negatives import SCENES, Scene, hard_negative
from abair.data.seeds import generator_from

NAMES = [scene.__name__.strip("_") for scene in SCENES]


def _photo(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    return torch.stack([rows.expand(height, width), columns.expand(height, width), rows * columns])


@pytest.mark.parametrize("shape", [(90, 140), (140, 90), (33, 200), (16, 16)])
@pytest.mark.parametrize("scene", SCENES, ids=NAMES)
def test_a_scene_has_the_photos_shape_and_depends_on_its_seed(scene: Scene, shape: tuple[int, int]) -> None:
    photo = _photo(*shape)
    kept = photo.clone()
    made = [scene(photo, generator_from(seed)) for seed in range(12)]
    for seed, picture in enumerate(made):
        assert picture.shape == photo.shape
        assert bool(picture.isfinite().all())
        assert torch.equal(picture, scene(photo, generator_from(seed)))
    assert len({float(picture.clamp(0, 1).sum()) for picture in made}) > 6
    assert torch.equal(photo, kept)


def test_scenes_have_values_that_files_hold() -> None:
    for seed in range(60):
        made = hard_negative(_photo(60, 50), generator_from(seed))
        assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_a_share_of_the_clean_samples_is_such_a_scene_and_nothing_else_changes() -> None:
    photo = to_8_bit(_photo(40, 60))
    plain, often = (
        Degrader({"halve": lambda clean, _: clean * 0.5}, Recipe(clean=0.5, hard_negatives=share))
        for share in (0.0, 0.5)
    )
    drawn = clean = 0
    for seed in range(80):
        one, other = (degrader.sample(photo, generator_from(seed)) for degrader in (plain, often))
        assert one.kind == other.kind
        if one.kind is SampleKind.CLEAN:
            clean += 1
            drawn += not torch.allclose(one.clean, other.clean)
            assert torch.equal(other.degraded, other.clean)
        else:
            assert torch.equal(one.degraded, other.degraded)
    assert clean == pytest.approx(40, abs=14)
    assert drawn == pytest.approx(clean / 2, abs=10)
