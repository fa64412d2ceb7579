"""Replays: what labels leave behind for later estimators, without plugins or photos.

A *replay* holds features and held-out samples. Features are what the frozen backbone computed of
damaged photos; estimators are fitted to them (*feature replay*). Held-out samples, each with its
undamaged original, are for evaluation. A replay is made once, when a label is added. That of a
label that joined others may also hold mixtures: features of samples that show both kinds of damage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from abair.errors import TrainingError
from abair.model.backbone import GLOBAL_VIEW
from abair.model.safetensors_io import Header, read_header, read_tensors, write_tensors

WHOLE: Final = 0.99
"""Share of a sample above which it counts as all of a label."""
_DTYPES: Final = frozenset({"U8", "F16", "F32"})
_METADATA: Final = "abair.replay"


@dataclass(frozen=True)
class Features:
    """Features of N samples: `values` (N, F), `targets` (N, L) over `labels`.

    `backbone` is the fingerprint of the network that computed them. `pairs` (P, 2) are the places
    of samples that show the same scene, damaged and undamaged.
    """

    backbone: str
    labels: tuple[str, ...]
    values: Tensor
    targets: Tensor
    pairs: Tensor = field(default_factory=lambda: torch.empty((0, 2), dtype=torch.long))


@dataclass(frozen=True)
class Mixtures:
    """Features of N samples with a new label's damage over another's.

    Their targets are the blends of the two that restore best.
    `stakes` (N,) are the decibels that each loses if the new label's adapter restores it alone.
    """

    features: Features
    stakes: Tensor


@dataclass(frozen=True)
class HeldOut:
    """A sample for evaluation, with its true labels in the order of the damage.

    `features` (F,) are those of the whole scene. Pixels are held in 8 bits, as they are stored,
    because there may be thousands of samples, few of which are used.
    """

    labels: tuple[str, ...]
    features: Tensor
    view_8: Tensor
    degraded_8: Tensor
    clean_8: Tensor

    @classmethod
    def from_images(
        cls, labels: tuple[str, ...], features: Tensor, view: Tensor, degraded: Tensor, clean: Tensor
    ) -> HeldOut:
        """Make a sample of images in [0, 1].

        These are a global view (1, 3, 64, 64), and a part (3, S, S) with its undamaged original.
        """
        return cls(labels, features, _to_bytes(view), _to_bytes(degraded), _to_bytes(clean))

    @property
    def view(self) -> Tensor:
        """The scene's global view, (1, 3, 64, 64) in [0, 1]."""
        return self.view_8 / 255

    @property
    def degraded(self) -> Tensor:
        """A part of the scene, (3, S, S) in [0, 1]."""
        return self.degraded_8 / 255

    @property
    def clean(self) -> Tensor:
        """The same part undamaged."""
        return self.clean_8 / 255

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pixels, which identifies the sample."""
        parts = (self.degraded_8, self.clean_8, self.view_8)
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


@dataclass(frozen=True)
class Replay:
    """Features to fit estimators to, and held-out samples to evaluate them on.

    `source` says in a text what they were made of, so that they can be told from others.
    """

    features: Features
    held_out: tuple[HeldOut, ...]
    mixtures: Mixtures | None = None
    source: str = ""

    def save(self, path: Path) -> None:
        """Write numbers in 16 bits and pixels in 8; parts that samples share are stored once.

        Raises:
            OSError: The file cannot be written.
        """
        parts: dict[bytes, int] = {}
        cleans = [sample.clean_8 for sample in self.held_out]
        places = [parts.setdefault(clean.numpy().tobytes(), len(parts)) for clean in cleans]
        document = {
            "backbone": self.features.backbone,
            "labels": self.features.labels,
            "paired": False,  # the first releases do not read a file without it
            "held_out": [[sample.labels, place] for sample, place in zip(self.held_out, places, strict=True)],
        }
        tensors = {
            "values": self.features.values.half(),
            "targets": self.features.targets.half(),
            "seen": torch.stack([sample.features for sample in self.held_out]).half(),
            "views": torch.cat([sample.view_8 for sample in self.held_out]),
            "degraded": torch.stack([sample.degraded_8 for sample in self.held_out]),
            "clean": torch.stack([cleans[places.index(place)] for place in range(len(parts))]),
        }
        if self.source:
            document["source"] = self.source
        if len(self.features.pairs):
            document["pairs"] = self.features.pairs.tolist()
        if self.mixtures is not None:
            document["chained"] = self.mixtures.features.labels
            tensors |= {
                "chain_values": self.mixtures.features.values.half(),
                "chain_targets": self.mixtures.features.targets.half(),
                "chain_stakes": self.mixtures.stakes.half(),
            }
        write_tensors(path, tensors, {_METADATA: json.dumps(document)})

    @classmethod
    def load(cls, path: Path) -> Replay:
        """Read a file that `save` wrote.

        Raises:
            TrainingError: The file is no replay, or damaged.
        """
        header = read_header(path, TrainingError, _DTYPES)
        try:
            layout = _parse_header(header)
        except (KeyError, ValueError, TypeError, IndexError):
            raise TrainingError(
                f"{path}: found no replay; expected features and held-out samples of labels; train the estimator anew"
            ) from None
        tensors = read_tensors(path, layout.shapes, TrainingError, _DTYPES)
        held_out = tuple(
            HeldOut(
                names, tensors["seen"][i], tensors["views"][i : i + 1], tensors["degraded"][i], tensors["clean"][place]
            )
            for i, (names, place) in enumerate(layout.held_out)
        )
        mixtures = None
        if layout.mixed_labels:
            mixed = Features(layout.backbone, layout.mixed_labels, tensors["chain_values"], tensors["chain_targets"])
            mixtures = Mixtures(mixed, tensors["chain_stakes"])
        pairs = torch.tensor(layout.pairs, dtype=torch.long).reshape(-1, 2)
        features = Features(layout.backbone, layout.labels, tensors["values"], tensors["targets"], pairs)
        return cls(features, held_out, mixtures, layout.source)


@dataclass(frozen=True)
class _Layout:
    """What a replay file's header says, with the shapes that its tensors must have."""

    backbone: str
    labels: tuple[str, ...]
    held_out: tuple[tuple[tuple[str, ...], int], ...]
    """Each sample's labels, and the place of its undamaged part."""
    pairs: list[tuple[int, int]]
    """Places of samples of one scene; none in files of earlier releases."""
    source: str
    """What the samples were made of; empty in files of earlier releases."""
    mixed_labels: tuple[str, ...]
    """Labels of the mixtures; none if there are no mixtures."""
    shapes: dict[str, tuple[int, ...]]


def _parse_header(header: Header) -> _Layout:
    """Parse the header of a replay file.

    Raises:
        KeyError, ValueError, TypeError, IndexError: It is none.
    """
    document = json.loads(header.metadata[_METADATA])
    labels, mixed_labels = tuple(map(str, document["labels"])), tuple(map(str, document.get("chained", ())))
    held_out = tuple((tuple(map(str, names)), int(place)) for names, place in document["held_out"])
    (count, features), (parts, _, side, _) = header.shapes["values"], header.shapes["clean"]
    if not all(0 <= place < parts for _, place in held_out):
        raise ValueError("no such part")
    pairs = [(int(damaged), int(undamaged)) for damaged, undamaged in document.get("pairs", ())]
    if not all(0 <= place < count for pair in pairs for place in pair):
        raise ValueError("no such sample")
    shapes: dict[str, tuple[int, ...]] = {
        "values": (count, features),
        "targets": (count, len(labels)),
        "seen": (len(held_out), features),
        "views": (len(held_out), 3, GLOBAL_VIEW, GLOBAL_VIEW),
        "degraded": (len(held_out), 3, side, side),
        "clean": (parts, 3, side, side),
    }
    if mixed_labels:
        mixtures = header.shapes["chain_stakes"][0]
        shapes |= {
            "chain_values": (mixtures, features),
            "chain_targets": (mixtures, len(mixed_labels)),
            "chain_stakes": (mixtures,),
        }
    return _Layout(
        str(document["backbone"]), labels, held_out, pairs, str(document.get("source", "")), mixed_labels, shapes
    )


def read_source(path: Path) -> str:
    """Return what the samples of a replay's file were made of; empty if it does not say.

    Raises:
        TrainingError: The file is no safetensors file, or damaged.
    """
    try:
        return str(json.loads(read_header(path, TrainingError, _DTYPES).metadata[_METADATA]).get("source", ""))
    except (KeyError, ValueError, AttributeError):
        return ""


def concatenate(parts: Sequence[Features]) -> Features:
    """Join features of one backbone and the same labels; pairs are not kept."""
    values = torch.cat([part.values for part in parts])
    targets = torch.cat([part.targets for part in parts])
    return Features(parts[0].backbone, parts[0].labels, values, targets)


def _to_bytes(image: Tensor) -> Tensor:
    """Convert values in [0, 1] to uint8."""
    return image.mul(255).round_().to(torch.uint8)
