"""Mixtures of a new label with known ones: made, restored, labelled with the best blend."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import SYNTHESIZERS, noise, pictures, rain, write_adapter

from abair.continual.collect import LONGEST
from abair.continual.mixtures import build_mixtures
from abair.continual.replay import Mixtures
from abair.data.degrade import Degrader, apply_gamma
from abair.data.seeds import Stream, generator_for
from abair.model.backbone import Backbone, fingerprint, load_backbone
from abair.model.blend_cost import ERROR_FLOOR, centre_crop
from abair.model.lora import Adapter, Blender, read_adapter
from abair.physics import chance

pytestmark = pytest.mark.slow

PHOTOS = pictures(range(4))


@pytest.fixture(scope="module")
def backbone(bundle: Path) -> Backbone:
    return load_backbone(bundle / "backbone.safetensors")


@pytest.fixture(scope="module")
def adapters(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    root = tmp_path_factory.mktemp("adapters")
    found = {}
    for seed, name in enumerate(SYNTHESIZERS):
        write_adapter(root / name, backbone, seed)
        found[name] = read_adapter(root / name, backbone, fingerprint(backbone), name)
    return found


@pytest.fixture(scope="module")
def mixtures(backbone: Backbone, adapters: dict[str, Adapter]) -> Mixtures:
    return build_mixtures(backbone, SYNTHESIZERS, adapters, "rain", PHOTOS, 7, 0)


def test_each_known_label_is_met_by_the_new_one(mixtures: Mixtures, backbone: Backbone) -> None:
    features = mixtures.features
    assert (features.backbone, features.labels) == (fingerprint(backbone), ("noise", "low-light", "rain", "clean"))
    assert (len(features.values), len(features.targets), len(mixtures.stakes)) == (7, 7, 7)
    assert torch.allclose(features.targets.sum(1), torch.ones(7))
    assert features.targets[:4, 1].tolist() == [0] * 4  # four of noise and rain, three of low light and rain
    assert features.targets[4:, 0].tolist() == [0] * 3
    assert float(features.targets[:, 3].max()) == 0
    assert float(mixtures.stakes.min()) >= 0


def test_a_mixture_is_called_by_the_best_blend_and_its_stake_is_what_the_new_adapter_alone_would_lose(
    mixtures: Mixtures, backbone: Backbone, adapters: dict[str, Adapter]
) -> None:
    blender = Blender(backbone, [adapters["noise"], adapters["rain"]])
    for turn in range(4):
        scene, generator = (
            PHOTOS.scene(generator_for(0, Stream.MIXTURE_SCENE, turn), LONGEST),
            generator_for(0, Stream.MIXTURE_DAMAGE, 2 * turn),
        )
        scene = apply_gamma(scene, generator) if chance(generator, 0.5) else scene
        made = Degrader({"noise": noise, "rain": rain}).mixture(scene, ("noise", "rain"), generator)
        degraded, clean, view = centre_crop(made, backbone)
        errors = {}
        for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
            with torch.inference_mode():
                restored = blender.blend([weight, 1 - weight])(degraded[None], view)[0].clamp(0, 1)
            errors[weight] = float((restored - clean).square().mean())
        best = min(errors, key=errors.__getitem__)
        assert mixtures.features.targets[turn].tolist() == pytest.approx([best, 0, 1 - best, 0])
        lost = 10 * torch.tensor([errors[0.0] + ERROR_FLOOR, errors[best] + ERROR_FLOOR]).log10()
        assert float(mixtures.stakes[turn]) == pytest.approx(float(lost[0] - lost[1]), abs=0.3)  # the blend's is a fit


def test_the_same_scenes_are_drawn_and_told_one_by_one(backbone: Backbone, adapters: dict[str, Adapter]) -> None:
    told: list[int] = []
    two = {name: SYNTHESIZERS[name] for name in ("noise", "rain")}
    again = build_mixtures(backbone, two, adapters, "rain", PHOTOS, 3, 0, on_progress=lambda: told.append(1))
    assert (len(told), again.features.labels) == (3, ("noise", "rain", "clean"))
    once_more = build_mixtures(backbone, two, adapters, "rain", PHOTOS, 3, 0)
    assert torch.equal(again.features.values, once_more.features.values)
    other = build_mixtures(backbone, two, adapters, "rain", PHOTOS, 3, 1)
    assert not torch.equal(again.features.values, other.features.values)
