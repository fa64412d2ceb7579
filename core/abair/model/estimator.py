"""The estimator: looks at a photo through the frozen backbone and weights the labels (degradations and `clean`).

Sixteen native-resolution crops and one small global view go through the backbone, whose features tell what is wrong
with a photo, because they were trained to undo it and to name it (Serrano-Lozano et al., section 3.1), and are asked
for the marks that files leave in their numbers (see `abair.model.compression_features`). A small head turns the
statistics of both into one logit a label (section 3.3; its design there is unpublished, this one is ours). The cost
does not grow with the photo, and a new label needs a new head only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from abair.errors import DeploymentError
from abair.model import compression_features, views
from abair.model.backbone import Backbone, BackboneSize, freeze
from abair.model.safetensors_io import read_header, read_tensors, write_tensors

HIDDEN: Final = 96
"""Hidden units of an estimator that is trained whole; with a new label it may grow (see `abair.continual.refit`)."""
FIRST, LAST = "head.1", "head.3"
"""The head's linear layers, as its file names them."""


def feature_count(size: BackboneSize) -> int:
    """Length of the feature vector of a photo: three statistics a channel looked at, the lattice's, the context."""
    encoder = size.width * ((1 << len(size.encoder)) - 1)  # the sum of its levels' widths
    return 3 * (encoder + size.width) + compression_features.STATISTICS + size.context


def look(backbone: Backbone, crops: Tensor, view: Tensor) -> Tensor:
    """What the backbone sees in the views (N, 3, 64, 64) and (1, 3, 64, 64): (N, F), one row a crop.

    Mean, maximum and deviation of the encoder's and the decoder's last features, the maximum because a few thin streaks
    drown in a mean; behind them the marks in the crop's numbers, and the context, the same in each row. A photo's
    features are the mean of its rows.
    """
    context = backbone.context(view)
    seen: list[Tensor] = []
    crops = crops.contiguous(memory_format=torch.channels_last)
    seen.append(backbone.features(crops, context.expand(len(crops), -1), seen))
    statistics = [part for maps in seen for part in (maps.mean((2, 3)), maps.amax((2, 3)), maps.std((2, 3)))]
    return torch.cat([*statistics, compression_features.statistics(crops), context.expand(len(crops), -1)], dim=1)


@torch.inference_mode()
def extract_features(backbone: Backbone, image: Tensor) -> Tensor:
    """Return the features (16, F) float16 of an image (3, H, W) in [0, 1], one row a crop."""
    pixels = image.permute(1, 2, 0).numpy()
    rows: Tensor = look(backbone, views.crops(pixels), views.whole(pixels)).half()
    return rows


class Estimator(nn.Module):
    """The head over a fixed order of labels, for photos' features of length `features`.

    The softmax of logits over `temperature` gives the weights; training leaves it 1 (see `abair.training.temperature`).
    """

    temperature: Tensor

    def __init__(self, labels: Sequence[str], features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        self.labels, self.features, self.hidden = tuple(labels), features, hidden
        self.head = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, len(self.labels))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) to logits (B, L)."""
        return self.head(features)  # type: ignore[no-any-return]

    def rearranged(self, labels: Sequence[str]) -> Estimator:
        """This estimator for other labels: of those it lacks it says nothing (logit 0), the softmax forgets the others.

        Frozen.
        """
        other = Estimator(labels, self.features, self.hidden)
        state = self.state_dict()
        for name in (f"{LAST}.{kind}" for kind in ("weight", "bias")):
            given = dict(zip(self.labels, state[name], strict=True))
            state[name] = torch.stack([given.get(label, torch.zeros_like(state[name][0])) for label in labels])
        other.load_state_dict(state)
        freeze(other)
        return other

    def grown(self, weight: Tensor, bias: Tensor) -> Estimator:
        """This estimator with more hidden units, (U, F) and (U,), to which no label listens yet: it says the same.

        Frozen.
        """
        other = Estimator(self.labels, self.features, self.hidden + len(weight))
        state = self.state_dict()
        state[f"{FIRST}.weight"] = torch.cat([state[f"{FIRST}.weight"], weight])
        state[f"{FIRST}.bias"] = torch.cat([state[f"{FIRST}.bias"], bias])
        unheard = torch.zeros(len(self.labels), len(weight))
        state[f"{LAST}.weight"] = torch.cat([state[f"{LAST}.weight"], unheard], dim=1)
        other.load_state_dict(state)
        freeze(other)
        return other

    def spread(self, features: Tensor) -> Tensor:
        """(B, F) to weights over the labels (B, L); each row sums to 1."""
        weights: Tensor = (self(features) / self.temperature).softmax(1)
        return weights

    @torch.inference_mode()
    def weights(self, backbone: Backbone, crops: Tensor, view: Tensor) -> list[float]:
        """The softmax over the labels for one photo: views (N, 3, 64, 64) and (1, 3, 64, 64) to L weights."""
        rows = look(backbone, crops, view)
        return self.spread(rows.float().mean(0, keepdim=True))[0].tolist()


def one_hot(weights: Sequence[float]) -> list[float]:
    """The arg-max policy: 1 for the largest weight, 0 for the others."""
    largest = max(range(len(weights)), key=weights.__getitem__)
    return [float(index == largest) for index in range(len(weights))]


def save_estimator(estimator: Estimator, path: Path) -> None:
    """Write the estimator with its labels."""
    write_tensors(path, estimator.state_dict(), {"abair.estimator": json.dumps({"labels": estimator.labels})})


def load_estimator(path: Path, labels: Sequence[str], size: BackboneSize | None = None) -> Estimator:
    """Read an estimator for `labels`, and if it is told for a backbone of `size`; frozen.

    Raises:
        DeploymentError: no estimator, one for other labels, another order or size, or tensors that do not fit.
    """
    header = read_header(path)
    try:
        found = tuple(json.loads(header.metadata["abair.estimator"])["labels"])
        hidden, features = header.shapes[f"{FIRST}.weight"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise DeploymentError(
            f"{path}: found no estimator; expected a file written by `abair train estimator`; name another"
        ) from None
    if found != tuple(labels):
        raise DeploymentError(
            f"{path}: found labels {list(found)}, expected {list(labels)} in this order; "
            "take the estimator that was trained for this deployment (abair train estimator)"
        )
    if size is not None and features != feature_count(size):
        raise DeploymentError(
            f"{path}: found an estimator of {features} features, expected {feature_count(size)} as the backbone "
            f"{size.name} has them; train one for it (abair train estimator)"
        )
    with torch.device("meta"):
        estimator = Estimator(labels, features, hidden)
    shapes = {name: tuple(tensor.shape) for name, tensor in estimator.state_dict().items()}
    estimator.load_state_dict(read_tensors(path, shapes), assign=True)
    freeze(estimator)
    return estimator
