"""Refits the estimator for a new label on features alone: the head is fitted to old and new features.

Features are numbers that the frozen backbone made of damaged photos. Those of a release are computed once, when it
comes, and kept (*feature replay*), so a later label needs neither the older plugins nor their photos, and costs as much
as an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from abair.backbone import Backbone, fingerprint, freeze
from abair.contract import CLEAN
from abair.errors import TrainingError
from abair.estimator import Estimator
from abair.synthesis import CleanPhotos, Degrader, generator_for
from abair.tensorfile import read_header, read_tensors, write_tensors
from abair.training.estimate import seen_in

LONGEST: Final = 512
"""Longest side in pixels of the scenes that features are made of, as in phase III."""
STEPS: Final = 600
BATCH: Final = 256
LEARNING_RATE: Final = 1e-3
MIXED: Final = 0.25
"""Share of a batch that is half one sample's features, half another's: it stands for mixtures that nobody made."""


@dataclass(frozen=True)
class Features:
    """What the backbone of this fingerprint made of N samples: `values` (N, F), `targets` (N, L) over `labels`."""

    backbone: str
    labels: tuple[str, ...]
    values: Tensor
    targets: Tensor

    def save(self, path: Path) -> None:
        """Write them in 16 bits. Raises OSError."""
        tensors = {"values": self.values.half(), "targets": self.targets.half()}
        write_tensors(path, tensors, {"abair.features": json.dumps({"backbone": self.backbone, "labels": self.labels})})

    @classmethod
    def load(cls, path: Path) -> Features:
        """Read what `save` wrote.

        Raises:
            TrainingError: it is no such file, or damaged.
        """
        header = read_header(path, TrainingError)
        try:
            said = json.loads(header.metadata["abair.features"])
            backbone, labels = str(said["backbone"]), tuple(map(str, said["labels"]))
            count, features = header.shapes["values"]
        except (KeyError, ValueError, TypeError, IndexError):
            raise TrainingError(f"{path}: found no features; expected a file of a release's features") from None
        tensors = read_tensors(path, {"values": (count, features), "targets": (count, len(labels))}, TrainingError)
        return cls(backbone, labels, tensors["values"], tensors["targets"])


def features_of(backbone: Backbone, degrader: Degrader, photos: CleanPhotos, count: int, seed: int) -> Features:
    """Damage `count` scenes by the degrader's recipe and look at each through the backbone."""
    values, targets = [], []
    for index in range(count):
        generator = generator_for(seed, 10, index)
        sample = degrader.sample(photos.scene(generator, LONGEST), generator)
        values.append(seen_in(backbone, sample.degraded).float().mean(0))
        targets.append(sample.types.mean((1, 2)))
    return Features(fingerprint(backbone), degrader.labels, torch.stack(values), torch.stack(targets))


def refit(champion: Estimator, backbone: str, new: Sequence[str], known: Sequence[Features], seed: int) -> Estimator:
    """The champion with `new` labels before `clean`, fitted to all `known` features of the `backbone`; frozen.

    Starts from the champion, which is right already for the old labels. The same arguments give the same estimator.

    Raises:
        TrainingError: features are another backbone's, or a label has none.
    """
    labels = (*(label for label in champion.labels if label != CLEAN), *new, CLEAN)
    for features in known:
        if features.backbone != backbone:
            raise TrainingError(
                f"features of {', '.join(features.labels)}: made by backbone {features.backbone[:12]}, expected "
                f"{backbone[:12]}; train the estimator anew"
            )
    values = torch.cat([features.values for features in known])
    targets = torch.cat([_in_order(features, labels) for features in known])
    if missing := [label for position, label in enumerate(labels) if float(targets[:, position].sum()) == 0]:
        raise TrainingError(f"label {missing[0]}: found no features, expected some; train the estimator anew")
    estimator = champion.rearranged(labels).requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    # each label is drawn as often as any other, however many samples of it there are
    weights = (targets / targets.sum(0)).sum(1)
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 20, 1.5 * (1 - step / STEPS))
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        others = torch.multinomial(weights, round(MIXED * BATCH), replacement=True, generator=generator)
        x, target = values[chosen], targets[chosen]
        x[: len(others)] = (x[: len(others)] + values[others]) / 2
        target[: len(others)] = (target[: len(others)] + targets[others]) / 2
        loss = F.cross_entropy(estimator(x), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    freeze(estimator)
    return estimator


def _in_order(features: Features, labels: Sequence[str]) -> Tensor:
    targets = torch.zeros((len(features.targets), len(labels)))
    for position, label in enumerate(features.labels):
        if label in labels:
            targets[:, labels.index(label)] = features.targets[:, position]
    return targets
