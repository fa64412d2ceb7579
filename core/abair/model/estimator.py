"""The estimator: weights for a photo's labels (degradations, `clean`) from backbone features.

Sixteen crops at native resolution and one small global view go through the frozen backbone. Its
features show what is wrong with a photo, because they were trained to undo it and to name it
(Serrano-Lozano et al., section 3.1). Statistics of quantisation and JPEG blocks are added
(`abair.model.compression_features`). A small head turns both into one logit per label (section 3.3;
the design of that head is unpublished, this one is ours). The cost does not grow with the photo,
and a new label needs only a new head.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from abair.errors import DeploymentError
from abair.model import compression_features
from abair.model.backbone import Backbone, BackboneSize, freeze
from abair.model.confidence import label_probabilities
from abair.model.familiarity import Familiarity
from abair.model.look import look_at
from abair.model.safetensors_io import read_header, read_tensors, write_tensors

HIDDEN: Final = 96
"""Hidden units of a newly trained estimator; `abair.continual.refit` may add more for a new
label."""
SMALLEST_DEVIATION: Final = 1e-3
"""Least standard deviation that a feature is divided by; one below it hardly varies."""
CONFIDENCE: Final = "confidence_temperature"
CONFIDENCE_PAIRS: Final = "confidence_pairs"
BEFORE_PAIRS: Final = -1.0
"""`confidence_pairs` of an estimator whose temperature was chosen for its largest softmax."""
LATER: Final = {CONFIDENCE: 0.0, CONFIDENCE_PAIRS: BEFORE_PAIRS}
"""What files of earlier estimators lack, and what stands for it."""
KNOWN: Final = "known"
"""The part with `abair.model.familiarity`, which files of earlier estimators lack."""
FACTOR: Final = f"{KNOWN}.factor"
"""Its large tensor, which files hold in 16 bits."""
FIRST, LAST = "head.1", "head.3"
"""The head's linear layers, as its file names them."""


def feature_count(size: BackboneSize) -> int:
    """Return the length F of a photo's feature vector: see `extract_features`."""
    encoder = size.width * ((1 << len(size.encoder)) - 1)  # the sum of its levels' widths
    return 3 * (encoder + size.width) + compression_features.STATISTICS + size.context


def extract_features(backbone: Backbone, crops: Tensor, view: Tensor) -> Tensor:
    """Return the features (N, F) of crops (N, 3, 64, 64) and a global view (1, 3, 64, 64).

    A row holds the mean, maximum and standard deviation of each channel of the encoder's features
    and the decoder's last ones; the maximum, because a mean hides a few thin streaks. The
    compression statistics of the crop and the context, the same in each row, follow. The features
    of a photo are the mean of its rows.
    """
    context = backbone.context(view)
    maps: list[Tensor] = []
    crops = crops.contiguous(memory_format=torch.channels_last)
    maps.append(backbone.features(crops, context.expand(len(crops), -1), maps))
    statistics = [values for x in maps for values in _statistics(x)]
    return torch.cat([*statistics, compression_features.statistics(crops), context.expand(len(crops), -1)], dim=1)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, maximum and standard deviation (B, C) of each channel of (B, C, H, W).

    The deviation from the mean is written out: torch's `std` takes ten times as long.
    """
    mean = x.mean((2, 3), keepdim=True)
    variance = (x - mean).square().sum((2, 3)) / (x.shape[2] * x.shape[3] - 1)
    return mean[..., 0, 0], x.amax((2, 3)), variance.sqrt()


@torch.inference_mode()
def extract_image_features(backbone: Backbone, image: Tensor) -> Tensor:
    """Return the features (16, F) float16 of an image (3, H, W) in [0, 1], one row a crop."""
    rows: Tensor = extract_features(backbone, *look_at(image.permute(1, 2, 0).numpy(), backbone.size)).half()
    return rows


class Estimate(NamedTuple):
    """Weights over the labels, and how much of them lies on true labels, as expected, in [0, 1].

    The confidence is None if it was never calibrated. `unknown` is the part of known photos that
    are more like what was learnt, in [0, 1]; None if the estimator does not know.
    """

    weights: list[float]
    confidence: float | None
    unknown: float | None


class Estimator(nn.Module):
    """The head over a fixed order of labels, for feature vectors of length `features`.

    The weights are the softmax of the logits divided by `temperature`, which training leaves at 1;
    the confidence rests on `confidence_temperature`, which is 0 until it is calibrated, and
    `confidence_pairs`, the odds of two labels together (see `abair.model.confidence`). `known`
    tells what is unlike all that was learnt; None where nothing was kept of it.
    """

    temperature: Tensor
    confidence_temperature: Tensor
    confidence_pairs: Tensor

    def __init__(self, labels: Sequence[str], features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        for name in LATER:
            self.register_buffer(name, torch.zeros(()))
        self.known: Familiarity | None = None
        self.labels, self.features, self.hidden = tuple(labels), features, hidden
        self.head = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, len(self.labels))
        )

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features (B, F) to logits (B, L); a `mask` (B, H) multiplies the hidden units."""
        norm, first, activation, last = self.head
        hidden = activation(first(norm(features)))
        return last(hidden if mask is None else hidden * mask)  # type: ignore[no-any-return]

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Bring what the first linear layer is given to mean 0 and variance 1 over features (N, F).

        Channels of the backbone differ in scale by orders of magnitude. Left as they are, a few of
        them decide what is learnt first, and weight decay takes away the others.
        """
        norm: nn.LayerNorm = self.head[0]  # type: ignore[assignment]
        values = F.layer_norm(features, norm.normalized_shape, eps=norm.eps)
        deviation = values.std(0).clamp_min(SMALLEST_DEVIATION)
        norm.weight.copy_(1 / deviation)
        norm.bias.copy_(-values.mean(0) / deviation)

    def with_labels(self, labels: Sequence[str]) -> Estimator:
        """Return a frozen copy for other labels, in their order.

        Labels that this estimator lacks get the logit 0; labels that are not named are dropped.
        """
        other = Estimator(labels, self.features, self.hidden)
        other.known = self.known
        state = self.state_dict()
        for name in (f"{LAST}.{kind}" for kind in ("weight", "bias")):
            given = dict(zip(self.labels, state[name], strict=True))
            state[name] = torch.stack([given.get(label, torch.zeros_like(state[name][0])) for label in labels])
        other.load_state_dict(state)
        freeze(other)
        return other

    def with_hidden_units(self, weight: Tensor, bias: Tensor) -> Estimator:
        """Return a frozen copy with more hidden units of weight (U, F) and bias (U,).

        Their output weights are 0, so the copy gives the same logits.
        """
        other = Estimator(self.labels, self.features, self.hidden + len(weight))
        other.known = self.known
        state = self.state_dict()
        state[f"{FIRST}.weight"] = torch.cat([state[f"{FIRST}.weight"], weight])
        state[f"{FIRST}.bias"] = torch.cat([state[f"{FIRST}.bias"], bias])
        unused = torch.zeros(len(self.labels), len(weight))
        state[f"{LAST}.weight"] = torch.cat([state[f"{LAST}.weight"], unused], dim=1)
        other.load_state_dict(state)
        freeze(other)
        return other

    def predict_weights(self, features: Tensor) -> Tensor:
        """Map features (B, F) to weights over the labels (B, L); each row sums to 1."""
        weights: Tensor = (self(features) / self.temperature).softmax(1)
        return weights

    def confidence(self, features: Tensor) -> Tensor:
        """Map features (B, F) to how much of the weights lies on true labels, (B,) in [0, 1].

        It is the largest softmax of an estimator that was calibrated `BEFORE_PAIRS`. The confidence
        is to be calibrated.
        """
        logits: Tensor = self(features)
        temperature, pairs = float(self.confidence_temperature), float(self.confidence_pairs)
        if pairs == BEFORE_PAIRS:
            return (logits / temperature).softmax(1).amax(1)
        probabilities = label_probabilities(logits, temperature, pairs)
        return (self.predict_weights(features) * probabilities).sum(1).clamp_max(1)

    @torch.inference_mode()
    def estimate(self, backbone: Backbone, crops: Tensor, view: Tensor) -> Estimate:
        """Estimate one photo by its crops (N, 3, 64, 64) and global view (1, 3, 64, 64)."""
        features = extract_features(backbone, crops, view).float().mean(0, keepdim=True)
        return Estimate(
            self.predict_weights(features)[0].tolist(),
            float(self.confidence(features)) if self.confidence_temperature else None,
            None if self.known is None else float(self.known.unknown(features)),
        )


def one_hot(weights: Sequence[float]) -> list[float]:
    """Return 1 for the largest weight and 0 for the others: the arg-max policy."""
    largest = max(range(len(weights)), key=weights.__getitem__)
    return [float(index == largest) for index in range(len(weights))]


def save_estimator(estimator: Estimator, path: Path) -> None:
    """Write the estimator with its labels.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {name: tensor.half() if name == FACTOR else tensor for name, tensor in estimator.state_dict().items()}
    write_tensors(path, tensors, {"abair.estimator": json.dumps({"labels": estimator.labels})})


def load_estimator(path: Path, labels: Sequence[str], size: BackboneSize | None = None) -> Estimator:
    """Read an estimator for `labels` and, if `size` is given, for a backbone of that size; frozen.

    Raises:
        DeploymentError: the file holds no estimator, one for other labels, another order or size,
            or tensors that do not fit.
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
        if kept := header.shapes.get(f"{KNOWN}.distances"):
            estimator.known = Familiarity(features, kept[0])
    shapes = {name: tuple(tensor.shape) for name, tensor in estimator.state_dict().items()}
    missing = [name for name in LATER if name not in header.shapes]
    for name in missing:
        del shapes[name]
    tensors = {name: torch.tensor(LATER[name]) for name in missing} | read_tensors(path, shapes)
    estimator.load_state_dict(tensors, assign=True)
    freeze(estimator)
    return estimator
