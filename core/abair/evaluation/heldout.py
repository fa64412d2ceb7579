"""Held-out samples restored every way by a challenger, and by the champion that it would follow: the report on both.

Weights are rounded to hundredths. That moves a restored sample by less than it takes to be seen, and then many samples
are restored alike by both and by the one before: what was measured once is looked up. Of the rest, those whose weights
moved most since they were last restored are restored, at most `BUDGET` of what is not new: the evaluation of the
fiftieth label costs what that of the sixth does.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from abair.backbone import Backbone
from abair.contract import CLEAN
from abair.estimator import Estimator
from abair.evaluation.metrics import psnr, ssim
from abair.lora import Adapter, Blender
from abair.replay import HeldOut
from abair.report import Group, Report, Way
from abair.synthesis import to_8_bit

BUDGET: Final = 48
"""Samples without a new label that are restored again; the others count as they were last measured, by both."""
Weights = Mapping[str, float]
Scores = tuple[float, float]
"""PSNR in dB and SSIM."""
Picture = NDArray[np.float32]


@dataclass
class Measured:
    """What was measured: `scores` by what was restored how, and of each sample the weights it was `last` restored by.

    In `last` a weight is named by its adapter, not by a label, so that another adapter is another weight.
    """

    scores: MutableMapping[str, Scores] = field(default_factory=dict)
    last: MutableMapping[str, dict[str, float]] = field(default_factory=dict)


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
            spreads = self.estimator.spread(torch.stack([sample.seen for sample in samples])).tolist()
        return [dict(zip(self.estimator.labels, spread, strict=True)) for spread in spreads]

    def restore(self, sample: HeldOut, weights: Weights) -> Picture:
        """The sample's part restored with these weights: (S, S, 3), rounded to 8 bits."""
        network = self._network(tuple(weights.get(label, 0.0) for label in self._names))
        with torch.inference_mode():
            return pixels(to_8_bit(network(sample.degraded[None], sample.view)[0]))

    def score(self, sample: HeldOut, weights: Weights) -> Scores:
        """What restoring the sample's part with these weights gives."""
        used = {label: round(weight, 2) for label, weight in weights.items() if round(weight, 2)}
        key = _key(sample, self._marks[CLEAN], self._named(used))
        if key not in self._measured.scores:
            self._measured.scores[key] = _scores(self.restore(sample, used), pixels(sample.clean))
        return self._measured.scores[key]

    def damage(self, sample: HeldOut) -> Scores:
        """What no restoring at all gives."""
        key = f"input {sample.mark}"
        if key not in self._measured.scores:
            self._measured.scores[key] = _scores(pixels(sample.degraded), pixels(sample.clean))
        return self._measured.scores[key]

    def soft(self, sample: HeldOut, weights: Weights) -> Scores:
        """The same by the estimator's weights, which are remembered as the sample's last."""
        self._measured.last[self._place(sample)] = self._named(weights)
        return self.score(sample, weights)

    def last(self, sample: HeldOut) -> Scores | None:
        """What the sample's last weights gave, of this or an earlier contender."""
        before = self._measured.last.get(self._place(sample))
        return None if before is None else self._measured.scores.get(_key(sample, self._marks[CLEAN], before))

    def drift(self, sample: HeldOut, weights: Weights) -> float:
        """How far these weights are from the sample's last ones: the sum of all differences, 0 to 2."""
        now, before = self._named(weights), self._measured.last.get(self._place(sample), {})
        return sum(abs(now.get(mark, 0.0) - before.get(mark, 0.0)) for mark in {*now, *before})

    def _named(self, weights: Weights) -> dict[str, float]:
        rounded = {self._marks.get(label, label): round(weight, 2) for label, weight in weights.items()}
        return {mark: weight for mark, weight in sorted(rounded.items()) if weight}

    def _place(self, sample: HeldOut) -> str:
        return f"{sample.mark} {self._marks[CLEAN]}"


@dataclass(frozen=True)
class Evaluation:
    """The report, and for each of its groups the samples and the weights that the challenger gave them."""

    report: Report
    samples: dict[str, list[HeldOut]]
    weights: dict[str, list[dict[str, float]]]


def evaluate(
    challenger: Contender, champion: Contender | None, samples: Sequence[HeldOut], new: Sequence[str]
) -> Evaluation:
    """Restore the samples whose labels the challenger knows, and the same ones by the champion, where it knows them."""
    known = [sample for sample in samples if set(sample.labels) <= set(challenger.estimator.labels)]
    said = challenger.weights(known)
    same = _left_as_they_were(challenger, champion, known, said, new)
    sorted_out: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, sample in enumerate(known):
        sorted_out[sample.labels].append(place)
    groups = []
    for labels, places in sorted_out.items():
        knows = champion is not None and set(labels) <= set(champion.estimator.labels)
        rows = [
            _ways(challenger, champion if knows else None, known[place], said[place], place in same) for place in places
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


def _left_as_they_were(
    challenger: Contender,
    champion: Contender | None,
    samples: Sequence[HeldOut],
    said: Sequence[Weights],
    new: Sequence[str],
) -> set[int]:
    """Places of the samples that are not restored again: all but the `BUDGET` whose weights moved most."""
    if champion is None:
        return set()
    moved = [
        (-challenger.drift(sample, weights), place)
        for place, (sample, weights) in enumerate(zip(samples, said, strict=True))
        if set(new).isdisjoint(sample.labels) and challenger.last(sample) is not None
    ]
    return {place for _, place in sorted(moved)[BUDGET:]}


def _ways(
    challenger: Contender, champion: Contender | None, sample: HeldOut, said: Weights, same: bool
) -> dict[Way, Scores]:
    last = challenger.last(sample) if same else None
    ways: dict[Way, Scores] = {
        "input": challenger.damage(sample),
        "backbone": challenger.score(sample, {}),
        "OH": challenger.score(sample, {_top(said): 1.0}),
        "Oracle": challenger.score(sample, {label: 1 / len(sample.labels) for label in sample.labels}),
    }
    if champion is not None:
        ways["champion"] = last or champion.score(sample, champion.weights([sample])[0])
    ways["SW"] = last or challenger.soft(sample, said)
    return ways


def _top(said: Weights) -> str:
    return max(said, key=said.__getitem__)


def _key(sample: HeldOut, backbone: str, named: Weights) -> str:
    text = "\n".join([sample.mark, backbone, *(f"{mark}={weight}" for mark, weight in named.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _scores(restored: Picture, clean: Picture) -> Scores:
    return psnr(restored, clean), ssim(restored, clean)


def pixels(image: torch.Tensor) -> Picture:
    """An image (3, H, W) as (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()  # type: ignore[no-any-return,unused-ignore]
