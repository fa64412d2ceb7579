"""Phase II's samples: one degradation or two, scenes, darkened photos; and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pytest
import torch

from abair.data.degrade import Degrader, to_8_bit
from abair.data.photos import CleanPhotos
from abair.model.backbone import SIZES, Backbone, pool_global_view
from abair.model.lora import Adapter, Blender, adaptable_layers
from abair.training.adapter import AdapterTask
from abair.training.adapter_data import SHARES, held_out_pairs, view_of
from abair.training.backbone import decibel_loss, psnr
from abair.training.real_pairs import AS_IT_IS, Layers, Pairs, RealDamage
from abair.training.settings import AdapterSettings
from abair.training.trainable_lora import SCALE

pytestmark = pytest.mark.slow

TWO = Degrader({"halve": lambda clean, _: clean * 0.5, "lift": lambda clean, _: clean * 0.5 + 0.5})


def _network() -> Backbone:
    """The same one each time, none of whose layers is idle."""
    torch.manual_seed(0)
    network = Backbone(SIZES["tiny"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return network


def _adapter(name: str, seed: int) -> Adapter:
    layers = adaptable_layers(_network())
    torch.manual_seed(seed)
    parts = {
        layer: (0.1 * torch.randn(2, module.weight[0].numel()), 0.1 * torch.randn(len(module.weight), 2))
        for layer, module in layers.items()
    }
    return Adapter(name, 2, float(SCALE), parts)


def _task(
    degrader: Degrader,
    others: Sequence[Adapter] = (),
    start: Adapter | None = None,
    real: Sequence[RealDamage] = (),
    **given: object,
) -> AdapterTask:
    generator = np.random.default_rng(0)
    photos = CleanPhotos([generator.integers(64, 256, (120, 140, 3), dtype=np.uint8)], "one")
    settings = AdapterSettings(**{"steps": 1, "batch": 40, "crop": 32, "learning_rate": 1e-3, "rank": 2} | given)
    return AdapterTask(_network(), "halve", degrader, photos, photos, settings, (real, real), start, others)


def test_some_samples_of_phase_two_carry_a_second_degradation() -> None:
    for labels, expected in ((("halve",), {0.0}), (("halve", "lift"), {0.0, 0.25, 0.5})):
        task = _task(TWO, mix_with=labels[1:])
        degraded, clean, _, _ = task.batch(0)
        scale = (degraded.flatten(1).std(1) / clean.flatten(1).std(1)).mul(4).round() / 4
        added = (degraded.flatten(1).mean(1) - scale * clean.flatten(1).mean(1)).mul(4).round() / 4
        # halved alone; halved, then lifted; lifted, then halved
        assert {abs(value) for value in added.tolist()} == expected
        assert (scale == 0.25).tolist() == [False] * (40 - 10 * len(labels[1:])) + [True] * 10 * len(labels[1:])
        assert ("mixed_psnr" in task.validate()) == (len(labels) == 2)


THREE = Degrader(TWO.synthesizers | {"flat": lambda clean, _: clean * 0.2 + 0.4})


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("partners", [("lift", "flat"), ("flat",), ()])
def test_a_second_degradation_is_restored_by_a_blend_with_its_adapter(batch: int, partners: tuple[str, ...]) -> None:
    own, others = _adapter("halve", 1), {"lift": _adapter("lift", 2), "flat": _adapter("flat", 3)}
    del others["flat"].layers["output"]  # which may leave layers alone
    known = [others[name] for name in partners]
    task = _task(THREE, known, own, mix_with=("lift", "flat"), batch=batch, mix_probability=1.0 if batch == 1 else 0.25)
    blend = Blender(_network(), [own, *known]).blend

    def by(name: str, share: float) -> Backbone:
        """The network with the adapter's share, and the rest of the partner's, if it has one."""
        if name not in partners:
            return blend([1.0] + [0.0] * len(known))
        return blend([share, *(1 - share if name == partner else 0.0 for partner in partners)])

    seen = set()
    for index in range(6):
        degraded, clean, views, given = task.batch(index)
        mixed, place, share = given.tolist()
        name = task.settings.mix_with[int(place)]
        seen.add(name)
        assert mixed == 1
        assert SHARES[0] < share < SHARES[1]
        with torch.inference_mode():
            restored = by(name, share)(degraded[-1:], views[-1:])
            if batch > 1:
                restored = torch.cat([by("", 1.0)(degraded[:-1], views[:-1]), restored])
        loss, _ = task.loss((degraded, clean, views, given))
        assert float(loss.detach()) == pytest.approx(
            float(decibel_loss(restored, clean, task.settings.psnr_ceiling)), abs=1e-4
        )
    assert seen == {"lift", "flat"}
    # what is frozen is not in what is trained
    assert sum(p.requires_grad for p in task.module.parameters()) == 2 * len(own.layers)
    assert all(name in task.depends["blended_with"] for name in partners)

    figures = task.validate()
    pairs = held_out_pairs(THREE, task.held_out, "halve", task.settings.mix_with)
    judged = [
        (d, c, name) for (d, c), name in zip(pairs, cycle(task.settings.mix_with), strict=False) if name in partners
    ]
    ways = []
    for share in (1.0, 0.5, 0.0):
        with torch.inference_mode():
            ways.append([psnr(by(name, share)(d[None])[0].clamp(0, 1), c) for d, c, name in judged])
    if not partners:
        assert "blend_halves" not in figures
        return
    own_alone, halves, others_alone = (sum(way) / len(way) for way in ways)
    assert figures["blend_halves"] == pytest.approx(halves, abs=1e-3)
    assert figures["blend_alone"] == pytest.approx(max(own_alone, others_alone), abs=1e-3)


@pytest.mark.parametrize(
    ("batch", "mixed", "real", "expected"),
    [(1, 0.25, False, [0, 0, 0, 1]), (6, 0.25, False, [1, 2, 1, 2]), (8, 0.25, True, [1, 1, 1, 1]),
     (1, 1.0, True, [0, 0, 0, 0]), (8, 1.0, True, [4, 4, 4, 4]), (100, 0.07, False, [7, 7, 7, 7])],
)  # fmt: skip
def test_the_part_that_is_mixed_is_the_one_asked_for_of_what_is_synthetic(
    batch: int, mixed: float, real: bool, expected: list[int]
) -> None:
    pixels = np.random.default_rng(0).integers(64, 256, (60, 60, 3), dtype=np.uint8)
    pairs = Pairs([pixels], [pixels // 2])
    task = _task(TWO, real=[pairs] if real else [], mix_with=("lift",), batch=batch, mix_probability=mixed)
    for index, count in enumerate(expected):
        degraded, clean, _, given = task.batch(index)
        assert given[0] == count
        halved = [torch.allclose(one, other / 2, atol=0.01) for one, other in zip(degraded, clean, strict=True)]
        assert halved == [True] * (batch - count) + [False] * count


def test_samples_of_phase_two_are_cut_from_scenes_and_know_the_whole() -> None:
    degrader = Degrader({"halve": lambda clean, _: clean * 0.5})
    degraded, clean, views, _ = _task(degrader).batch(0)
    assert torch.allclose(views, pool_global_view(degraded))
    assert torch.equal(degraded, (clean * 0.5 * 255).round() / 255)
    task = _task(degrader, scene_size=100)
    degraded, clean, views, _ = task.batch(0)
    assert degraded.shape == clean.shape == (40, 3, 32, 32)
    assert torch.equal(degraded, (clean * 0.5 * 255).round() / 255)
    own = [torch.allclose(view, pool_global_view(crop[None])[0]) for view, crop in zip(views, degraded, strict=True)]
    assert sum(own) / len(own) == pytest.approx(0.4, abs=0.2)
    assert "scene_psnr" in task.validate()


def test_some_samples_of_phase_two_show_darker_photos() -> None:
    degrader = Degrader({"halve": lambda clean, _: clean * 0.5})
    means = [_task(degrader, darken_probability=share).batch(0)[1].mean((1, 2, 3)) for share in (0, 1)]
    assert float(means[0].amin()) > 0.55
    assert 0.25 < float(means[1].amin()) < float(means[1].amax()) < 0.58
    degraded, clean, _, _ = _task(degrader, darken_probability=1).batch(0)
    # what is to be restored is the darker photo, not the one it was made of
    assert torch.equal(degraded, (clean * 0.5 * 255).round() / 255)


def test_phase_two_trains_on_what_pefts_own_network_says() -> None:
    generator = np.random.default_rng(0)
    pictures = CleanPhotos([generator.integers(0, 256, (80, 90, 3), dtype=np.uint8)], "one")
    degrader = Degrader({"noise": lambda clean, generator: clean + 0.1 * torch.randn(clean.shape, generator=generator)})
    settings = AdapterSettings(steps=1, batch=2, crop=64, learning_rate=1e-3, precision="float32")
    task = AdapterTask(_network(), "noise", degrader, pictures, pictures, settings)
    with torch.no_grad():
        for name, parameter in task.module.named_parameters():
            if ".lora_B." in name:  # which begin at zero
                parameter.copy_(0.05 * torch.randn(parameter.shape))
    batch = task.batch(0)
    loss, _ = task.loss(batch)
    loss.backward()
    trained = {name: p.grad.clone() for name, p in task.module.named_parameters() if p.requires_grad}
    task.module.zero_grad()
    own = decibel_loss(task.module(batch[0], pool_global_view(batch[0])), batch[1], task.settings.psnr_ceiling)
    own.backward()
    assert float(loss.detach()) == pytest.approx(float(own.detach()), abs=1e-5)
    assert trained
    for name, gradient in trained.items():
        expected = task.module.get_parameter(name).grad
        assert torch.allclose(gradient, expected, atol=1e-5 + 1e-3 * float(expected.abs().max())), name


def _layers(photos: CleanPhotos) -> Layers:
    """One streak of light, on black."""
    layer = np.zeros((90, 110, 3), np.uint8)
    layer[:, 50:54] = 80
    return Layers([layer], photos)


def test_a_layer_is_added_to_a_photo_and_never_darkens_it() -> None:
    layers = _layers(_task(TWO).photos)
    changed = 0
    for seed in range(40):
        degraded, clean, view = layers.crop(torch.Generator().manual_seed(seed), 48)
        assert degraded.shape == clean.shape == (3, 48, 48)
        assert torch.equal(view, view_of(degraded))
        assert torch.all(degraded >= clean)
        assert degraded.max() <= 1
        changed += not torch.equal(degraded, clean)
        again = layers.crop(torch.Generator().manual_seed(seed), 48)
        assert all(map(torch.equal, (degraded, clean, view), again))
    assert changed > 20  # the streak is in view more often than not


def test_some_layers_are_added_exactly_as_they_are() -> None:
    flat = CleanPhotos([np.full((120, 140, 3), 40, np.uint8)], "flat")
    exact = 0
    for seed in range(60):
        degraded, clean, _ = _layers(flat).crop(torch.Generator().manual_seed(seed), 48)
        exact += set(((degraded - clean) * 255).round().int().unique().tolist()) <= {0, 80}
    assert 60 * AS_IT_IS / 2 < exact < 60


def test_each_pair_and_each_layer_of_all_sets_is_equally_likely() -> None:
    dark, light = (np.full((60, 60, 3), level, np.uint8) for level in (20, 200))
    sets = [Pairs([dark], [dark]), Pairs([light] * 3, [light] * 3)]
    task = _task(TWO, real=sets, batch=40, real_probability=1.0)
    _, clean, _, _ = task.batch(0)
    assert len(clean) == 40
    assert 0.55 < sum(float(one.mean()) > 0.5 for one in clean) / 40 < 0.92


def test_a_share_of_the_samples_goes_through_a_lossy_file() -> None:
    degrader = Degrader({"halve": lambda clean, _: clean * 0.5})
    degraded, clean, _, _ = _task(degrader, file_artifacts=0.5).batch(0)
    exact = sum(torch.equal(one, to_8_bit(other * 0.5)) for one, other in zip(degraded, clean, strict=True))
    assert 10 < exact < 30
    assert all((one - other * 0.5).abs().mean() < 0.1 for one, other in zip(degraded, clean, strict=True))
