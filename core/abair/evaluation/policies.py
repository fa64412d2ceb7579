"""One picture through every policy: untouched, bare backbone, one-hot, soft weights, Oracle; and how well each did.

The estimate is made once a picture and its weights are given to the restorer by hand, so the policies differ in nothing
but the weights; policies that come to the same weights share one run of the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from abair.evaluation.metrics import psnr, ssim, to_8_bit
from abair.evaluation.testsets import Item

if TYPE_CHECKING:
    from abair.restore import Restorer

Policy = Literal["input", "backbone", "OH", "SW", "Oracle"]
POLICIES: Final[tuple[Policy, ...]] = ("input", "backbone", "OH", "SW", "Oracle")
Float = NDArray[np.float32]


class Score(BaseModel):
    """PSNR in dB and SSIM, both on RGB; no SSIM where a picture is too small for it."""

    model_config = ConfigDict(frozen=True)

    psnr: float
    ssim: float | None


class ImageResult(BaseModel):
    """One picture: what the estimator saw, and the score under each policy (no Oracle where it has no adapter)."""

    model_config = ConfigDict(frozen=True)

    name: str
    weights: dict[str, float]
    scores: dict[Policy, Score]

    @property
    def top(self) -> str:
        """The label of the largest weight."""
        return max(self.weights, key=self.weights.__getitem__)


def run_policies(restorer: Restorer, item: Item, labels: tuple[str, ...]) -> tuple[ImageResult, dict[Policy, Float]]:
    """Restore one picture under every policy and measure; also returns the pictures, float32 in [0, 1].

    Outputs are rounded to 8 bits before they are measured, because users get files; the input is measured as it is.
    The Oracle gives each of the true `labels` the same weight, their sum 1, which is what the estimator is trained to
    say of mixtures; where the deployment lacks one of them there is no Oracle.
    """
    estimated = {label: float(weight) for label, weight in restorer.estimate(item.degraded).items()}
    top = max(estimated, key=estimated.__getitem__)
    asked: dict[Policy, Mapping[str, float]] = {"backbone": {}, "OH": {top: 1.0}, "SW": estimated}
    if set(labels) <= set(restorer.labels):
        asked["Oracle"] = {label: 1 / len(labels) for label in labels}
    pictures: dict[Policy, Float] = {"input": item.degraded}
    scores: dict[Policy, Score] = {"input": _score(item.degraded, item.clean)}
    done: dict[tuple[tuple[str, float], ...], Policy] = {}
    for policy, weights in asked.items():
        key = tuple(sorted(weights.items()))
        if key in done:
            pictures[policy], scores[policy] = pictures[done[key]], scores[done[key]]
            continue
        done[key] = policy
        pictures[policy] = to_8_bit(np.asarray(restorer(item.degraded, weights=weights).image))
        scores[policy] = _score(pictures[policy], item.clean)
    pictures["input"] = to_8_bit(item.degraded)
    return ImageResult(name=item.name, weights=estimated, scores=scores), pictures


def _score(image: Float, clean: Float) -> Score:
    similarity = ssim(image, clean)
    return Score(psnr=psnr(image, clean), ssim=None if math.isnan(similarity) else similarity)
