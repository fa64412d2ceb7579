"""Named random streams: every random number of a sample depends on its key alone.

A key is (seed, stream, indices...). A resumed run therefore sees the samples that it would have
seen, and several workers or processes share the work without talking to each other.
"""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np
import torch


@unique
class Stream(IntEnum):
    """What random numbers are for. Values are part of seeds: never change or reuse one."""

    BACKBONE_SAMPLE = 1
    """Phase I: a training crop and its damage, by batch and item."""
    ADAPTER_SAMPLE = 2
    """Phase II: a training crop and its damage, by batch and item."""
    ESTIMATOR_SAMPLE = 3
    """Phase III: a scene of the pool and its damage, by its place in the pool."""
    ESTIMATOR_CROPS = 4
    """Phase III: which crops of a sample a step sees, by epoch and place."""
    ESTIMATOR_ORDER = 5
    """Phase III: the order of the pool, by epoch."""
    ESTIMATOR_VALIDATION = 6
    """Phase III: a held-out scene and its damage, by label and item."""
    ADAPTER_VALIDATION = 7
    """Phase II: a held-out crop and its damage, by item."""
    ADAPTER_VALIDATION_REAL = 8
    """Phase II: all crops of held-out real pairs."""
    BACKBONE_VALIDATION = 9
    """Phase I: a held-out crop and its damage, by label and item."""
    REPLAY_SCENE = 10
    """Replay: the scene of a training sample, by index; the same for every degrader."""
    TEMPERATURE = 11
    """Temperature of the estimator: a held-out scene and its damage, by index."""
    HELD_OUT_SCENE = 12
    """Replay: the scene of held-out samples, by index; the same for every kind of damage."""
    HELD_OUT_DAMAGE = 13
    """Replay: the damage of a held-out sample, by index and kind."""
    FURTHER_DAMAGE = 14
    """Replay: the new label's damage put on an older held-out sample, by index."""
    REPLAY_DAMAGE = 15
    """Replay: the damage of a training sample, by index."""
    ADAPTER_EFFICACY = 16
    """Efficacy report of an adapter: a held-out crop and its damage, by item."""
    ABLATION = 17
    """Ablations: a held-out crop and its damage, by item."""
    DEGRADER_DIGEST = 18
    """The damage that identifies a degrader; the seed counts from 0 to 3."""
    HELD_OUT_ORDER = 19
    """Replay: the order in which photos give held-out scenes."""
    FILE_ARTIFACT_VALIDATION = 20
    """Phase III: an undamaged held-out scene from an inexact file, by item."""
    ADAPTER_MIXTURE = 21
    """Phase II: the second degradation of a batch, and the adapter's weight there, by batch."""
    MIXTURE_SCENE = 22
    """Mixtures of a new label: the scene, by index; the same for every known label."""
    MIXTURE_DAMAGE = 23
    """Mixtures of a new label: the damage, by index."""
    SYNTHESIZER_PROBE = 24
    """The crop and the damage that show whether a synthesiser works."""
    LABELLED_SAMPLE = 25
    """Phase III: whether a sample is a labelled photo, which one, and which part, by place."""
    ESTIMATOR_DROPOUT = 26
    """Phase III: which hidden units a sample of a batch goes without, by item."""
    SMALL_PART = 27
    """Phase III: whether a sample is a small part of its scene, and which, by place."""
    MIXTURE_VALIDATION = 28
    """Phase III: a held-out scene and its damage, mostly two kinds of it, by item."""
    TRANSFERRED = 29
    """Which known undamaged samples get a new label's damage."""


def generator_for(seed: int, stream: Stream, *indices: int) -> torch.Generator:
    """Return the generator of one item of a stream; equal arguments give equal numbers.

    Give all items of a stream equally many indices: trailing zeros do not change the seed.
    """
    return generator_from(seed, stream, *indices)


def generator_from(*key: int) -> torch.Generator:
    """Return a generator seeded by a key of non-negative integers.

    Samples take theirs from `generator_for`. This is for keys from before streams had names: made
    pictures, whose pixels would change with their keys.
    """
    seed = int(np.random.SeedSequence([int(part) for part in key]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)
