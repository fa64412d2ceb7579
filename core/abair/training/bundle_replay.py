"""The replay in a new bundle: what its labels leave behind for estimators that are fitted later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from abair.continual.collect import ReplayCounts, build_replay, compute_features
from abair.continual.replay import Replay, concatenate
from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.model.backbone import Backbone
from abair.training.estimator import RECIPE


@dataclass(frozen=True)
class BundleReplayCounts(ReplayCounts):
    """How many samples a bundle's replay holds."""

    gamma: int = 100
    """Further samples a degradation, of photos with another gamma."""
    artifacts: int = 200
    """Further samples a degradation, of degraded photos with file artifacts."""


def make_replay(
    network: Backbone,
    degrader: Degrader,
    sources: Sequence[CleanPhotos],
    held_out: CleanPhotos,
    seed: int,
    counts: BundleReplayCounts,
) -> Replay:
    """Return what the labels leave behind for later estimators with further labels.

    Clean photos have no file artifacts: whether compression is a degradation is for a later label
    to tell. But a hazy photo that was saved in an inexact file is still hazy, and without samples
    of that a label that knows files would claim it. Those further samples are of the first source
    alone, which has most photos.
    """
    synthesizers = degrader.synthesizers
    exact = replace(RECIPE, file_artifacts=0.0, gamma=0.0)
    replay = build_replay(network, Degrader(synthesizers, exact), sources, held_out, counts, seed)
    gamma = replace(exact, mixture=0.0, gamma=RECIPE.gamma)
    artifacts = replace(gamma, clean=0.0, file_artifacts=1.0)
    further = [
        compute_features(network, Degrader(synthesizers, recipe), sources[0], count * len(synthesizers), seed + number)
        for number, (recipe, count) in enumerate([(gamma, counts.gamma), (artifacts, counts.artifacts)], start=1)
    ]
    return replace(replay, features=concatenate([replay.features, *further]))
