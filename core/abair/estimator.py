"""The estimator: looks at a photo and weights the labels (degradations and `clean`).

A trunk turns the views into features, a head turns features into one logit a label (Serrano-Lozano et al., section 3.3;
its design there is unpublished, this one is ours). The views are sixteen native-resolution crops and one small global
view, so the cost does not grow with the photo. Features are small enough to be kept: a new label needs a new head only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from abair.backbone import freeze
from abair.errors import DeploymentError
from abair.tensorfile import read_header, read_tensors, write_tensors

_LOCAL: Final = (24, 48, 64, 96)
_OVERALL: Final = (24, 48, 64)
FEATURES: Final = 4 * _LOCAL[-1] + 2 * _OVERALL[-1]
"""Length of a photo's feature vector."""


class Trunk(nn.Module):
    """Views to features: one small convolutional network for the crops, one for the global view."""

    def __init__(self) -> None:
        super().__init__()
        self.local = _network(6, _LOCAL)
        self.overall = _network(3, _OVERALL)

    def forward(self, crops: Tensor, view: Tensor) -> Tensor:
        """(B, N, 3, 64, 64) and (B, 3, 64, 64) to (B, 512), however many crops there are.

        A crop is told by mean and maximum, because a few thin streaks drown in a mean; the crops together by mean and
        spread, because haze, rain and blur may cover a part of the photo only.
        """
        batch, count = crops.shape[:2]
        flat = crops.flatten(0, 1)
        # what a 3x3 mean does not explain is where noise and compression show
        detail = 8 * (flat - nn.functional.avg_pool2d(flat, 3, stride=1, padding=1, count_include_pad=False))
        local = _mean_and_maximum(self.local(torch.cat([flat - 0.5, detail], dim=1))).view(batch, count, -1)
        overall = _mean_and_maximum(self.overall(view - 0.5))
        return torch.cat([local.mean(1), (local.var(1, correction=0) + 1e-6).sqrt(), overall], dim=1)


class Estimator(nn.Module):
    """Trunk and head over a fixed order of labels."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.trunk = Trunk()
        self.head = nn.Sequential(
            nn.LayerNorm(FEATURES), nn.Linear(FEATURES, 96), nn.GELU(), nn.Linear(96, len(self.labels))
        )

    def forward(self, crops: Tensor, view: Tensor) -> Tensor:
        """Logits (B, L)."""
        return self.head(self.trunk(crops, view))  # type: ignore[no-any-return]

    def restricted(self, labels: Sequence[str]) -> Estimator:
        """This estimator for some of its labels, in their order here: the softmax shares out what the others had.

        Raises:
            DeploymentError: a label is unknown, or the order is another.
        """
        kept = [label for label in self.labels if label in labels]
        if kept != list(labels):
            raise DeploymentError(f"estimator: found labels {list(self.labels)}, expected {list(labels)} among them")
        rows = [self.labels.index(label) for label in kept]
        state = self.state_dict()
        last = f"head.{len(self.head) - 1}."
        state |= {name: tensor[rows] for name, tensor in state.items() if name.startswith(last)}
        smaller = Estimator(kept)
        smaller.load_state_dict(state)
        freeze(smaller)
        return smaller

    @torch.inference_mode()
    def weights(self, crops: Tensor, view: Tensor) -> list[float]:
        """The softmax over the labels for one photo: views (N, 3, 64, 64) and (1, 3, 64, 64) to L weights."""
        return self(crops[None], view)[0].softmax(0).tolist()  # type: ignore[no-any-return]


def _network(channels: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GELU()]
        channels = width
    return nn.Sequential(*layers)


def _mean_and_maximum(maps: Tensor) -> Tensor:
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


def one_hot(weights: Sequence[float]) -> list[float]:
    """The arg-max policy: 1 for the largest weight, 0 for the others."""
    largest = max(range(len(weights)), key=weights.__getitem__)
    return [float(index == largest) for index in range(len(weights))]


def save_estimator(estimator: Estimator, path: Path) -> None:
    """Write the estimator with its labels."""
    write_tensors(path, estimator.state_dict(), {"abair.estimator": json.dumps({"labels": estimator.labels})})


def load_estimator(path: Path, labels: Sequence[str]) -> Estimator:
    """Read an estimator for `labels`; frozen.

    Raises:
        DeploymentError: no estimator, one for other labels or another order, or tensors that do not fit.
    """
    description = read_header(path).metadata.get("abair.estimator")
    try:
        found = tuple(json.loads(description or "")["labels"])
    except (ValueError, KeyError, TypeError):
        raise DeploymentError(
            f"{path}: found no estimator; expected a file written by `abair train estimator`; name another"
        ) from None
    if found != tuple(labels):
        raise DeploymentError(
            f"{path}: found labels {list(found)}, expected {list(labels)} in this order; "
            "take the estimator that was trained for this deployment (abair train estimator)"
        )
    with torch.device("meta"):
        estimator = Estimator(labels)
    shapes = {name: tuple(tensor.shape) for name, tensor in estimator.state_dict().items()}
    estimator.load_state_dict(read_tensors(path, shapes), assign=True)
    freeze(estimator)
    return estimator
