"""Makes what replays hold: features of damaged scenes, and held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from abair.continual.replay import Features, HeldOut, Replay, concatenate
from abair.data.degrade import Degrader, SampleKind, to_8_bit
from abair.data.photos import CleanPhotos
from abair.data.seeds import Stream, generator_for
from abair.labels import CLEAN
from abair.model.backbone import Backbone, fingerprint
from abair.model.estimator import extract_image_features
from abair.model.look import context_view_of

LONGEST: Final = 512
"""Longest side in pixels of the scenes that samples are made of, as in phase III."""
PART_SIDE: Final = 96
"""Side in pixels of the part of a held-out scene that is kept; features are of the whole scene."""
PART_STEP: Final = 32
"""Pixels from one place to the next where a part may lie."""

OnProgress = Callable[[], object]
"""Called after each sample."""


def ignore_progress() -> None:
    """Do nothing: the default of `on_progress`."""


@dataclass(frozen=True)
class ReplayCounts:
    """How many samples `build_replay` makes."""

    features: int = 80
    """Samples a label and source, `clean` included, whose features are kept."""
    held_out: int = 24
    """Held-out samples of each label."""
    held_out_mixtures: int = 12
    """Held-out samples of each mixture of two."""
    held_out_clean: int | None = None
    """Held-out samples without damage; by default as many as of each label."""


def build_replay(
    backbone: Backbone,
    degrader: Degrader,
    sources: Sequence[CleanPhotos],
    held_out: CleanPhotos,
    counts: ReplayCounts,
    seed: int,
    *,
    undamaged: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> Replay:
    """Build the replay of all labels of a degrader.

    Features are computed from each source, and of at most `undamaged` scenes without damage. Held
    out are samples of each label, `clean` included, and of each mixture of two labels that are
    neighbours in the degrader's order.
    """
    names = list(degrader.synthesizers)
    pairs = sorted({tuple(sorted((name, names[i - 1]))) for i, name in enumerate(names) if len(names) > 1})
    total = counts.features * (len(names) if undamaged else len(degrader.labels))
    parts = [
        compute_features(backbone, degrader, photos, total, seed, undamaged=undamaged, on_progress=on_progress)
        for photos in sources
    ]
    features = concatenate(parts) if len(parts) > 1 else parts[0]
    clean = counts.held_out if counts.held_out_clean is None else counts.held_out_clean
    samples: list[HeldOut] = []
    numbered = 0
    for kinds, count in (
        ([(name,) for name in names], counts.held_out),
        ([(CLEAN,)], clean),
        (pairs, counts.held_out_mixtures),
    ):
        samples += build_held_out(
            backbone, degrader, held_out, kinds, count, seed, first_kind=numbered, on_progress=on_progress
        )
        numbered += len(kinds)
    return Replay(features, tuple(samples))


def compute_features(
    backbone: Backbone,
    degrader: Degrader,
    photos: CleanPhotos,
    count: int,
    seed: int,
    *,
    undamaged: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> Features:
    """Damage `count` scenes by the degrader's recipe and compute their features.

    Those of `undamaged` scenes without any damage follow, the first ones that were damaged as a
    whole by one degradation; both are a pair. The same seed gives the same scenes for every
    degrader.
    """
    values: list[Tensor] = []
    cleans: list[Tensor] = []
    targets: list[Tensor] = []
    pairs: list[tuple[int, int]] = []
    clean_target = torch.tensor([float(label == CLEAN) for label in degrader.labels])
    for index in range(count):
        scene = photos.scene(generator_for(seed, Stream.REPLAY_SCENE, index), LONGEST)
        sample = degrader.sample(scene, generator_for(seed, Stream.REPLAY_DAMAGE, index))
        values.append(extract_image_features(backbone, sample.degraded).float().mean(0))
        targets.append(sample.types.mean((1, 2)))
        if len(cleans) < undamaged and sample.kind is SampleKind.SINGLE:
            pairs.append((index, count + len(cleans)))
            cleans.append(extract_image_features(backbone, sample.clean).float().mean(0))
        on_progress()
    targets += [clean_target] * len(cleans)
    return Features(
        fingerprint(backbone), degrader.labels, torch.stack([*values, *cleans]), torch.stack(targets),
        torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
    )  # fmt: skip


def build_held_out(
    backbone: Backbone,
    degrader: Degrader,
    photos: CleanPhotos,
    kinds: Sequence[tuple[str, ...]],
    count: int,
    seed: int,
    *,
    first_kind: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> list[HeldOut]:
    """Make `count` samples of each kind of damage: one label, or several for a mixture.

    The scenes are the same for all kinds. A photo is used again only after all others, because two
    scenes of one photo are nearly the same evidence. Kinds are numbered from `first_kind`: each
    number has random numbers of its own.
    """
    samples = []
    order = torch.randperm(len(photos), generator=generator_for(seed, Stream.HELD_OUT_ORDER)).tolist()
    for index in range(count):
        photo = order[index % len(order)]
        scene = generator_for(seed, Stream.HELD_OUT_SCENE, index)
        clean = photos.scene(scene, LONGEST, smallest=0.6, index=photo)
        for kind, labels in enumerate(kinds, first_kind):
            generator = generator_for(seed, Stream.HELD_OUT_DAMAGE, index, kind)
            if len(labels) == 1:
                sample = degrader.single(clean, labels[0], generator)
            else:
                sample = degrader.mixture(clean, labels, generator)
            features = extract_image_features(backbone, sample.degraded).float().mean(0)
            view = context_view_of(sample.degraded, backbone)
            parts = cut_parts(sample.degraded, sample.clean)
            samples.append(HeldOut.from_images(labels, features, view, *parts))
            on_progress()
    return samples


def add_damage(
    backbone: Backbone, degrader: Degrader, label: str, samples: Sequence[HeldOut], seed: int
) -> list[HeldOut]:
    """Put one more label's damage on held-out samples, whose parts serve as whole scenes."""
    damaged = []
    for index, sample in enumerate(samples):
        generator = generator_for(seed, Stream.FURTHER_DAMAGE, index)
        degraded = to_8_bit(degrader.synthesizers[label](sample.degraded, generator))
        features = extract_image_features(backbone, degraded).float().mean(0)
        view = context_view_of(degraded, backbone)
        damaged.append(HeldOut.from_images((*sample.labels, label), features, view, degraded, sample.clean))
    return damaged


def cut_parts(degraded: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a part, `PART_SIDE` a side, of a damaged image (3, H, W) and of the undamaged one.

    It is where the damage shows most: some, such as dark corners, does not lie everywhere. Where
    nothing is damaged it is the middle. Shorter sides are mirrored outwards.
    """
    height, width = clean.shape[1:]
    top, left = (height - PART_SIDE) // 2, (width - PART_SIDE) // 2
    if min(height, width) >= PART_SIDE:
        damage = F.avg_pool2d((degraded - clean).abs().mean(0)[None], PART_SIDE, PART_STEP)[0]
        if damage.max() > 0:
            row, column = divmod(int(damage.argmax()), damage.shape[1])
            top, left = PART_STEP * row, PART_STEP * column
    rows, columns = _places(top, height, clean.device), _places(left, width, clean.device)
    return degraded[:, rows][:, :, columns], clean[:, rows][:, :, columns]


def _places(first: int, length: int, device: torch.device) -> Tensor:
    """Return `PART_SIDE` positions of a side from `first` on, mirrored at its ends."""
    places = torch.arange(PART_SIDE, device=device) + first
    period = max(1, 2 * length - 2)
    places = places.remainder(period)
    return torch.minimum(places, period - places) if length > 1 else torch.zeros_like(places)
