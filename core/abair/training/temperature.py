"""The end of phase III: choose the temperatures of the estimator's softmax on held-out photos.

Many training samples cannot be told apart (faint rain, thin haze). The cross-entropy over them
leaves the estimator's weights low even where it is right, and a blend by low weights applies each
adapter by halves. The temperature is usually chosen by likelihood (Guo et al., "On Calibration of
Modern Neural Networks", ICML 2017), here by the error in decibels of what is restored. How sure the
estimator says it is has a temperature of its own, chosen by likelihood, as are the odds of two
labels together (see `abair.model.confidence`).
"""

from __future__ import annotations

import math
from itertools import product
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.labels import CLEAN
from abair.model.backbone import Backbone
from abair.model.blend_cost import ERROR_FLOOR, centre_crop
from abair.model.confidence import label_probabilities
from abair.model.estimator import Estimator, extract_image_features
from abair.model.lora import Blender
from abair.training.estimator import VALIDATION_SIDE

CONFIDENCES: Final = tuple(math.exp(step / 10) for step in range(-20, 21))
"""Temperatures at which confidences are tried, 0.14 to 7.4."""
PAIR_ODDS: Final = (0.0, *(math.exp(step / 2) for step in range(-2, 13)))
"""Odds of two labels together that are tried, 0 to 400."""
SMALLEST: Final = 1e-4
"""Least distance of a confidence from 0 and 1 in its likelihood."""
BINS: Final = 10
"""Bins of confidence over which the calibration error is taken."""
TEMPERATURES: Final = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1)
SAMPLES: Final = 200
"""Held-out samples, drawn by the recipe of phase III: single, mixed and clean."""


@torch.inference_mode()
def calibrate(
    estimator: Estimator,
    backbone: Backbone,
    blender: Blender,
    degrader: Degrader,
    photos: CleanPhotos,
    samples: int = SAMPLES,
) -> float:
    """Set the estimator's temperature to the one whose blends restore best, and return it."""
    losses = dict.fromkeys(TEMPERATURES, 0.0)
    for index in range(samples):
        generator = generator_for(0, Stream.TEMPERATURE, index)
        sample = degrader.sample(photos.scene(generator, VALIDATION_SIDE, smallest=1.0), generator)
        logits = estimator(extract_image_features(backbone, sample.degraded).float().mean(0, keepdim=True))[0]
        degraded, clean, view = centre_crop(sample, backbone)
        for temperature in TEMPERATURES:
            weights = dict(zip(estimator.labels, (logits / temperature).softmax(0).tolist(), strict=True))
            keep = weights.pop(CLEAN)
            restored = blender.blend(list(weights.values()), keep=keep)(degraded[None], view)[0].clamp(0, 1)
            losses[temperature] += float((restored - clean).square().mean().add(ERROR_FLOOR).log10())
    best = min(losses, key=losses.__getitem__)
    estimator.temperature.fill_(best)
    return best


@torch.inference_mode()
def calibrate_confidence(estimator: Estimator, features: Tensor, truth: Tensor) -> dict[str, float]:
    """Set what the confidence rests on by likelihood, and return its calibration errors.

    The likelihood is that of how much of the weights lies on true labels. Photos with one true
    label and those with several count alike, however many there are of each.

    Args:
        estimator: a trained one, whose temperature was chosen.
        features: those of held-out photos (N, F).
        truth: 1 for their true labels, else 0, (N, L); `clean` where there is no degradation.

    Returns:
        The expected calibration errors (Guo et al., section 2) on the same photos, in [0, 1], of
        those with one true label and, if there are any, those with several.
    """
    logits, weights = estimator(features), estimator.predict_weights(features)
    right = (weights * truth).sum(1)
    several = truth.sum(1) > 1
    groups = [group for group in (~several, several) if group.any()]
    share = sum(group / group.sum() for group in groups) / len(groups)

    def confidence(temperature: float, odds: float) -> Tensor:
        likely = label_probabilities(logits, temperature, odds)
        return (weights * likely).sum(1).clamp(SMALLEST, 1 - SMALLEST)

    def loss(tried: tuple[float, float]) -> float:
        return float((F.binary_cross_entropy(confidence(*tried), right.clamp(0, 1), reduction="none") * share).sum())

    best = min(product(CONFIDENCES, PAIR_ODDS if several.any() else PAIR_ODDS[:1]), key=loss)
    estimator.confidence_temperature.fill_(best[0])
    estimator.confidence_pairs.fill_(best[1])
    errors = [_calibration_error(confidence(*best)[group], right[group]) for group in groups]
    return dict(zip(("calibration_error", "calibration_error_mixtures"), errors, strict=False))


def _calibration_error(confidence: Tensor, right: Tensor) -> float:
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gaps = [
        (confidence[bins == place].mean() - right[bins == place].mean()).abs() * (bins == place).float().mean()
        for place in torch.unique(bins)
    ]
    return float(torch.stack(gaps).sum())
