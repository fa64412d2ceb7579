"""Refits the estimator for a new label on features alone: the trunk stays, the head is fitted to old and new features.

Features are numbers that a trunk made of damaged photos. Those of a release are computed once, when it comes, and kept
(*feature replay*), so a later label needs neither the older plugins nor their photos, and costs as much as an earlier.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.contract import CLEAN
from abair.errors import TrainingError
from abair.estimator import FEATURES, Estimator, Trunk
from abair.synthesis import CleanPhotos, Degrader, generator_for
from abair.tensorfile import read_header, read_tensors, write_tensors
from abair.training.estimate import look

LONGEST: Final = 416
"""Longest side in pixels of the scenes that features are made of, as in phase III."""
STEPS: Final = 600
BATCH: Final = 256
LEARNING_RATE: Final = 1e-3
MIXED: Final = 0.25
"""Share of a batch that is half one sample's features, half another's: it stands for mixtures that nobody made."""


@dataclass(frozen=True)
class Features:
    """What the trunk of this fingerprint made of N samples: `values` (N, 512), `targets` (N, L) over `labels`."""

    trunk: str
    labels: tuple[str, ...]
    values: Tensor
    targets: Tensor

    def save(self, path: Path) -> None:
        """Write them in 16 bits. Raises OSError."""
        tensors = {"values": self.values.half(), "targets": self.targets.half()}
        write_tensors(path, tensors, {"abair.features": json.dumps({"trunk": self.trunk, "labels": self.labels})})

    @classmethod
    def load(cls, path: Path) -> Features:
        """Read what `save` wrote.

        Raises:
            TrainingError: it is no such file, or damaged.
        """
        header = read_header(path, TrainingError)
        try:
            said = json.loads(header.metadata["abair.features"])
            trunk, labels, count = str(said["trunk"]), tuple(map(str, said["labels"])), header.shapes["values"][0]
        except (KeyError, ValueError, TypeError, IndexError):
            raise TrainingError(f"{path}: found no features; expected a file of a release's features") from None
        tensors = read_tensors(path, {"values": (count, FEATURES), "targets": (count, len(labels))}, TrainingError)
        return cls(trunk, labels, tensors["values"], tensors["targets"])


@torch.inference_mode()
def features_of(
    trunk: Trunk, fingerprint: str, degrader: Degrader, photos: CleanPhotos, count: int, seed: int
) -> Features:
    """Damage `count` scenes by the degrader's recipe and look at each through the trunk."""
    values, targets = [], []
    for index in range(count):
        generator = generator_for(seed, 10, index)
        sample = degrader.sample(photos.scene(generator, LONGEST), generator)
        crops, view = look(sample.degraded)
        values.append(trunk(crops[None], view)[0])
        targets.append(sample.types.mean((1, 2)))
    return Features(fingerprint, degrader.labels, torch.stack(values), torch.stack(targets))


def refit(champion: Estimator, fingerprint: str, new: Sequence[str], known: Sequence[Features], seed: int) -> Estimator:
    """The champion with `new` labels before `clean`, its head fitted to all `known` features; frozen.

    `fingerprint` is the trunk's, which stays as it is. Starts from the champion's head, which is right already for the
    old labels. The same arguments give the same estimator.

    Raises:
        TrainingError: features are another trunk's, or a label has none.
    """
    labels = (*(label for label in champion.labels if label != CLEAN), *new, CLEAN)
    for features in known:
        if features.trunk != fingerprint:
            raise TrainingError(
                f"features of {', '.join(features.labels)}: made by the trunk {features.trunk[:12]}, expected "
                f"{fingerprint[:12]}; train the whole estimator instead"
            )
    values = torch.cat([features.values for features in known])
    targets = torch.cat([_in_order(features, labels) for features in known])
    if missing := [label for position, label in enumerate(labels) if float(targets[:, position].sum()) == 0]:
        raise TrainingError(f"label {missing[0]}: found no features, expected some; train the whole estimator instead")
    estimator = _extended(champion, labels)
    generator = torch.Generator().manual_seed(seed)
    # each label is drawn as often as any other, however many samples of it there are
    weights = (targets / targets.sum(0)).sum(1)
    optimizer = torch.optim.AdamW(estimator.head.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 20, 1.5 * (1 - step / STEPS))
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        others = torch.multinomial(weights, round(MIXED * BATCH), replacement=True, generator=generator)
        x, target = values[chosen], targets[chosen]
        x[: len(others)] = (x[: len(others)] + values[others]) / 2
        target[: len(others)] = (target[: len(others)] + targets[others]) / 2
        loss = F.cross_entropy(estimator.head(x), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    estimator.eval().requires_grad_(False)
    return estimator


def _in_order(features: Features, labels: Sequence[str]) -> Tensor:
    targets = torch.zeros((len(features.targets), len(labels)))
    for position, label in enumerate(features.labels):
        if label in labels:
            targets[:, labels.index(label)] = features.targets[:, position]
    return targets


def _extended(champion: Estimator, labels: Sequence[str]) -> Estimator:
    """The champion with rows of zeros for labels that it does not know."""
    estimator = Estimator(labels)
    state = {name: tensor.clone() for name, tensor in champion.state_dict().items()}
    last = f"head.{len(champion.head) - 1}"
    rows = [labels.index(label) for label in champion.labels]
    layer = estimator.head[-1]
    assert isinstance(layer, nn.Linear)
    for name, parameter in layer.named_parameters():
        whole = torch.zeros_like(parameter)
        whole[rows] = state[f"{last}.{name}"]
        state[f"{last}.{name}"] = whole
    estimator.load_state_dict(state)
    estimator.trunk.requires_grad_(False)
    return estimator
