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


def test_confidence_is_the_share_of_right_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    estimator = Estimator(("halved", "clean"), 4)
    with torch.no_grad():
        estimator.head[0] = torch.nn.Identity()
        estimator.head[2] = torch.nn.Identity()
        estimator.head[1].weight.zero_()[0, 0] = 10.0
        estimator.head[1].bias.zero_()
        estimator.head[3].weight.zero_()[0, 0] = 1.0
        estimator.head[3].bias.zero_()
    freeze(estimator)
    # the answer is right for four in five, and the logits say that it is nearly always
    features = torch.rand((4000, 4), generator=generator) + 0.5
    targets = (torch.rand(4000, generator=generator) < 0.2).long()
    assert float(estimator.confidence_temperature) == 0  # not calibrated
    error = calibrate_confidence(estimator, features, targets)
    confidence = (estimator(features) / estimator.confidence_temperature).softmax(1).amax(1)
    assert float(confidence.mean()) == pytest.approx(0.8, abs=0.03)
    assert error < 0.06
    assert float(estimator.temperature) == 1.0
