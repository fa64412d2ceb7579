"""Makes and judges challengers: the estimator of a proposal by either route, and what it does to held-out samples.

Only an estimator is ever made here; backbone and adapters are read from blobs and frozen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import torch

from abair.continual.compare import Contender, Evaluation, evaluate
from abair.continual.refit import RefitConfig, refit
from abair.continual.replay import Features, HeldOut, Replay
from abair.continual.score_cache import ScoreCache, open_score_cache
from abair.data.photos import CleanPhotos, load_clean_photos
from abair.errors import TrainingError
from abair.labels import CLEAN
from abair.model.backbone import Backbone, load_backbone
from abair.model.estimator import Estimator, load_estimator
from abair.model.lora import Adapter, read_adapter_files
from abair_registry.db.snapshot import DeploymentSnapshot, Member
from abair_registry.plugins import calls
from abair_registry.plugins.worker.jobs import EstimatorJob, LabelReplay, PluginRef, ReplayJob, TrainedAdapter
from abair_registry.storage.blobs import Blobs

TRAINED: Final = 160
"""Scenes for each of two labels, a new one and `clean`: features of twice as many are kept, damaged and undamaged."""
JUDGED: Final = 20
"""Held-out samples of a label when it is new."""
REMEMBERED: Final = 12
"""Those of them that later labels are judged by."""
KEPT: Final = 6
"""Held-out samples of a mixture."""
MIXED_WITH: Final = 5
"""Live labels at most whose damage a new label is put over: the mixtures that it is judged on."""
CHAINED: Final = 320
"""Samples with a new label's damage over that of a live one, however many are live."""
CHAINED_WITH: Final = 16
"""Live labels at most that it is put over."""
FULL_STEPS: Final = 1200
"""Of the full route, with `Settings.samples` samples."""

Watch = Callable[[int, dict[str, float]], None]
Fit = Literal["with chains", "alone", "whole"]


@dataclass(frozen=True)
class Photos:
    """The clean photos that samples are made of, and the held-out ones; read when they are first needed."""

    folder: Path | None

    @cached_property
    def both(self) -> tuple[CleanPhotos, CleanPhotos]:
        """To train on, and held out."""
        return load_clean_photos(self.folder)

    def digests(self) -> dict[str, str]:
        """Which photos these are."""
        train, held_out = self.both
        return {"photos": train.digest(), "photos held out": held_out.digest()}


def chained_with(champion: DeploymentSnapshot, label: str) -> tuple[Member, ...]:
    """The live parts whose damage can be made again, to put that of a new label over it.

    These are the ones whose plugins are installed as they are recorded; the others' mixtures with it are not learnt,
    nor those of two labels that come together.
    """
    others = [member for member in champion.members if member.label != label]
    there = {point.name for point in calls.verify_plugins(others).refs}
    known = [member for member in others if member.plugin in there]
    return tuple(_spread(known, CHAINED_WITH))


def make_replay(
    blobs: Blobs, champion: DeploymentSnapshot, member: Member, photos: Photos, seed: int, tell: Callable[[], object]
) -> str:
    """What a new label leaves behind, made in a process of its own and kept as a blob; returns its SHA-256.

    Raises:
        TrainingError: the synthesiser failed, or what it left is no replay of the label.
    """
    label = member.label
    others = [other for other in champion.members if other.label != label and other.replay]
    chosen = _spread(others, MIXED_WITH)
    known = chained_with(champion, label)
    with blobs.writing() as path:
        calls.run_job(
            ReplayJob,
            calls.REPLAY_LIMITS,
            tell,
            plugins=_points([member, *known]),
            threads=torch.get_num_threads(),
            label=label,
            adapter=_files(blobs, member),
            known=tuple(TrainedAdapter(label=other.label, files=_files(blobs, other)) for other in known),
            backbone=blobs.path(champion.backbone_sha256),
            photos=photos.folder,
            others=tuple(LabelReplay(label=other.label, replay=blobs.path(str(other.replay))) for other in chosen),
            seed=seed,
            trained=TRAINED,
            judged=JUDGED,
            kept=KEPT,
            chained=CHAINED,
            out=path,
        )
        made = Replay.load(path)
        of = made.features
        chained = made.mixtures.features.labels if made.mixtures else (label, CLEAN)
        asked = {*(other.label for other in known), label, CLEAN}  # those that do not work are left out
        if (
            (of.backbone, of.labels, chained[-2:]) != (champion.fingerprint, (label, CLEAN), (label, CLEAN))
            or not asked.issuperset(chained)
            or len(_singles(made, label)) != JUDGED
        ):
            raise TrainingError(
                f"degradation {label}: found a replay of {', '.join(of.labels)} with chains of {', '.join(chained)}, "
                f"expected one of {label} by this backbone; its synthesiser may not touch it"
            )
        return blobs.add(path)


def _spread(members: Sequence[Member], most: int) -> list[Member]:
    """So many of the parts at most, spread evenly over them: of the same parts always the same."""
    count = min(most, len(members))
    return [members[place * len(members) // count] for place in range(count)]


def _files(blobs: Blobs, member: Member) -> tuple[Path, Path]:
    return blobs.path(member.config_sha256), blobs.path(member.weights_sha256)


def _points(members: Sequence[Member]) -> tuple[PluginRef, ...]:
    """The plugins of the parts.

    Raises:
        TrainingError: one of them is not installed as it is recorded.
    """
    trusted = calls.verify_plugins(members)
    if trusted.left_out:
        name, why = next(iter(trusted.left_out.items()))
        raise TrainingError(f"plugin {name}: {why}; expected it installed as it is recorded; install that version")
    return trusted.refs


def replay_count(champion: DeploymentSnapshot, label: str) -> int:
    """How often `make_replay` tells at most: once a sample."""
    return 2 * TRAINED + 2 * JUDGED + (CHAINED if chained_with(champion, label) else 0)


@dataclass
class Trainer:
    """One proposal against the champion that it would follow. `fresh` are the labels whose damage is new."""

    blobs: Blobs
    champion: DeploymentSnapshot
    proposal: DeploymentSnapshot
    fresh: tuple[str, ...]
    photos: Photos
    seed: int
    cache: Path
    samples: int = 1500
    refit_steps: int = 1500
    _loaded: dict[str, Replay] = field(default_factory=dict)
    _read: dict[Member, Adapter] = field(default_factory=dict)

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen network."""
        return load_backbone(self.blobs.path(self.champion.backbone_sha256))

    @cached_property
    def outputs(self) -> Estimator:
        """The champion's estimator."""
        path = self.blobs.path(self.champion.estimator_sha256)
        return load_estimator(path, self.champion.labels, self.backbone.size)

    @cached_property
    def start(self) -> Estimator:
        """The estimator that the challenger begins with: the champion's, or one that knew its labels already."""
        if self.proposal.estimator_sha256 == self.champion.estimator_sha256:
            return self.outputs
        path = self.blobs.path(self.proposal.estimator_sha256)
        return load_estimator(path, self.proposal.labels, self.backbone.size)

    def missing(self) -> list[str]:
        """The labels that left nothing behind, so that nothing can be fitted to them, nor judged by them."""
        kept = {member.label: member.replay for member in self.proposal.members} | {CLEAN: self.proposal.replay}
        return [label for label, sha256 in kept.items() if sha256 is None]

    def fits(self) -> tuple[Fit, ...]:
        """The ways to refit to features, in the order in which they are to be tried."""
        if not self.fresh:
            return ("alone",)
        fresh = [member for member in self.proposal.members if member.label in self.fresh and member.replay]
        chained = any(self._replay(member.replay).mixtures for member in fresh)
        return ("with chains", "alone", "whole") if chained else ("alone", "whole")

    def by_features(self, watch: Watch, *, fit: Fit = "alone") -> Estimator:
        """The champion's estimator refitted to the features of all labels; where none is new, its outputs as they are.

        The new labels' outputs `alone`, or `with chains`, by which their blends with the others are learnt; or the
        `whole` of it, so that what it says of old labels may change, too (see `refit`).

        Raises:
            TrainingError: a label left nothing behind.
        """
        if not self.fresh:
            return self.start.with_labels(self.proposal.labels)
        if missing := self.missing():
            raise TrainingError(
                f"label {missing[0]}: found no features of earlier samples; expected some; --route full"
            )
        new = [member for member in self.proposal.members if member.label in self.fresh]
        known: list[Features] = []
        for replay in map(self._replay, self._old()):
            known.append(replay.features)
            if replay.mixtures and set(self.fresh).isdisjoint(replay.mixtures.features.labels):
                known.append(replay.mixtures.features)
        fresh = [self._replay(member.replay) for member in new]
        return refit(
            self.outputs,
            self.champion.fingerprint,
            self.proposal.labels,
            known,
            [replay.features for replay in fresh],
            self.seed,
            watch,
            mixtures=[replay.mixtures for replay in fresh if replay.mixtures and fit == "with chains"],
            whole=fit == "whole",
            config=RefitConfig(steps=self.refit_steps, report_every=max(1, min(100, self.refit_steps // 3))),
        )

    def anew(self, watch: Watch) -> Estimator:
        """The whole estimator, from samples of all labels, made by their plugins' synthesisers, and its temperature.

        It is made in a process of its own, because the synthesisers run there.

        Raises:
            TrainingError: a synthesiser failed, a plugin is not installed as it is recorded, or there are no photos.
        """
        folder = self.cache / "estimator"
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / "estimator.safetensors"
        calls.run_job(
            EstimatorJob,
            calls.TRAINING_LIMITS,
            plugins=_points(self.proposal.members),
            threads=torch.get_num_threads(),
            labels=self.proposal.labels,
            backbone=self.blobs.path(self.champion.backbone_sha256),
            adapters=tuple(_files(self.blobs, member) for member in self.proposal.members),
            photos=self.photos.folder,
            seed=self.seed,
            trained=FULL_STEPS,
            samples=self.samples,
            folder=folder,
            out=made,
        )
        for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            watch(int(told["step"]), {key: told[key] for key in ("loss", "accuracy") if key in told})
        return load_estimator(made, self.proposal.labels, self.backbone.size)

    def judge(self, estimator: Estimator) -> Evaluation:
        """The challenger and the champion on all held-out samples of what the challenger knows.

        Raises:
            TrainingError: a label left no samples behind.
        """
        if missing := self.missing():
            raise TrainingError(f"label {missing[0]}: found no held-out samples; expected some; add its plugin again")
        with open_score_cache(self.cache / "measured.json") as known:
            champion = self._contender(self.champion, self.outputs, known)
            return evaluate(self.contender(estimator, known), champion, self._held_out(), self.fresh)

    def contender(self, estimator: Estimator, known: ScoreCache | None = None) -> Contender:
        """The proposal with an estimator, ready to restore."""
        return self._contender(self.proposal, estimator, known or ScoreCache())

    def _contender(self, of: DeploymentSnapshot, estimator: Estimator, known: ScoreCache) -> Contender:
        marks = {member.label: member.weights_sha256 for member in of.members} | {CLEAN: of.fingerprint}
        return Contender(self.backbone, estimator, self._adapters(of), marks, known)

    def _adapters(self, of: DeploymentSnapshot) -> dict[str, Adapter]:
        """Those of a deployment; challenger and champion share most, so each is read once."""
        for member in of.members:
            if member not in self._read:
                self._read[member] = read_adapter_files(
                    *_files(self.blobs, member), self.backbone, of.fingerprint, member.label
                )
        return {member.label: self._read[member] for member in of.members}

    def _held_out(self) -> list[HeldOut]:
        """Of each label its own, of mixtures those that every replay holds; fewer of the older ones."""
        samples: list[HeldOut] = []
        for member in self.proposal.members:
            own = _singles(self._replay(member.replay), member.label)
            samples += own if member.label in self.fresh else own[:REMEMBERED]
        samples += _singles(self._replay(self.proposal.replay), CLEAN)[:REMEMBERED]
        for member in self.proposal.members:
            if member.label in self.fresh:
                samples += _singles(self._replay(member.replay), CLEAN)
        known = set(self.proposal.labels)
        later = {member.replay for member in self.proposal.members if member.label not in self.fresh} - {
            self.proposal.replay
        }
        for sha256 in self._shas():
            mixtures = [s for s in self._replay(sha256).held_out if len(s.labels) > 1 and set(s.labels) <= known]
            kinds = list(dict.fromkeys(sample.labels for sample in mixtures))
            if sha256 in later:
                kinds = kinds[:1]  # or there would be thousands to restore when there are fifty labels
            for kind in kinds:
                samples += [sample for sample in mixtures if sample.labels == kind][:KEPT]
        # a blob may hold several labels' samples: each is looked at once
        return list({sample.digest + str(sample.labels): sample for sample in samples}.values())

    def _old(self) -> list[str]:
        return self._shas(lambda member: member.label not in self.fresh)

    def _shas(self, wanted: Callable[[Member], bool] = lambda member: True) -> list[str]:
        shas = [self.proposal.replay, *(member.replay for member in self.proposal.members if wanted(member))]
        return list(dict.fromkeys(sha256 for sha256 in shas if sha256 is not None))

    def _replay(self, sha256: str | None) -> Replay:
        if sha256 not in self._loaded:
            self._loaded[str(sha256)] = _load(self.blobs, sha256)
        return self._loaded[str(sha256)]


def _singles(replay: Replay, label: str) -> list[HeldOut]:
    return [sample for sample in replay.held_out if sample.labels == (label,)]


def _load(blobs: Blobs, sha256: str | None) -> Replay:
    if sha256 is None:
        raise TrainingError("replay: found none; expected one; --route full")
    return Replay.load(blobs.path(sha256))
