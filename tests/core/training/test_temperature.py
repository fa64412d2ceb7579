"""The softmax is as sharp as restoring on held-out photos wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from abair.data.degrade import Degrader, Recipe
from abair.data.photos import CleanPhotos
from abair.model.backbone import SIZES, Backbone, freeze
from abair.model.estimator import Estimator, feature_count
from abair.training.temperature import TEMPERATURES, calibrate, calibrate_confidence


def halved(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return clean * 0.5


class Undoes:
    """Stands for a blender: the one adapter, at full weight, undoes what `halved` did."""

    def blend(
        self, weights: Sequence[float], keep: float = 0.0
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        (weight,) = weights
        return lambda image, view: image * (1 + weight)


def says(logit: float) -> Estimator:
    """An estimator that gives `halved` this logit, and `clean` 0, whatever it sees."""
    estimator = Estimator(("halved", "clean"), feature_count(SIZES["tiny"]))
    with torch.no_grad():
        estimator.head[-1].weight.zero_()
        estimator.head[-1].bias.copy_(torch.tensor([logit, 0.0]))
    freeze(estimator)
    return estimator


@pytest.mark.parametrize(
    ("logit", "temperature"),
    [
        (0.5, min(TEMPERATURES)),  # right but timid: the sharper, the better
        (-0.5, 1.0),  # wrong: the sharper, the worse
        (20.0, 1.0),  # sharp already: nothing to gain
    ],
)
def test_a_timid_estimator_that_is_right_is_sharpened_and_no_other(logit: float, temperature: float) -> None:
    photo = np.random.default_rng(0).integers(20, 250, (90, 120, 3), dtype=np.uint8)
    photos, degrader = CleanPhotos([photo], "one"), Degrader({"halved": halved}, Recipe(cutmix=0, mixture=0, clean=0))
    estimator = says(logit)
    assert calibrate(estimator, Backbone(SIZES["tiny"]), Undoes(), degrader, photos, samples=4) == temperature
    assert float(estimator.temperature) == pytest.approx(temperature)
    assert estimator.head[-1].bias.tolist() == [logit, 0.0]


def passes_on(labels: Sequence[str]) -> Estimator:
    """An estimator whose logits are its features, one for each label."""
    estimator = Estimator(labels, len(labels), len(labels))
    with torch.no_grad():
        estimator.head[0] = torch.nn.Identity()
        estimator.head[2] = torch.nn.Identity()
        for layer in (estimator.head[1], estimator.head[3]):
            layer.weight.copy_(torch.eye(len(labels)))
            layer.bias.zero_()
    freeze(estimator)
    return estimator


def test_confidence_is_the_share_of_right_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    estimator = passes_on(("halved", "clean"))
    # the answer is right for four in five, and the logits say that it is nearly always
    logits = torch.tensor([[10.0, 0.0]]) + torch.rand((4000, 2), generator=generator)
    truth = torch.nn.functional.one_hot((torch.rand(4000, generator=generator) < 0.2).long(), 2).float()
    assert float(estimator.confidence_temperature) == 0  # not calibrated
    errors = calibrate_confidence(estimator, logits, truth)
    assert float(estimator.confidence(logits).mean()) == pytest.approx(0.8, abs=0.03)
    assert errors.keys() == {"calibration_error"}
    assert errors["calibration_error"] < 0.06
    assert float(estimator.temperature) == 1.0
    assert float(estimator.confidence_pairs) == 0.0


def test_mixtures_are_as_sure_as_they_are_right() -> None:
    generator = torch.Generator().manual_seed(0)
    estimator = passes_on(("halved", "paler", "darker", "clean"))
    estimator.temperature.fill_(0.3)
    named = torch.stack([torch.randperm(3, generator=generator)[:2] for _ in range(4000)])
    mixed = torch.arange(4000) % 2 == 0
    logits, truth = torch.randn((4000, 4), generator=generator) * 0.3, torch.zeros(4000, 4)
    logits[range(4000), named[:, 0]] += 4
    logits[mixed, named[mixed, 1]] += 4
    truth[range(4000), named[:, 0]] = 1
    truth[mixed, named[mixed, 1]] = 1
    truth[torch.rand(4000, generator=generator) < 0.1] = torch.tensor([0.0, 0.0, 0.0, 1.0])  # what it never says
    errors = calibrate_confidence(estimator, logits, truth)
    assert errors.keys() == {"calibration_error", "calibration_error_mixtures"}
    confidence = estimator.confidence(logits)
    assert float(confidence[mixed].mean()) == pytest.approx(0.9, abs=0.05)
    assert float(confidence[~mixed].mean()) == pytest.approx(0.9, abs=0.05)
    softmax = (logits / estimator.confidence_temperature).softmax(1).amax(1)
    assert float(softmax[mixed].mean()) < 0.65  # one true label would share it
