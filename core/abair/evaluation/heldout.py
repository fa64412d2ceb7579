"""Held-out samples restored every way by a challenger, and by the champion that it would follow: the report on both.

Weights are rounded to hundredths. That moves a restored sample by less than it takes to be seen, and then many samples
are restored alike by both and by the one before: what was measured once is looked up.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

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

Measured = MutableMapping[str, tuple[float, float]]
"""PSNR in dB and SSIM by what was restored with which weights of which adapters."""
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

    def weights(self, sample: HeldOut) -> dict[str, float]:
        """What the estimator says of a sample, over its labels."""
        with torch.inference_mode():
            spread = self.estimator.spread(sample.seen[None])[0].tolist()
        return dict(zip(self.estimator.labels, spread, strict=True))

    def restore(self, sample: HeldOut, weights: Mapping[str, float]) -> Picture:
        """The sample's part restored with these weights: (S, S, 3), rounded to 8 bits."""
        network = self._network(tuple(weights.get(label, 0.0) for label in self._names))
        with torch.inference_mode():
            return pixels(to_8_bit(network(sample.degraded[None], sample.view)[0]))

    def score(self, sample: HeldOut, weights: Mapping[str, float]) -> tuple[float, float]:
        """PSNR in dB and SSIM of the sample's part restored with these weights."""
        used = {label: round(weight, 2) for label, weight in sorted(weights.items()) if round(weight, 2)}
        said = [
            sample.mark,
            self._marks[CLEAN],
            *(f"{self._marks.get(label, label)}={weight}" for label, weight in used.items()),
        ]
        key = hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]
        if key not in self._measured:
            self._measured[key] = _scores(self.restore(sample, used), pixels(sample.clean))
        return self._measured[key]


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
    groups, weights = [], {}
    sorted_out: dict[str, list[HeldOut]] = defaultdict(list)
    for sample in samples:
        if set(sample.labels) <= set(challenger.estimator.labels):
            sorted_out[" + ".join(sample.labels)].append(sample)
    for name, members in sorted_out.items():
        weights[name] = [challenger.weights(sample) for sample in members]
        knows = champion is not None and set(members[0].labels) <= set(champion.estimator.labels)
        rows = [
            _ways(challenger, champion if knows else None, sample, said)
            for sample, said in zip(members, weights[name], strict=True)
        ]
        groups.append(
            Group(
                labels=members[0].labels,
                psnr={way: tuple(row[way][0] for row in rows) for way in rows[0]},
                ssim={way: tuple(row[way][1] for row in rows) for way in rows[0]},
                top=tuple(max(said, key=said.__getitem__) for said in weights[name]),
            )
        )
    return Evaluation(Report(new=tuple(new), groups=tuple(groups)), dict(sorted_out), weights)


def _ways(
    challenger: Contender, champion: Contender | None, sample: HeldOut, said: dict[str, float]
) -> dict[Way, tuple[float, float]]:
    top = max(said, key=said.__getitem__)
    ways: dict[Way, tuple[float, float]] = {
        "input": _scores(pixels(sample.degraded), pixels(sample.clean)),
        "backbone": challenger.score(sample, {}),
        "OH": challenger.score(sample, {top: 1.0}),
        "SW": challenger.score(sample, said),
        "Oracle": challenger.score(sample, {label: 1 / len(sample.labels) for label in sample.labels}),
    }
    if champion is not None:
        ways["champion"] = champion.score(sample, champion.weights(sample))
    return ways


def _scores(restored: Picture, clean: Picture) -> tuple[float, float]:
    return psnr(restored, clean), ssim(restored, clean)


def pixels(image: torch.Tensor) -> Picture:
    """An image (3, H, W) as (H, W, 3)."""
    return image.permute(1, 2, 0).numpy()  # type: ignore[no-any-return,unused-ignore]
