"""One picture restored under every policy, with its scores.

The policies: the input as it is, the bare backbone, one-hot (OH), soft weights (SW), and the
Oracle. The estimate is made once per picture and its weights are passed to the restorer, so the
policies differ in nothing but the weights. Policies with equal weights share one run of the
network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from abair.evaluation.datasets.items import Item
from abair.metrics import luma, psnr, ssim, to_8_bit

if TYPE_CHECKING:
    from abair.inference.restorer import Restorer
    from abair.inference.results import Quality

Policy = Literal["input", "backbone", "OH", "SW", "Oracle"]
POLICIES: Final[tuple[Policy, ...]] = ("input", "backbone", "OH", "SW", "Oracle")
HEADINGS: Final[dict[Policy, str]] = {
    "input": "input",
    "backbone": "bare backbone",
    "OH": "OH",
    "SW": "SW",
    "Oracle": "Oracle",
}
"""The policies' names in tables and plots."""
Float = NDArray[np.float32]


class Score(BaseModel):
    """PSNR in dB and SSIM on the same channels; `ssim` is None for pictures that are too small."""

    model_config = ConfigDict(frozen=True)

    psnr: float
    ssim: float | None


class ImageResult(BaseModel):
    """One picture: the estimator's weights, and the score under each policy.

    `scores` are measured on RGB, `scores_y` on Y, for sets whose papers do so. There is no Oracle
    where the deployment has no adapter for a true label.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    weights: dict[str, float]
    scores: dict[Policy, Score]
    scores_y: dict[Policy, Score] = {}

    @property
    def top(self) -> str:
        """The label with the largest weight."""
        return max(self.weights, key=self.weights.__getitem__)


def run_policies(
    restorer: Restorer, item: Item, labels: tuple[str, ...], *, on_luma: bool = False, quality: Quality = "standard"
) -> tuple[ImageResult, dict[Policy, Float]]:
    """Restore one picture under every policy; return the scores and the pictures.

    The pictures are (H, W, 3) float32 in [0, 1]. Outputs are rounded to 8 bits before they are
    measured, because users get files; the input is measured unrounded. The Oracle gives each of the
    true `labels` the same weight, with a sum of 1, as the estimator is trained to answer for
    mixtures. If `labels` is empty or holds one that the deployment lacks, there is no Oracle.
    `on_luma` measures on Y as well; `quality` is the restorer's.
    """
    estimated = {label: float(weight) for label, weight in restorer.estimate(item.degraded).items()}
    top = max(estimated, key=estimated.__getitem__)
    asked: dict[Policy, dict[str, Any]] = {
        "backbone": {"policy": "backbone"},
        "OH": {"weights": {top: 1.0}},
        "SW": {"policy": "soft"},  # as users get it: what the estimate is unsure of is restored gently
    }
    if labels and set(labels) <= set(restorer.labels):
        asked["Oracle"] = {"weights": {label: 1 / len(labels) for label in labels}}
    measures = (_score, _score_y) if on_luma else (_score,)
    pictures: dict[Policy, Float] = {"input": item.degraded}
    scores: dict[Policy, list[Score]] = {"input": [measure(item.degraded, item.clean) for measure in measures]}
    for policy, options in asked.items():
        same = next((known for known in asked if known in pictures and asked[known] == options), None)
        if same is None:
            pictures[policy] = to_8_bit(np.asarray(restorer(item.degraded, quality=quality, **options).image))
            scores[policy] = [measure(pictures[policy], item.clean) for measure in measures]
        else:
            pictures[policy], scores[policy] = pictures[same], scores[same]
    pictures["input"] = to_8_bit(item.degraded)
    rgb = {policy: score[0] for policy, score in scores.items()}
    on_y = {policy: score[1] for policy, score in scores.items()} if on_luma else {}
    return ImageResult(name=item.name, weights=estimated, scores=rgb, scores_y=on_y), pictures


def mean_score(scores: Sequence[Mapping[Policy, Score]]) -> dict[Policy, Score]:
    """Return the mean score of each policy that all of `scores` have.

    Pictures without SSIM are left out of the mean SSIM.
    """
    means: dict[Policy, Score] = {}
    for policy in POLICIES if scores else ():
        if all(policy in score for score in scores):
            similarities = [s for score in scores if (s := score[policy].ssim) is not None]
            similarity = sum(similarities) / len(similarities) if similarities else None
            means[policy] = Score(psnr=sum(score[policy].psnr for score in scores) / len(scores), ssim=similarity)
    return means


def oracle_gap(mean: Mapping[Policy, Score]) -> float | None:
    """Return the PSNR of the Oracle minus that of SW in dB: what a perfect estimator would gain.

    None if there is no Oracle.
    """
    return mean["Oracle"].psnr - mean["SW"].psnr if "Oracle" in mean else None


def _score(image: Float, clean: Float) -> Score:
    similarity = ssim(image, clean)
    return Score(psnr=psnr(image, clean), ssim=None if math.isnan(similarity) else similarity)


def _score_y(image: Float, clean: Float) -> Score:
    """Measure on Y rounded to 8 bits, as MATLAB's rgb2ycbcr does with the papers' 8-bit files."""
    return _score(to_8_bit(luma(to_8_bit(image))), to_8_bit(luma(clean)))
