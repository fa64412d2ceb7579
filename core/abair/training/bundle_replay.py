"""The replay in a new bundle: what its labels leave behind for estimators that are fitted later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from abair.continual.replay import TRAINED, Replay, features_of, replay_of, together
from abair.data.degrade import CleanPhotos, Degrader
from abair.model.backbone import Backbone
from abair.training.estimator import RECIPE


@dataclass(frozen=True)
class ReplayCounts:
    """How many samples a bundle's replay holds."""

    features: int = TRAINED
    """Samples a label and source, `clean` included, whose features are kept."""
    held_out: int = 12
    """Held-out samples of each label."""
    held_out_mixtures: int = 6
    """Held-out samples of each mixture of two."""
    gamma: int = 200
    """Further samples a degradation, of photos with another gamma."""
    artifacts: int = 300
    """Further samples a degradation, of degraded photos with file artifacts."""


def make_replay(
    network: Backbone,
    degrader: Degrader,
    sources: Sequence[CleanPhotos],
    held_out: CleanPhotos,
    seed: int,
    counts: ReplayCounts,
) -> Replay:
    """Return what the labels leave behind for later estimators with further labels.

    Clean photos have no file artifacts: whether compression is a degradation is for a later label
    to tell. But a hazy photo that was saved in an inexact file is still hazy, and without samples
    of that a label that knows files would claim it. Those further samples are of the first source
    alone, which has most photos.
    """
    synthesizers = degrader.synthesizers
    exact = replace(RECIPE, filed=0.0, toned=0.0)
    replay = replay_of(
        network,
        Degrader(synthesizers, exact),
        sources,
        held_out,
        counts.held_out,
        seed,
        trained=counts.features,
        chained=counts.held_out_mixtures,
    )
    gamma = replace(exact, double=0.0, toned=RECIPE.toned)
    artifacts = replace(gamma, clean=0.0, filed=1.0)
    further = [
        features_of(network, Degrader(synthesizers, recipe), sources[0], count * len(synthesizers), seed + number)
        for number, (recipe, count) in enumerate([(gamma, counts.gamma), (artifacts, counts.artifacts)], start=1)
    ]
    return replace(replay, features=together([replay.features, *further]))
