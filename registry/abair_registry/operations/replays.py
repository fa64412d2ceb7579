"""Replays: the samples and features that a label leaves behind, so that later estimators know it.

A replay is made once, when a label is new. From then on neither the plugin nor its photos are
needed to fit an estimator to the label or to evaluate one (see `abair.continual.replay`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import torch

from abair.continual.replay import HeldOut, Replay, read_source
from abair.data.photos import CleanPhotos, list_photos, load_clean_photos
from abair.data.sample_photos import PHOTOS
from abair.errors import TrainingError
from abair.labels import CLEAN
from abair_registry.db import queries
from abair_registry.db.snapshot import DeploymentSnapshot, Member
from abair_registry.operations.progress import Steps
from abair_registry.operations.requests import Proposal
from abair_registry.plugins import calls
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.plugins.worker.jobs import LabelReplay, ReplayJob, TrainedAdapter
from abair_registry.registry import Registry
from abair_registry.settings import ChallengerConfig
from abair_registry.storage.blobs import Blobs

_COUNTS: Final = {
    "training_scenes", "held_out", "held_out_clean", "held_out_of_mixture", "held_out_mixtures",
    "mixtures", "mixtures_labels",
}  # fmt: skip
"""Settings that decide what a replay holds."""


@dataclass(frozen=True)
class Photos:
    """Clean photos to train on, and held-out ones; read when they are first needed."""

    folder: Path | None

    @cached_property
    def both(self) -> tuple[CleanPhotos, CleanPhotos]:
        """The photos to train on, and those held out."""
        return load_clean_photos(self.folder)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of both sets."""
        train, held_out = self.both
        return {"photos": train.digest(), "photos held out": held_out.digest()}


def add_replays(
    registry: Registry,
    base: DeploymentSnapshot,
    proposal: Proposal,
    plugins: VerifiedPlugins,
    seed: int,
    steps: Steps,
) -> Proposal:
    """Make and keep the replay of each new label without one; return the proposal with them.

    The labels are added to `base`, whose backbone the proposal has.

    Raises:
        TrainingError: A synthesiser failed, or its plugin is not installed as it is recorded.
    """
    config, photos = registry.settings.challenger, registry.settings.clean_dir
    members = []
    for member in proposal.deployment.members:
        if member.label not in proposal.new_labels or member.replay is not None:
            members.append(member)
            continue
        mixed_with = labels_to_mix(base, member, plugins, config.mixtures_labels)
        steps.begin(f"{member.label}: damage clean photos and look at them", sample_count(config, mixed_with))
        sha256 = make_replay(registry.blobs, base, member, mixed_with, plugins, photos, config, seed, steps.advance)
        with registry.database.write() as session:
            queries.record_replay(session, base.backbone_id, member.adapter_id, sha256)
        members.append(replace(member, replay=sha256))
    return replace(proposal, deployment=replace(proposal.deployment, members=tuple(members)))


def labels_to_mix(base: DeploymentSnapshot, new: Member, plugins: VerifiedPlugins, most: int) -> tuple[Member, ...]:
    """Return the members of `base` whose damage can be made again, to put the new one over it.

    Their plugins are installed as they are recorded. Mixtures with the others are not learnt, nor
    those of two labels that come together.
    """
    installed = {point.name for point in plugins.refs}
    others = [member for member in base.members if member.plugin != new.plugin and member.plugin in installed]
    return tuple(_spread(others, most))


def sample_count(config: ChallengerConfig, mixed_with: Sequence[Member]) -> int:
    """Return how many samples `make_replay` makes at most, each of which it reports."""
    held_out = config.held_out + config.held_out_clean
    return config.training_scenes + held_out + (config.mixtures if mixed_with else 0)


def make_replay(
    blobs: Blobs,
    base: DeploymentSnapshot,
    member: Member,
    mixed_with: Sequence[Member],
    plugins: VerifiedPlugins,
    photos: Path | None,
    config: ChallengerConfig,
    seed: int,
    on_progress: Callable[[], object],
) -> str:
    """Make a new label's replay in a process of its own, keep it as a blob, and return its SHA-256.

    Raises:
        TrainingError: The synthesiser failed, or what it left is no replay of the label.
    """
    label = member.label
    others = [other for other in base.members if other.label != label and other.replay]
    damaged_further = _spread(others, config.held_out_mixtures)
    with blobs.writing() as path:
        calls.run_job(
            ReplayJob,
            calls.REPLAY_LIMITS,
            on_progress,
            plugins=plugins.require([member.plugin, *(other.plugin for other in mixed_with)]),
            threads=torch.get_num_threads(),
            label=label,
            adapter=adapter_files(blobs, member),
            known=tuple(TrainedAdapter(label=other.label, files=adapter_files(blobs, other)) for other in mixed_with),
            backbone=blobs.path(base.backbone_sha256),
            photos=photos,
            others=tuple(
                LabelReplay(label=other.label, replay=blobs.path(str(other.replay))) for other in damaged_further
            ),
            seed=seed,
            trained=config.training_scenes,
            judged=config.held_out,
            judged_clean=config.held_out_clean,
            kept=config.held_out_of_mixture,
            chained=config.mixtures,
            source=source_of(photos, config, seed),
            out=path,
        )
        made = Replay.load(path)
        _check(made, label, [other.label for other in mixed_with], base, config)
        return blobs.add(path)


def source_of(photos: Path | None, config: ChallengerConfig, seed: int) -> str:
    """Return what replays are made of: the SHA-256 of photos' names and sizes, counts and seed."""
    if photos is None:
        names: list[tuple[str, int | None]] = [(name, None) for name in PHOTOS]
    else:
        paths = [photos] if photos.is_file() else list_photos(photos)
        # a link that leads nowhere is told where photos are read
        names = [(path.name, path.stat().st_size if path.exists() else None) for path in paths]
    made_of = [photos is not None, names, config.model_dump(mode="json", include=_COUNTS), seed]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def without_other_sources(members: Sequence[Member], blobs: Blobs, source: str) -> tuple[Member, ...]:
    """Return the members; one whose replay was made of something else than `source` is without."""
    return tuple(
        replace(member, replay=None) if member.replay and read_source(blobs.path(member.replay)) != source else member
        for member in members
    )


def load_replay(blobs: Blobs, sha256: str | None) -> Replay:
    """Read a replay.

    Raises:
        TrainingError: There is none.
    """
    if sha256 is None:
        raise TrainingError("replay: found none; expected one; --route full")
    return Replay.load(blobs.path(sha256))


def held_out_of(replay: Replay, label: str) -> list[HeldOut]:
    """Return the held-out samples with this label alone."""
    return [sample for sample in replay.held_out if sample.labels == (label,)]


def adapter_files(blobs: Blobs, member: Member) -> tuple[Path, Path]:
    """Return the paths of a member's configuration and weights."""
    return blobs.path(member.config_sha256), blobs.path(member.weights_sha256)


def _check(
    made: Replay, label: str, mixed_with: Sequence[str], base: DeploymentSnapshot, config: ChallengerConfig
) -> None:
    """Raise TrainingError unless this is a replay of the label by the backbone of `base`."""
    features = made.features
    mixed = made.mixtures.features.labels if made.mixtures else (label, CLEAN)
    expected = (base.fingerprint, (label, CLEAN), (label, CLEAN))
    allowed = {*mixed_with, label, CLEAN}  # labels whose synthesisers do not work are left out
    if (
        (features.backbone, features.labels, mixed[-2:]) != expected
        or not allowed.issuperset(mixed)
        or len(held_out_of(made, label)) != config.held_out
    ):
        raise TrainingError(
            f"degradation {label}: found a replay of {', '.join(features.labels)} with mixtures of {', '.join(mixed)}, "
            f"expected one of {label} by this backbone; its synthesiser may not touch it"
        )


def _spread(members: Sequence[Member], most: int) -> list[Member]:
    """Return at most so many of the members, evenly spread; of the same members always the same."""
    count = min(most, len(members))
    return [members[place * len(members) // count] for place in range(count)]
