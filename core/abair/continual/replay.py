"""What labels leave behind, so that later estimators are fitted and judged without their plugins or anybody's photos.

A *replay* holds features, numbers that the frozen backbone made of damaged photos and that heads are fitted to, and a
few held-out samples, each with its undamaged self, to judge by. It is made once, when a label comes, and kept (*feature
replay*). That of a label that came to others may hold chains, too: features of what shows both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from abair.data.degrade import CleanPhotos, Degrader, to_8_bit
from abair.data.seeds import Stream, generator_for
from abair.errors import TrainingError
from abair.labels import CLEAN
from abair.model import views
from abair.model.backbone import GLOBAL_VIEW, Backbone, fingerprint
from abair.model.estimator import extract_features
from abair.model.safetensors_io import read_header, read_tensors, write_tensors

LONGEST: Final = 512
"""Longest side in pixels of the scenes that samples are made of, as in phase III."""
PART: Final = 96
"""Side in pixels of the part of a held-out scene that is kept and restored; the estimator has seen all of the scene."""
TRAINED: Final = 80
"""Samples a label, `clean` included, whose features are kept."""
_KINDS: Final = frozenset({"U8", "F16", "F32"})


@dataclass(frozen=True)
class Features:
    """What the backbone of this fingerprint saw in N samples: `values` (N, F), `targets` (N, L) over `labels`.

    If they are `paired`, the second half is the first half's scenes undamaged, in the same order.
    """

    backbone: str
    labels: tuple[str, ...]
    values: Tensor
    targets: Tensor
    paired: bool = False


@dataclass(frozen=True)
class Chains:
    """Features of N samples with a new label's damage over another's; their targets are the blends that restore best.

    `stakes` (N,) are the decibels that each loses where the new label's adapter restores it alone.
    """

    features: Features
    stakes: Tensor


@dataclass(frozen=True)
class HeldOut:
    """A sample to judge by, and the true labels in the order in which the damage was done.

    `seen` (F,) is what the backbone saw in the whole scene. Pixels are held in 8 bits, as they are kept: there may be
    thousands of samples, of which few are looked at.
    """

    labels: tuple[str, ...]
    seen: Tensor
    view_8: Tensor
    degraded_8: Tensor
    clean_8: Tensor

    @classmethod
    def of(cls, labels: tuple[str, ...], seen: Tensor, view: Tensor, degraded: Tensor, clean: Tensor) -> HeldOut:
        """From a global view (1, 3, 64, 64), and a part (3, S, S) with its undamaged self, all in [0, 1]."""
        return cls(labels, seen, _bytes(view), _bytes(degraded), _bytes(clean))

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
    def mark(self) -> str:
        """SHA-256 of its pixels: which sample this is."""
        parts = (self.degraded_8, self.clean_8, self.view_8)
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


@dataclass(frozen=True)
class Replay:
    """Features to fit to, and held-out samples to judge by."""

    features: Features
    held_out: tuple[HeldOut, ...]
    chains: Chains | None = None

    def save(self, path: Path) -> None:
        """Write numbers in 16 bits and pixels in 8; a part that several samples share is kept once. Raises OSError."""
        parts: dict[bytes, int] = {}
        cleans = [sample.clean_8 for sample in self.held_out]
        places = [parts.setdefault(clean.numpy().tobytes(), len(parts)) for clean in cleans]
        said = {
            "backbone": self.features.backbone,
            "labels": self.features.labels,
            "paired": self.features.paired,
            "held_out": [[sample.labels, place] for sample, place in zip(self.held_out, places, strict=True)],
        }
        tensors = {
            "values": self.features.values.half(),
            "targets": self.features.targets.half(),
            "seen": torch.stack([sample.seen for sample in self.held_out]).half(),
            "views": torch.cat([sample.view_8 for sample in self.held_out]),
            "degraded": torch.stack([sample.degraded_8 for sample in self.held_out]),
            "clean": torch.stack([cleans[places.index(place)] for place in range(len(parts))]),
        }
        if self.chains is not None:
            said["chained"] = self.chains.features.labels
            tensors |= {
                "chain_values": self.chains.features.values.half(),
                "chain_targets": self.chains.features.targets.half(),
                "chain_stakes": self.chains.stakes.half(),
            }
        write_tensors(path, tensors, {"abair.replay": json.dumps(said)})

    @classmethod
    def load(cls, path: Path) -> Replay:
        """Read what `save` wrote.

        Raises:
            TrainingError: it is no such file, or damaged.
        """
        header = read_header(path, TrainingError, _KINDS)
        try:
            said = json.loads(header.metadata["abair.replay"])
            backbone, labels, paired = str(said["backbone"]), tuple(map(str, said["labels"])), bool(said["paired"])
            named = [(tuple(map(str, names)), int(place)) for names, place in said["held_out"]]
            chained = tuple(map(str, said.get("chained", ())))
            (count, features), (parts, _, side, _) = header.shapes["values"], header.shapes["clean"]
            if not all(0 <= place < parts for _, place in named):
                raise ValueError("no such part")
            chains = header.shapes["chain_stakes"][0] if chained else 0
        except (KeyError, ValueError, TypeError, IndexError):
            raise TrainingError(
                f"{path}: found no replay; expected features and held-out samples of labels; train the estimator anew"
            ) from None
        expected = {
            "values": (count, features),
            "targets": (count, len(labels)),
            "seen": (len(named), features),
            "views": (len(named), 3, GLOBAL_VIEW, GLOBAL_VIEW),
            "degraded": (len(named), 3, side, side),
            "clean": (parts, 3, side, side),
        }
        if chained:
            expected |= {
                "chain_values": (chains, features),
                "chain_targets": (chains, len(chained)),
                "chain_stakes": (chains,),
            }
        tensors = read_tensors(path, expected, TrainingError, _KINDS)
        held_out = tuple(
            HeldOut(
                names, tensors["seen"][i], tensors["views"][i : i + 1], tensors["degraded"][i], tensors["clean"][place]
            )
            for i, (names, place) in enumerate(named)
        )
        both = Features(backbone, chained, tensors["chain_values"], tensors["chain_targets"]) if chained else None
        return cls(
            Features(backbone, labels, tensors["values"], tensors["targets"], paired),
            held_out,
            None if both is None else Chains(both, tensors["chain_stakes"]),
        )


def replay_of(
    backbone: Backbone,
    degrader: Degrader,
    sources: Sequence[CleanPhotos],
    held_out: CleanPhotos,
    count: int,
    seed: int,
    *,
    trained: int | None = None,
    chained: int | None = None,
    paired: bool = False,
    tell: Callable[[], object] = lambda: None,
) -> Replay:
    """The replay of all of the degrader's labels: `trained` samples a label from each source (default `TRAINED`).

    Held out are `count` samples of each single degradation and undamaged ones, and `chained` (default `count`) of each
    chain of two neighbours in the order of the labels. Whoever wants samples to be `paired` has one source. `tell` is
    called after each.
    """
    names = list(degrader.synthesizers)
    pairs = sorted({tuple(sorted((name, names[i - 1]))) for i, name in enumerate(names) if len(names) > 1})
    total = (trained or TRAINED) * len(degrader.labels)
    parts = [features_of(backbone, degrader, photos, total, seed, paired=paired, tell=tell) for photos in sources]
    features = together(parts) if len(parts) > 1 else parts[0]
    singles = [(label,) for label in degrader.labels]
    judged = held_out_of(backbone, degrader, held_out, singles, count, seed, tell)
    judged += held_out_of(backbone, degrader, held_out, pairs, chained or count, seed, tell, first=len(singles))
    return Replay(features, tuple(judged))


def features_of(
    backbone: Backbone,
    degrader: Degrader,
    photos: CleanPhotos,
    count: int,
    seed: int,
    *,
    paired: bool = False,
    tell: Callable[[], object] = lambda: None,
) -> Features:
    """Damage `count` scenes by the degrader's recipe and look at each through the backbone, if `paired` at both.

    One seed draws the same scenes for any degrader.
    """
    seen, targets = [], []
    undamaged = torch.tensor([float(label == CLEAN) for label in degrader.labels])
    clean = []
    for index in range(count):
        scene, generator = (
            photos.scene(generator_for(seed, Stream.REPLAY_SCENE, index), LONGEST),
            generator_for(seed, Stream.REPLAY_DAMAGE, index),
        )
        sample = degrader.sample(scene, generator)
        seen.append(seen_in(backbone, sample.degraded).float().mean(0))
        targets.append(sample.types.mean((1, 2)))
        if paired:
            clean.append(seen_in(backbone, sample.clean).float().mean(0))
        tell()
    return Features(
        fingerprint(backbone),
        degrader.labels,
        torch.stack([*seen, *clean]),
        torch.stack([*targets, *[undamaged] * len(clean)]),
        paired,
    )


def together(parts: Sequence[Features]) -> Features:
    """Features of one backbone and the same labels as one; which are of one scene is no longer said."""
    values, targets = (torch.cat(of) for of in zip(*((part.values, part.targets) for part in parts), strict=True))
    return Features(parts[0].backbone, parts[0].labels, values, targets)


def held_out_of(
    backbone: Backbone,
    degrader: Degrader,
    photos: CleanPhotos,
    kinds: Sequence[tuple[str, ...]],
    count: int,
    seed: int,
    tell: Callable[[], object] = lambda: None,
    first: int = 0,
) -> list[HeldOut]:
    """`count` samples of each kind of damage (a label, several for a chain); all kinds from the same scenes.

    No photo is taken twice before all were taken once: two scenes of one are nearly the same evidence. The kinds are
    numbered from `first` on: each number has random numbers of its own.
    """
    samples = []
    order = torch.randperm(len(photos), generator=generator_for(seed, Stream.HELD_OUT_ORDER)).tolist()
    for index in range(count):
        which = order[index % len(order)]
        clean = photos.scene(generator_for(seed, Stream.HELD_OUT_SCENE, index), LONGEST, smallest=0.6, which=which)
        for kind, labels in enumerate(kinds, first):
            generator = generator_for(seed, Stream.HELD_OUT_DAMAGE, index, kind)
            made = degrader.single(clean, CLEAN, generator) if labels == (CLEAN,) else degrader.chain(
                clean, labels, generator
            )  # fmt: skip
            seen = seen_in(backbone, made.degraded).float().mean(0)
            view = views.global_view(made.degraded.permute(1, 2, 0).numpy())
            samples.append(HeldOut.of(labels, seen, view, _part(made.degraded), _part(made.clean)))
            tell()
    return samples


def damaged_further(
    backbone: Backbone, degrader: Degrader, label: str, samples: Sequence[HeldOut], seed: int
) -> list[HeldOut]:
    """Held-out samples of other labels with the damage of one more; their parts are taken for whole scenes."""
    further = []
    for index, sample in enumerate(samples):
        degraded = to_8_bit(
            degrader.synthesizers[label](sample.degraded, generator_for(seed, Stream.FURTHER_DAMAGE, index))
        )
        seen = seen_in(backbone, degraded).float().mean(0)
        view = views.global_view(degraded.permute(1, 2, 0).numpy())
        further.append(HeldOut.of((*sample.labels, label), seen, view, degraded, sample.clean))
    return further


@torch.inference_mode()
def seen_in(backbone: Backbone, image: Tensor) -> Tensor:
    """What the backbone sees in an image (3, H, W), in 16 bits: (16, F)."""
    pixels = image.permute(1, 2, 0).numpy()
    rows: Tensor = extract_features(backbone, views.crops(pixels), views.global_view(pixels)).half()
    return rows


def _part(image: Tensor) -> Tensor:
    """The middle of an image (3, H, W), `PART` pixels a side; a smaller one is mirrored outwards."""
    height, width = image.shape[1:]
    rows, columns = (_middle(length, image.device) for length in (height, width))
    return image[:, rows][:, :, columns]


def _middle(length: int, device: torch.device) -> Tensor:
    places = torch.arange(PART, device=device) + (length - PART) // 2
    period = max(1, 2 * length - 2)
    places = places.remainder(period)
    return torch.minimum(places, period - places) if length > 1 else torch.zeros_like(places)


def _bytes(image: Tensor) -> Tensor:
    return image.mul(255).round_().to(torch.uint8)
