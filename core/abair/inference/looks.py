"""Looking again: damage that other damage hid is seen in what was restored.

Noise is seen once the rain is gone. So the result is estimated, too, and restored once more where
it shows damage. The paper looks once, and asks the estimator for all kinds at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np

from abair.inference.doubt import LITTLE, judge_strength, likeliest_damage
from abair.inference.results import Judgement
from abair.labels import CLEAN
from abair.model.views import Pixels

SHOWN: Final = 0.5
"""Part of the weights that a further look must give to damage."""
MOST_SHIFT: Final = 10 / 255
"""By how much a further look may move the mean of a channel, of its range. Haze and darkness are
seen at once; what makes another photo of the result is taken for a mistake."""
LEFT_BEHIND: Final = frozenset({"blur"})
"""What a restoration leaves behind itself: detail that is lost looks like blur."""
_ROWS_AT_A_TIME: Final = 512
"""Rows that are mixed at a time, which bounds the memory in float32."""


class Followed(NamedTuple):
    """What was restored, and the weights that each look was followed by.

    `judgement` is what the first look saw; `doubts` say why that was followed in part, or not.
    """

    pixels: Pixels
    looks: tuple[dict[str, float], ...]
    judgement: Judgement
    doubts: list[str]


def look_and_follow(
    pixels: Pixels,
    judge: Callable[[Pixels], Judgement],
    restore: Callable[[Pixels, Mapping[str, float]], Pixels],
    most: int,
) -> Followed:
    """Restore what is seen in pixels (H, W, 3), in at most `most` looks.

    Damage that was learnt leaves a photo that is like undamaged ones when it is taken away, however
    strong and rare it was. So what is `unknown` in the photo counts only where it is in the result,
    too.

    A look that is followed in part, because it is unsure, is the last one: the next would make up
    for what was left out. A further look is followed where it is sure of damage, and where what it
    restores keeps the tone.
    """
    judgement = judge(pixels)
    strength, doubts = judge_strength(*judgement)
    sure, _ = judge_strength(judgement.weights, judgement.confidence)
    looks = [scale_weights(judgement.weights, sure)]
    result = restore(pixels, looks[0])
    if strength < sure:  # the photo is unlike what was learnt: is the result like it?
        nearer = min(judgement.unknown or 0.0, judge(result).unknown or 0.0)
        strength, doubts = judge_strength(judgement.weights, judgement.confidence, nearer)
        if strength < sure:
            looks = [scale_weights(judgement.weights, strength)]
            result = restore(pixels, looks[0])
    while len(looks) < most and strength == 1 and looks[-1][CLEAN] < LITTLE:  # else it shows nothing new
        again = judge(result)
        strength, _ = judge_strength(*again)
        if strength < 1 or 1 - again.weights[CLEAN] < SHOWN or likeliest_damage(again.weights) in LEFT_BEHIND:
            break
        before, result = result, restore(result, again.weights)
        if _shift(before, result) > MOST_SHIFT:
            result = before
            break
        looks.append(again.weights)
    return Followed(result, tuple(looks), judgement, doubts)


def scale_weights(weights: Mapping[str, float], strength: float) -> dict[str, float]:
    """Return weights that sum to 1 for a part of a restoration, in [0, 1]; the rest is `clean`."""
    if strength == 1:
        return dict(weights)
    rest = 1 - strength * (1 - weights[CLEAN])
    return {label: strength * weight for label, weight in weights.items()} | {CLEAN: rest}


def mix(before: Pixels, after: Pixels, part: float) -> Pixels:
    """Return what lies at `part`, in [0, 1], of the way between pixels (H, W, 3) of one dtype."""
    mixed = np.empty_like(after)
    for top in range(0, len(after), _ROWS_AT_A_TIME):
        rows = slice(top, top + _ROWS_AT_A_TIME)
        old, new = before[rows].astype(np.float32), after[rows].astype(np.float32)
        values = old + np.float32(part) * (new - old)
        mixed[rows] = values.clip(0, 1) if after.dtype == np.float32 else np.rint(values)
    return mixed


def _shift(before: Pixels, after: Pixels) -> float:
    """Return the largest shift of a channel's mean, as a part of its range."""
    peak = 1.0 if after.dtype == np.float32 else float(np.iinfo(after.dtype).max)
    means = (pixels.mean((0, 1), dtype=np.float64) for pixels in (before, after))
    return float(np.abs(np.subtract(*means)).max()) / peak
