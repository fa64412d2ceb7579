"""Compares a challenger with the champion that it would follow: both restore held-out samples.

Scores are cached. For the cache, weights are rounded to hundredths: that changes a restored sample
invisibly, and then many samples are restored alike by both.

All samples are looked at, which costs nothing, because their features are kept. Few are restored:
the first of each kind, and more of a kind while they leave open whether it loses, or while the
weights of others moved.

The cost of an evaluation does not grow with the number of labels. Of the first samples without a
new label, both restore the `BUDGET` whose weights moved farthest from the champion's, and more if
more moved. The others count as no better and no worse than before: with both, they get the cached
scores of the nearest weights. At most as many of those cached scores, the ones with the farthest
weights, are renewed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from abair.continual.replay import HeldOut
from abair.continual.score_cache import NamedWeights, ScoreCache, Scores, distance
from abair.data.degrade import to_8_bit
from abair.labels import CLEAN
from abair.metrics import psnr, ssim
from abair.model.backbone import Backbone
from abair.model.estimator import Estimator, extract_image_features
from abair.model.lora import Adapter, Blender
from abair.report import Group, Report, Way

BUDGET: Final = 32
"""Samples without a new label that challenger and champion restore; the others count as unmoved."""
FIRST: Final = 12
"""Samples of a kind that are restored at first; of a mixture half as many."""
FURTHER: Final = 160
"""Samples more that are restored at most, of all kinds together."""
NEAR: Final = 0.1
"""Distance of weights up to which cached scores serve for an unmoved sample."""
DIGEST_LENGTH: Final = 16
"""Digits of a hash that identify a network or adapter in the cache."""

Weights = Mapping[str, float]
Picture = NDArray[np.float32]


class Contender:
    """An estimator and the adapters of its labels, in the labels' order.

    `digests` identify the adapters by label, and the backbone by `clean`. Scores are looked up in
    the `cache` and added to it. The weights follow from the samples' features, which one backbone
    computed; contenders with two backbones each look at the sample's part (`looks`).
    """

    def __init__(
        self,
        backbone: Backbone,
        estimator: Estimator,
        adapters: Mapping[str, Adapter],
        digests: Mapping[str, str],
        cache: ScoreCache,
        *,
        looks: bool = False,
    ) -> None:
        self.estimator, self._digests, self._cache = estimator, digests, cache
        self._backbone, self._looks = backbone, looks
        self._names = (*adapters, CLEAN)
        blender = Blender(backbone, list(adapters.values()))
        # many samples share their weights: those of the bare backbone, those of the Oracle
        self._network = lru_cache(maxsize=4)(lambda weights: blender.blend(weights[:-1], keep=weights[-1]))

    def weights(self, samples: Sequence[HeldOut]) -> list[dict[str, float]]:
        """Return the estimator's weights for each sample, by label."""
        if not samples:
            return []
        with torch.inference_mode():
            features = torch.stack([self._features(sample) for sample in samples])
            rows = self.estimator.predict_weights(features).tolist()
        return [dict(zip(self.estimator.labels, row, strict=True)) for row in rows]

    def _features(self, sample: HeldOut) -> torch.Tensor:
        if not self._looks:
            return sample.features
        return extract_image_features(self._backbone, sample.degraded).float().mean(0)

    def restore(self, sample: HeldOut, weights: Weights) -> Picture:
        """Restore the sample's part with these weights: (S, S, 3) in [0, 1], rounded to 8 bits."""
        network = self._network(tuple(weights.get(label, 0.0) for label in self._names))
        with torch.inference_mode():
            return to_picture(to_8_bit(network(sample.degraded[None], sample.view)[0]))

    def score(self, sample: HeldOut, weights: Weights) -> Scores:
        """Return the scores of the sample's part restored with these weights."""
        key, named = self._key(sample), self._named(weights)
        if (known := self._cache.find(key, named)) is not None:
            return known
        rounded = {label: round(weight, 2) for label, weight in weights.items() if round(weight, 2)}
        return self._cache.add(key, named, _compute_scores(self.restore(sample, rounded), to_picture(sample.clean)))

    def nearest_score(self, sample: HeldOut, weights: Weights) -> tuple[float, Scores | None]:
        """Return the distance to the nearest weights with cached scores, and the scores.

        Without any, these are infinity and None.
        """
        key = self._key(sample)
        away, named = self._cache.nearest(key, self._named(weights)) or (float("inf"), {})
        return away, self._cache.find(key, named)

    def input_score(self, sample: HeldOut) -> Scores:
        """Return the scores of the sample's part without any restoration."""
        key = f"{sample.digest} as it is"
        known = self._cache.find(key, {})
        return known or self._cache.add(key, {}, _compute_scores(to_picture(sample.degraded), to_picture(sample.clean)))

    def drift(self, weights: Weights, other: Contender, other_weights: Weights) -> float:
        """Return the distance of these weights from those of another contender, 0 to 2.

        A weight is named by its adapter, not by its label, so another adapter is another weight.
        """
        return distance(self._named(weights), other._named(other_weights))

    def _key(self, sample: HeldOut) -> str:
        return f"{sample.digest} by {self._digests[CLEAN][:DIGEST_LENGTH]}"

    def _named(self, weights: Weights) -> NamedWeights:
        rounded = {
            self._digests.get(label, label)[:DIGEST_LENGTH]: round(weight, 2) for label, weight in weights.items()
        }
        return {digest: weight for digest, weight in sorted(rounded.items()) if weight}


@dataclass(frozen=True)
class Evaluation:
    """The report, and for each of its groups the restored samples and the challenger's weights."""

    report: Report
    samples: dict[str, list[HeldOut]]
    weights: dict[str, list[dict[str, float]]]


def evaluate(
    challenger: Contender,
    champion: Contender | None,
    samples: Sequence[HeldOut],
    new: Sequence[str],
    *,
    find_open: Callable[[Report], Collection[str]] = lambda _: (),
    first: int = FIRST,
    further: int = FURTHER,
    budget: int = BUDGET,
    near: float = NEAR,
) -> Evaluation:
    """Look at the samples whose labels the challenger knows, and score restored ones.

    `find_open` names the groups of a report that leave something open. Of those, twice as many
    samples are restored as before, until nothing is open or all are restored. `further` samples are
    restored at most beyond the first and the `budget` of old ones that moved.
    """
    known = [sample for sample in samples if set(sample.labels) <= set(challenger.estimator.labels)]
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, sample in enumerate(known):
        places[sample.labels].append(place)
    weights = challenger.weights(known)
    before = champion.weights(known) if champion is not None else None
    comparison = _Comparison(challenger, champion, known, weights, before, frozenset(new), near)
    taken = {labels: min(len(found), first if len(labels) == 1 else -(-first // 2)) for labels, found in places.items()}
    looked = [place for labels, count in taken.items() for place in places[labels][:count]]
    beyond = min(further, max(0, sum(map(comparison.has_moved, looked)) - budget))
    comparison.score(looked, budget + beyond)
    further -= beyond
    while True:
        groups = [comparison.group(labels, found, taken[labels]) for labels, found in places.items()]
        report = Report(new=tuple(new), groups=tuple(groups))
        wanted = set(find_open(report))
        added: list[int] = []
        for group in groups:
            found, count = places[group.labels], taken[group.labels]
            if group.name in wanted or any(map(comparison.has_moved, found[count:])):
                more = min(2 * count, len(found), count + further - len(added))
                added += found[count:more]
                taken[group.labels] = more
        if not added:
            break
        further -= len(added)
        comparison.score(added, len(added))
    shown = {group.name: places[group.labels][: group.count] for group in groups}
    return Evaluation(
        report,
        {name: [known[place] for place in found] for name, found in shown.items()},
        {name: [weights[place] for place in found] for name, found in shown.items()},
    )


@dataclass
class _Comparison:
    """All samples with the weights by challenger and champion, and the scores of restored ones."""

    challenger: Contender
    champion: Contender | None
    samples: Sequence[HeldOut]
    weights: Sequence[Weights]
    before: Sequence[Weights] | None
    new: frozenset[str]
    near: float
    rows: dict[int, dict[Way, Scores]] = field(default_factory=dict)

    def has_moved(self, place: int) -> bool:
        """Tell whether the weights of an old sample are no longer near the champion's."""
        return self._is_old(place) and self._drift(place) > self.near

    def score(self, places: Sequence[int], budget: int) -> None:
        """Score samples; of the old ones, the `budget` that moved most are restored anew."""
        unmoved = self._find_unmoved(places, budget)
        for place in places:
            self.rows[place] = self._score_ways(place, unmoved.get(place))

    def group(self, labels: tuple[str, ...], places: Sequence[int], count: int) -> Group:
        """Return the group of samples, of which the first `count` were scored."""
        rows = [self.rows[place] for place in places[:count]]
        return Group(
            labels=labels,
            psnr={way: tuple(row[way][0] for row in rows) for way in rows[0]},
            ssim={way: tuple(row[way][1] for row in rows) for way in rows[0]},
            top=tuple(_likeliest(self.weights[place]) for place in places),
            strength=tuple(
                self.challenger.input_score(self.samples[place])[0] for place in places if self.new.issuperset(labels)
            ),
        )

    def _is_old(self, place: int) -> bool:
        if self.champion is None:
            return False
        return (set(self.champion.estimator.labels) - self.new).issuperset(self.samples[place].labels)

    def _drift(self, place: int) -> float:
        if self.champion is None or self.before is None:
            return 0.0
        return self.challenger.drift(self.weights[place], self.champion, self.before[place])

    def _find_unmoved(self, places: Sequence[int], budget: int) -> dict[int, Scores]:
        """Return the scores, by place, of the samples that count as unmoved.

        These are all old ones but the `budget` that moved most. As many cached scores are renewed
        at most, those with the farthest weights beyond `near` first.
        """
        champion, before = self.champion, self.before
        if champion is None or before is None:
            return {}
        moved = sorted(filter(self._is_old, places), key=lambda place: -self._drift(place))
        nearest = {place: champion.nearest_score(self.samples[place], before[place]) for place in moved[budget:]}
        stale = sorted((place for place in nearest if nearest[place][0] > self.near), key=lambda p: -nearest[p][0])
        renewed = set(stale[:budget])
        return {
            place: champion.score(self.samples[place], before[place]) if scores is None or place in renewed else scores
            for place, (_, scores) in nearest.items()
        }

    def _score_ways(self, place: int, unmoved: Scores | None) -> dict[Way, Scores]:
        """Score a sample in every way of the report."""
        challenger, sample, weights = self.challenger, self.samples[place], self.weights[place]
        ways: dict[Way, Scores] = {
            "input": challenger.input_score(sample),
            "backbone": challenger.score(sample, {}),
            "OH": challenger.score(sample, {_likeliest(weights): 1.0}),
            "Oracle": challenger.score(sample, {label: 1 / len(sample.labels) for label in sample.labels}),
        }
        if self.champion is not None and self.before is not None:
            ways["champion"] = unmoved or self.champion.score(sample, self.before[place])
        ways["SW"] = unmoved or challenger.score(sample, weights)
        return ways


def to_picture(image: torch.Tensor) -> Picture:
    """Convert an image (3, H, W) to an array (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()  # type: ignore[no-any-return,unused-ignore]


def _likeliest(weights: Weights) -> str:
    return max(weights, key=weights.__getitem__)


def _compute_scores(restored: Picture, clean: Picture) -> Scores:
    return psnr(restored, clean), ssim(restored, clean)
