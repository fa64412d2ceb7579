"""Held-out samples restored every way by a challenger, and by the champion that it would follow: the report on both.

Weights are rounded to hundredths. That moves a restored sample by less than it takes to be seen, and then many samples
are restored alike by both: what was measured once is looked up. Of what is not new, the `BUDGET` samples whose weights
moved farthest from the champion's are restored by both; the others count as no better and no worse than before, at what
was measured with the nearest weights, which is measured again for those that are farthest from it, no more than another
`BUDGET`. So the evaluation of the fiftieth label costs what that of the sixth does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from abair.continual.replay import HeldOut
from abair.continual.score_cache import Measured, Named, Scores, distance
from abair.data.degrade import to_8_bit
from abair.labels import CLEAN
from abair.metrics import psnr, ssim
from abair.model.backbone import Backbone
from abair.model.estimator import Estimator
from abair.model.lora import Adapter, Blender
from abair.report import Group, Report, Way

BUDGET: Final = 32
"""Samples without a new label that are restored by challenger and champion; the others count as not moved."""
NEAR: Final = 0.1
"""Distance of weights below which what was measured with the one serves for the other, if the sample did not move."""
MARK: Final = 16
"""Digits of a hash that tell one network or adapter from another."""
Weights = Mapping[str, float]
Picture = NDArray[np.float32]


class Contender:
    """An estimator with its adapters, by their labels and in the labels' order.

    `marks` say which adapters these are, and by `clean` which backbone. What was measured is put into `measured` and
    looked up there.
    """

    def __init__(
        self,
        backbone: Backbone,
        estimator: Estimator,
        adapters: Mapping[str, Adapter],
        marks: Mapping[str, str],
        measured: Measured,
    ) -> None:
        self.estimator, self._marks, self._measured = estimator, marks, measured
        self._names = (*adapters, CLEAN)
        blender = Blender(backbone, list(adapters.values()))
        # many samples are restored with the same weights: by the bare backbone, by the Oracle
        self._network = lru_cache(maxsize=4)(lambda weights: blender.blend(weights[:-1], keep=weights[-1]))

    def weights(self, samples: Sequence[HeldOut]) -> list[dict[str, float]]:
        """What the estimator says of each sample, over its labels."""
        if not samples:
            return []
        with torch.inference_mode():
            spreads = self.estimator.predict_weights(torch.stack([sample.seen for sample in samples])).tolist()
        return [dict(zip(self.estimator.labels, spread, strict=True)) for spread in spreads]

    def restore(self, sample: HeldOut, weights: Weights) -> Picture:
        """The sample's part restored with these weights: (S, S, 3), rounded to 8 bits."""
        network = self._network(tuple(weights.get(label, 0.0) for label in self._names))
        with torch.inference_mode():
            return pixels(to_8_bit(network(sample.degraded[None], sample.view)[0]))

    def score(self, sample: HeldOut, weights: Weights) -> Scores:
        """What restoring the sample's part with these weights gives."""
        what, named = self._restored(sample), self._named(weights)
        if (known := self._measured.find(what, named)) is not None:
            return known
        used = {label: round(weight, 2) for label, weight in weights.items() if round(weight, 2)}
        return self._measured.note(what, named, _scores(self.restore(sample, used), pixels(sample.clean)))

    def level(self, sample: HeldOut, weights: Weights) -> tuple[float, Scores | None]:
        """What was measured with the nearest weights, behind how far away these are."""
        what = self._restored(sample)
        away, named = self._measured.nearest(what, self._named(weights)) or (float("inf"), {})
        return away, self._measured.find(what, named)

    def damage(self, sample: HeldOut) -> Scores:
        """What no restoring at all gives."""
        what = f"{sample.mark} as it is"
        known = self._measured.find(what, {})
        return known or self._measured.note(what, {}, _scores(pixels(sample.degraded), pixels(sample.clean)))

    def drift(self, weights: Weights, other: Contender, others: Weights) -> float:
        """How far these weights are from those of another contender, 0 to 2.

        A weight is named by its adapter, not by a label, so that another adapter is another weight.
        """
        return distance(self._named(weights), other._named(others))

    def _restored(self, sample: HeldOut) -> str:
        return f"{sample.mark} by {self._marks[CLEAN][:MARK]}"

    def _named(self, weights: Weights) -> Named:
        rounded = {self._marks.get(label, label)[:MARK]: round(weight, 2) for label, weight in weights.items()}
        return {mark: weight for mark, weight in sorted(rounded.items()) if weight}


@dataclass(frozen=True)
class Evaluation:
    """The report, and for each of its groups the samples and the weights that the challenger gave them."""

    report: Report
    samples: dict[str, list[HeldOut]]
    weights: dict[str, list[dict[str, float]]]


def evaluate(
    challenger: Contender, champion: Contender | None, samples: Sequence[HeldOut], new: Sequence[str]
) -> Evaluation:
    """Restore the samples whose labels the challenger knows, and the same ones by the champion, by what it knows."""
    known = [sample for sample in samples if set(sample.labels) <= set(challenger.estimator.labels)]
    said = challenger.weights(known)
    before = champion.weights(known) if champion is not None else [None] * len(known)
    unmoved = _unmoved(challenger, champion, known, said, before, new)
    sorted_out: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, sample in enumerate(known):
        sorted_out[sample.labels].append(place)
    groups = []
    for labels, places in sorted_out.items():
        rows = [
            _ways(challenger, champion, known[place], said[place], before[place], unmoved.get(place))
            for place in places
        ]
        groups.append(
            Group(
                labels=labels,
                psnr={way: tuple(row[way][0] for row in rows) for way in rows[0]},
                ssim={way: tuple(row[way][1] for row in rows) for way in rows[0]},
                top=tuple(_top(said[place]) for place in places),
            )
        )
    by_name = {group.name: sorted_out[group.labels] for group in groups}
    return Evaluation(
        Report(new=tuple(new), groups=tuple(groups)),
        {name: [known[place] for place in places] for name, places in by_name.items()},
        {name: [said[place] for place in places] for name, places in by_name.items()},
    )


def _unmoved(
    challenger: Contender,
    champion: Contender | None,
    samples: Sequence[HeldOut],
    said: Sequence[Weights],
    before: Sequence[Weights | None],
    new: Sequence[str],
) -> dict[int, Scores]:
    """What those samples are restored to, by place, that count as not moved: all but the `BUDGET` that moved most."""
    if champion is None:
        return {}
    live = set(champion.estimator.labels) - set(new)
    old = {
        place: then
        for place, (sample, then) in enumerate(zip(samples, before, strict=True))
        if then is not None and live.issuperset(sample.labels)
    }
    moved = sorted(old, key=lambda place: -challenger.drift(said[place], champion, old[place]))
    levels = {place: champion.level(samples[place], old[place]) for place in moved[BUDGET:]}
    stale = sorted((place for place in levels if levels[place][0] > NEAR), key=lambda place: -levels[place][0])
    again = set(stale[:BUDGET])
    return {
        place: champion.score(samples[place], old[place]) if known is None or place in again else known
        for place, (_, known) in levels.items()
    }


def _ways(
    challenger: Contender,
    champion: Contender | None,
    sample: HeldOut,
    said: Weights,
    before: Weights | None,
    unmoved: Scores | None,
) -> dict[Way, Scores]:
    ways: dict[Way, Scores] = {
        "input": challenger.damage(sample),
        "backbone": challenger.score(sample, {}),
        "OH": challenger.score(sample, {_top(said): 1.0}),
        "Oracle": challenger.score(sample, {label: 1 / len(sample.labels) for label in sample.labels}),
    }
    if champion is not None and before is not None:
        ways["champion"] = unmoved or champion.score(sample, before)
    ways["SW"] = unmoved or challenger.score(sample, said)
    return ways


def _top(said: Weights) -> str:
    return max(said, key=said.__getitem__)


def _scores(restored: Picture, clean: Picture) -> Scores:
    return psnr(restored, clean), ssim(restored, clean)


def pixels(image: torch.Tensor) -> Picture:
    """An image (3, H, W) as (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()  # type: ignore[no-any-return,unused-ignore]
