"""One picture through every policy: untouched, bare backbone, one-hot, soft weights, Oracle; and how well each did.

The estimate is made once a picture and its weights are given to the restorer by hand, so the policies differ in nothing
but the weights; policies that come to the same weights share one run of the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from abair.evaluation.datasets.items import Item
from abair.metrics import luma, psnr, ssim, to_8_bit

if TYPE_CHECKING:
    from abair.inference.restorer import Restorer

Policy = Literal["input", "backbone", "OH", "SW", "Oracle"]
POLICIES: Final[tuple[Policy, ...]] = ("input", "backbone", "OH", "SW", "Oracle")
Float = NDArray[np.float32]


class Score(BaseModel):
    """PSNR in dB and SSIM, both on the same channels; no SSIM where a picture is too small for it."""

    model_config = ConfigDict(frozen=True)

    psnr: float
    ssim: float | None


class ImageResult(BaseModel):
    """One picture: what the estimator saw, and the score under each policy (no Oracle where it has no adapter).

    `scores` are on RGB; `scores_y`, of sets whose papers do so, on Y.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    weights: dict[str, float]
    scores: dict[Policy, Score]
    scores_y: dict[Policy, Score] = {}

    @property
    def top(self) -> str:
        """The label of the largest weight."""
        return max(self.weights, key=self.weights.__getitem__)


def run_policies(
    restorer: Restorer, item: Item, labels: tuple[str, ...], *, on_luma: bool = False
) -> tuple[ImageResult, dict[Policy, Float]]:
    """Restore one picture under every policy and measure; also returns the pictures, float32 in [0, 1].

    Outputs are rounded to 8 bits before they are measured, because users get files; the input is measured as it is.
    The Oracle gives each of the true `labels` the same weight, their sum 1, which is what the estimator is trained to
    say of mixtures; where the deployment lacks one of them, or they are not known (none), there is no Oracle. `on_luma`
    measures on Y as well.
    """
    estimated = {label: float(weight) for label, weight in restorer.estimate(item.degraded).items()}
    top = max(estimated, key=estimated.__getitem__)
    asked: dict[Policy, Mapping[str, float]] = {"backbone": {}, "OH": {top: 1.0}, "SW": estimated}
    if labels and set(labels) <= set(restorer.labels):
        asked["Oracle"] = {label: 1 / len(labels) for label in labels}
    measures = (_score, _score_y) if on_luma else (_score,)
    pictures: dict[Policy, Float] = {"input": item.degraded}
    scores: dict[Policy, list[Score]] = {"input": [measure(item.degraded, item.clean) for measure in measures]}
    done: dict[tuple[tuple[str, float], ...], Policy] = {}
    for policy, weights in asked.items():
        key = tuple(sorted(weights.items()))
        if key in done:
            pictures[policy], scores[policy] = pictures[done[key]], scores[done[key]]
            continue
        done[key] = policy
        pictures[policy] = to_8_bit(np.asarray(restorer(item.degraded, weights=weights).image))
        scores[policy] = [measure(pictures[policy], item.clean) for measure in measures]
    pictures["input"] = to_8_bit(item.degraded)
    rgb = {policy: score[0] for policy, score in scores.items()}
    on_y = {policy: score[1] for policy, score in scores.items()} if on_luma else {}
    return ImageResult(name=item.name, weights=estimated, scores=rgb, scores_y=on_y), pictures


def mean_score(scores: Sequence[Mapping[Policy, Score]]) -> dict[Policy, Score]:
    """The mean a policy, over scores that all have it; a picture too small for SSIM does not count for it."""
    means: dict[Policy, Score] = {}
    for policy in POLICIES if scores else ():
        if all(policy in score for score in scores):
            similarities = [s for score in scores if (s := score[policy].ssim) is not None]
            similarity = sum(similarities) / len(similarities) if similarities else None
            means[policy] = Score(psnr=sum(score[policy].psnr for score in scores) / len(scores), ssim=similarity)
    return means


def oracle_gap(mean: Mapping[Policy, Score]) -> float | None:
    """How many dB the blend is from the Oracle: what a better estimator could gain; None where there is no Oracle."""
    return mean["Oracle"].psnr - mean["SW"].psnr if "Oracle" in mean else None


def _score(image: Float, clean: Float) -> Score:
    similarity = ssim(image, clean)
    return Score(psnr=psnr(image, clean), ssim=None if math.isnan(similarity) else similarity)


def _score_y(image: Float, clean: Float) -> Score:
    """On Y rounded to 8 bits, which is what MATLAB's rgb2ycbcr makes of the 8-bit files that papers measure."""
    return _score(to_8_bit(luma(to_8_bit(image))), to_8_bit(luma(clean)))
