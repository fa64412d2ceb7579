"""Challengers: the estimator of a proposal, trained by either route, and its evaluation.

Only an estimator is ever trained here. Backbone and adapters are read from blobs and frozen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest

import torch

from abair.continual.compare import BUDGET, Contender, Evaluation, evaluate
from abair.continual.known import familiarity_of
from abair.continual.refit import refit
from abair.continual.replay import Features, HeldOut, Replay
from abair.continual.score_cache import ScoreCache, open_score_cache
from abair.continual.separation import Separation, measure_separation
from abair.errors import TrainingError
from abair.labels import CLEAN
from abair.model.backbone import Backbone, load_backbone
from abair.model.estimator import Estimator, load_estimator
from abair.model.familiarity import Familiarity
from abair.model.lora import Adapter, read_adapter_files
from abair.report import Report
from abair_registry.db.snapshot import DeploymentSnapshot, Member
from abair_registry.operations.replays import adapter_files, held_out_of, load_replay
from abair_registry.plugins import calls
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.plugins.worker.jobs import EstimatorJob
from abair_registry.settings import Settings
from abair_registry.storage.blobs import Blobs

OnStep = Callable[[int, dict[str, float]], None]
"""Receives the metrics of a training step: its number, and values by their names."""


class Fit(StrEnum):
    """How the champion's estimator is fitted to new labels on features."""

    WITH_MIXTURES = "with mixtures"
    """The new labels' outputs, to mixtures as well: their blends with the others are learnt."""
    ALONE = "alone"
    """The new labels' outputs alone."""


@dataclass
class Trainer:
    """Trains the estimator of one proposal, and evaluates it against the champion.

    The training starts from `base`, which has the proposal's backbone. It is the champion itself,
    unless the proposal brings another backbone.
    """

    blobs: Blobs
    settings: Settings
    champion: DeploymentSnapshot
    base: DeploymentSnapshot
    proposal: DeploymentSnapshot
    new_labels: tuple[str, ...]
    seed: int
    _replays: dict[str, Replay] = field(default_factory=dict)
    _adapters: dict[Member, Adapter] = field(default_factory=dict)

    @cached_property
    def backbone(self) -> Backbone:
        """The proposal's frozen network."""
        return load_backbone(self.blobs.path(self.base.backbone_sha256))

    @cached_property
    def base_estimator(self) -> Estimator:
        """The estimator of `base`."""
        path = self.blobs.path(self.base.estimator_sha256)
        return load_estimator(path, self.base.labels, self.backbone.size)

    @cached_property
    def start(self) -> Estimator:
        """The estimator to start from: that of `base`, or an earlier one that knows the labels."""
        if self.proposal.estimator_sha256 == self.base.estimator_sha256:
            return self.base_estimator
        path = self.blobs.path(self.proposal.estimator_sha256)
        return load_estimator(path, self.proposal.labels, self.backbone.size)

    @property
    def judged_as_new(self) -> tuple[str, ...]:
        """The labels whose outputs are fitted; with another backbone also those not live before."""
        if not self._replaces_backbone:
            return self.new_labels
        return tuple(
            member.label
            for member in self.proposal.members
            if member.label in self.new_labels or member.label not in self.champion.labels
        )

    def missing_replays(self) -> list[str]:
        """Return the labels without a replay, which nothing can be fitted to or evaluated on."""
        kept = {member.label: member.replay for member in self.proposal.members} | {CLEAN: self.proposal.replay}
        return [label for label, sha256 in kept.items() if sha256 is None]

    @cached_property
    def separations(self) -> list[list[Separation]]:
        """How well features tell each new label from each other label, the worst first."""
        old = self._old_replays()
        new = [one for one in self.proposal.members if one.label in self.new_labels and one.replay not in old]
        if not new or self.missing_replays():
            return []
        known = self._known_features()
        return [measure_separation(one.label, self._replay(one.replay).features, known) for one in new]

    def fits(self) -> tuple[Fit, ...]:
        """Return the ways to fit to features, in the order in which they are to be tried."""
        if not self.new_labels:
            return (Fit.ALONE,)
        new = [member for member in self.proposal.members if member.label in self.new_labels and member.replay]
        if any(self._replay(member.replay).mixtures for member in new):
            return (Fit.WITH_MIXTURES, Fit.ALONE)
        return (Fit.ALONE,)

    def fit_features(self, on_step: OnStep, *, fit: Fit = Fit.ALONE) -> Estimator:
        """Fit the estimator of `base` to the features of all labels.

        Without new labels, its outputs are only rearranged.

        Raises:
            TrainingError: A label has no replay.
        """
        if not self.new_labels:
            return self.start.with_labels(self.proposal.labels)
        if missing := self.missing_replays():
            raise TrainingError(
                f"label {missing[0]}: found no features of earlier samples; expected some; --route full"
            )
        new = [self._replay(member.replay) for member in self.proposal.members if member.label in self.new_labels]
        fitted = refit(
            self.base_estimator,
            self.base.fingerprint,
            self.proposal.labels,
            self._known_features(),
            [replay.features for replay in new],
            on_step,
            mixtures=[replay.mixtures for replay in new if replay.mixtures and fit is Fit.WITH_MIXTURES],
        )
        fitted.known = self._known
        return fitted

    def train_full(self, plugins: VerifiedPlugins, on_step: OnStep) -> Estimator:
        """Train the whole estimator on samples of all labels, and calibrate its temperature.

        This takes a process of its own, because the plugins' synthesisers make the samples there.

        Raises:
            TrainingError: A synthesiser failed, a plugin is not installed as it is recorded, or
                there are no photos.
        """
        folder = self.settings.home / "cache" / "estimator"
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / "estimator.safetensors"
        calls.run_job(
            EstimatorJob,
            calls.TRAINING_LIMITS,
            plugins=plugins.require(self.proposal.plugins),
            threads=torch.get_num_threads(),
            labels=self.proposal.labels,
            backbone=self.blobs.path(self.base.backbone_sha256),
            adapters=tuple(adapter_files(self.blobs, member) for member in self.proposal.members),
            photos=self.settings.clean_dir,
            seed=self.seed,
            trained=self.settings.challenger.full_steps,
            samples=self.settings.samples,
            validation=self.settings.challenger.validation,
            temperature=self.settings.challenger.temperature,
            folder=folder,
            out=made,
        )
        for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines():
            step = json.loads(line)
            on_step(int(step["step"]), {key: step[key] for key in ("loss", "accuracy") if key in step})
        estimator = load_estimator(made, self.proposal.labels, self.backbone.size)
        estimator.known = None if self.missing_replays() else self._known
        return estimator

    def evaluate(self, estimator: Estimator, find_open: Callable[[Report], Collection[str]]) -> Evaluation:
        """Look at all held-out samples of what the challenger knows, and restore some.

        Champion and challenger restore the first of each kind, and more of those that `find_open`
        names.

        Raises:
            TrainingError: A label has no replay.
        """
        if missing := self.missing_replays():
            raise TrainingError(f"label {missing[0]}: found no held-out samples; expected some; add its plugin again")
        with open_score_cache(self.settings.home / "cache" / "measured.json") as cache:
            samples = self._held_out()
            champion = self._champion(cache)
            config, every = self.settings.challenger, self._replaces_backbone
            return evaluate(
                self.contender(estimator, cache),
                champion,
                samples,
                self.judged_as_new,
                find_open=find_open,
                first=config.first_look,
                # with another backbone every sample is restored in another way
                further=len(samples) if every else config.further_looks,
                budget=len(samples) if every else BUDGET,
            )

    def contender(self, estimator: Estimator, cache: ScoreCache | None = None) -> Contender:
        """Return the proposal with an estimator, ready to restore."""
        return self._contender(self.proposal, self.backbone, estimator, cache or ScoreCache())

    def champion_contender(self) -> Contender:
        """Return what is live, ready to restore."""
        return self._champion(ScoreCache())

    @cached_property
    def _known(self) -> Familiarity:
        """What tells whether a photo's damage is known, the new labels' among it."""
        return familiarity_of([self._replay(sha256) for sha256 in self._distinct_replays()])

    @property
    def _replaces_backbone(self) -> bool:
        return self.champion.fingerprint != self.base.fingerprint

    def _champion(self, cache: ScoreCache) -> Contender:
        """Return what is live, ready to restore."""
        backbone = self.backbone
        if self._replaces_backbone:
            backbone = load_backbone(self.blobs.path(self.champion.backbone_sha256))
        path = self.blobs.path(self.champion.estimator_sha256)
        estimator = load_estimator(path, self.champion.labels, backbone.size)
        return self._contender(self.champion, backbone, estimator, cache)

    def _contender(
        self, deployment: DeploymentSnapshot, backbone: Backbone, estimator: Estimator, cache: ScoreCache
    ) -> Contender:
        marks = {member.label: member.weights_sha256 for member in deployment.members}
        marks[CLEAN] = deployment.fingerprint
        adapters = self._adapters_of(deployment, backbone)
        return Contender(backbone, estimator, adapters, marks, cache, looks=self._replaces_backbone)

    def _adapters_of(self, deployment: DeploymentSnapshot, backbone: Backbone) -> dict[str, Adapter]:
        """Return a deployment's adapters, of which challenger and champion share most."""
        for member in deployment.members:
            if member not in self._adapters:
                self._adapters[member] = read_adapter_files(
                    *adapter_files(self.blobs, member), backbone, deployment.fingerprint, member.label
                )
        return {member.label: self._adapters[member] for member in deployment.members}

    def _held_out(self) -> list[HeldOut]:
        """Return held-out samples of labels and mixtures, fewer mixtures of the older ones."""
        samples: list[HeldOut] = []
        for member in self.proposal.members:
            samples += held_out_of(self._replay(member.replay), member.label)
        # undamaged photos of the platform and of new labels in turn, so that the first are of all
        new = [member.replay for member in self.proposal.members if member.label in self.new_labels]
        clean = [held_out_of(self._replay(sha256), CLEAN) for sha256 in (self.proposal.replay, *new)]
        samples += [sample for turn in zip_longest(*clean) for sample in turn if sample is not None]
        known = set(self.proposal.labels)
        later = {member.replay for member in self.proposal.members if member.label not in self.new_labels} - {
            self.proposal.replay
        }
        for sha256 in self._distinct_replays():
            mixtures = [s for s in self._replay(sha256).held_out if len(s.labels) > 1 and set(s.labels) <= known]
            kinds = list(dict.fromkeys(sample.labels for sample in mixtures))
            if sha256 in later:
                kinds = kinds[:1]  # with fifty labels there would be thousands to restore
            samples += [sample for kind in kinds for sample in mixtures if sample.labels == kind]
        # a blob may hold several labels' samples: each is restored once
        return list({sample.digest + str(sample.labels): sample for sample in samples}.values())

    def _known_features(self) -> list[Features]:
        """Return the features, mixtures included, of all labels that are not new."""
        known: list[Features] = []
        for replay in map(self._replay, self._old_replays()):
            known.append(replay.features)
            if replay.mixtures and set(self.new_labels).isdisjoint(replay.mixtures.features.labels):
                known.append(replay.mixtures.features)
        return known

    def _old_replays(self) -> list[str]:
        return self._distinct_replays(lambda member: member.label not in self.new_labels)

    def _distinct_replays(self, wanted: Callable[[Member], bool] = lambda _: True) -> list[str]:
        shas = [self.proposal.replay, *(member.replay for member in self.proposal.members if wanted(member))]
        return list(dict.fromkeys(sha256 for sha256 in shas if sha256 is not None))

    def _replay(self, sha256: str | None) -> Replay:
        if sha256 not in self._replays:
            self._replays[str(sha256)] = load_replay(self.blobs, sha256)
        return self._replays[str(sha256)]
