"""The steps of an operation: find, probe, record, train, evaluate, gate, publish.

Each is recorded before it begins, each is safe to repeat, and the one that makes a deployment live is one transaction.
Whatever stops an operation before it leaves what serves as it was; whatever stops it after has lost nothing, because
the file that serves, MLflow's aliases and the plugins' notices follow from the registry and are made up for by the
next command.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from sqlalchemy.orm import Session

from abair.continual.compare import Evaluation
from abair.errors import RegistryError, TrainingError
from abair.model.backbone import fingerprint
from abair.model.estimator import Estimator, save_estimator
from abair.report import Verdict
from abair_registry.db import queries
from abair_registry.db.models import CONCLUSION, PUBLISHED, AdapterRow, OperationRow
from abair_registry.db.queries import Actor
from abair_registry.db.snapshot import DeploymentSnapshot, live_snapshot, members_of
from abair_registry.operations import lock, run_report
from abair_registry.operations.after_commit import follow
from abair_registry.operations.challenger import Fit, Photos, Trainer, make_replay, replay_count
from abair_registry.operations.gates import GAIN, evaluate_gates
from abair_registry.operations.lock import Work
from abair_registry.operations.progress import Steps, Terminal
from abair_registry.plugins import calls
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.registry import Registry
from abair_registry.settings import Thresholds
from abair_registry.storage import publish
from abair_registry.tracking.mlflow_client import Runs

Route = Literal["auto", "features", "full"]
Way = Literal["live", "challenger", "rejected"]


@dataclass(frozen=True)
class _Attempt:
    """An estimator that was fitted to features in one way, and what the gates say of it."""

    fit: Fit
    estimator: Estimator
    evaluation: Evaluation
    verdicts: list[Verdict]

    @property
    def refused(self) -> list[Verdict]:
        """Those that it does not pass."""
        return [verdict for verdict in self.verdicts if not verdict.passed]


@dataclass(frozen=True)
class OperationOptions:
    """How an operation shall be done; `force` publishes what gates refuse, `review` publishes nothing."""

    route: Route = "auto"
    review: bool = False
    force: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    seed: int = 0
    wait: bool = False


@dataclass(frozen=True)
class OperationResult:
    """How an operation ended."""

    operation: int
    outcome: Way
    deployment: int
    run_id: str | None
    route: str | None
    verdicts: tuple[Verdict, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """JSON values; of the gates what a program needs."""
        gates = [verdict.model_dump(include={"name", "passed", "measured", "threshold"}) for verdict in self.verdicts]
        told = {key: value for key, value in vars(self).items() if key not in ("verdicts", "seconds")}
        return told | {"gates": gates, "seconds": self.seconds}


@dataclass(frozen=True)
class Proposal:
    """What an operation proposes: the parts that shall serve, the labels that are new in it, and what it is about.

    `settle_states` writes the plugin's state in the transaction that publishes.
    """

    subject: str
    proposal: DeploymentSnapshot
    fresh: tuple[str, ...] = ()
    settle_states: Callable[[Session], None] = lambda session: None
    on_refusal: Callable[[Session, str], None] = lambda session, reason: None


def run(
    registry: Registry,
    kind: str,
    subject: str,
    actor: Actor,
    options: OperationOptions,
    prepare: Callable[[Work, Steps], Proposal | None],
    terminal: Terminal,
) -> OperationResult:
    """Do an operation that makes a challenger: `prepare` says what it proposes, or that there is nothing to do.

    Raises:
        AbairError: it cannot be done; what was live still is.
        RegistryError: another operation is running, and nobody wanted to wait.
    """
    began = time.monotonic()
    asked = asdict(options) | {"thresholds": options.thresholds.model_dump()}
    working = lock.working(
        registry.database, kind, subject, actor, arguments=asked, wait=options.wait, waiting=terminal.waiting
    )
    with working as work, terminal.steps as steps:
        change = prepare(work, steps)
        if change is None:
            with registry.database.read() as session:
                result = _Done("live", live_snapshot(session).number, None, None, [])
        else:
            result = _Operation(registry, work, kind, actor, options, change, terminal).do()
    return OperationResult(
        operation=work.id,
        outcome=result.outcome,
        deployment=result.deployment,
        run_id=result.run_id,
        route=result.route,
        verdicts=tuple(result.verdicts),
        seconds=round(time.monotonic() - began, 1),
    )


@dataclass(frozen=True)
class _Done:
    outcome: Way
    deployment: int
    run_id: str | None
    route: str | None
    verdicts: list[Verdict]


class _Operation:
    """From the proposal to its publication, in one MLflow run."""

    def __init__(
        self,
        registry: Registry,
        work: Work,
        kind: str,
        actor: Actor,
        options: OperationOptions,
        change: Proposal,
        terminal: Terminal,
    ) -> None:
        self.registry, self.work, self.kind, self.actor, self.options = registry, work, kind, actor, options
        self.change, self.steps, self.warn = change, terminal.steps, terminal.warn
        with registry.database.read() as session:
            self.champion = live_snapshot(session)
        self.photos = Photos(registry.settings.clean_dir)
        self.runs = Runs(registry.settings)
        self.trainer = Trainer(
            blobs=registry.blobs,
            champion=self.champion,
            proposal=change.proposal,
            fresh=change.fresh,
            photos=self.photos,
            seed=options.seed,
            cache=registry.settings.home / "cache",
            samples=registry.settings.samples,
        )

    def do(self) -> _Done:
        """Train, evaluate, gate, publish."""
        with self._tracked() as run_id:
            plugins = calls.verify_plugins(self.change.proposal.members)
            for name, why in plugins.left_out.items():
                if why != calls.NOT_INSTALLED:
                    self.warn(f"plugin {name}: {why}; its own gate and notice are left out")
            frozen = self._frozen()
            estimator, route, why, evaluation, verdicts = self._challenger(run_id, plugins)
            if self._frozen() != frozen:
                raise TrainingError("backbone or adapters changed during the training; run: abair-registry doctor")
            self.runs.tags(run_id, {"abair.route": route, "abair.route.why": why, "abair.frozen": frozen})
            refused = [verdict.name for verdict in verdicts if not verdict.passed]
            outcome: Way = "live"
            if refused and not self.options.force:
                outcome = "rejected"
            elif self.options.review:
                outcome = "challenger"
            run_report.evidence(
                self.runs, run_id, self.change, evaluation, verdicts, self.trainer.contender(estimator),
                champion=self.champion, route=route, why=why,
            )  # fmt: skip
            number = self._conclude(outcome, estimator, route, run_id, verdicts)
        self._follow(plugins, outcome)
        return _Done(outcome, number, run_id, route, verdicts)

    def _challenger(
        self, run_id: str, plugins: VerifiedPlugins
    ) -> tuple[Estimator, str, str, Evaluation | None, list[Verdict]]:
        """The estimator by the route that was asked for, or else by features first and in full if gates refuse that."""
        if self.trainer.missing() and not self.change.fresh and self.options.route != "full":
            # nothing is known of what serves: its outputs stay as they are, as the bundle's makers trained them
            return self.trainer.by_features(lambda *_: None), "features", "no samples to judge by", None, []
        if self.options.route != "full":
            why = "asked for" if self.options.route == "features" else "first choice"
            best, how = self._by_features(run_id, plugins)
            why = "; ".join([why, *how])
            if not best.refused or self.options.route == "features":
                return best.estimator, "features", why, best.evaluation, best.verdicts
            if lost := self._lost(best.refused) or self._not_installed(plugins):
                why = f"{why}; not in full, because {lost}"
                return best.estimator, "features", why, best.evaluation, best.verdicts
            why = f"by features, {'; '.join(how)}, refused: {_names(best.refused)}"
        else:
            why = "asked for"
            if reason := self._not_installed(plugins):
                raise RegistryError(f"the full route: {reason}; install what is missing, or take --route features")
        estimator = self._train("full", self.trainer.anew, run_id)
        evaluation, verdicts = self._judge(estimator, plugins)
        return estimator, "full", why, evaluation, verdicts

    def _by_features(self, run_id: str, plugins: VerifiedPlugins) -> tuple[_Attempt, list[str]]:
        """The first fit that no gate refuses, or else the one that fewest refuse; and how it came to that."""
        made: list[_Attempt] = []
        for fit in self.trainer.fits():
            estimator = self._train("features", partial(self.trainer.by_features, fit=fit), run_id)
            made.append(_Attempt(fit, estimator, *self._judge(estimator, plugins)))
            refused = made[-1].refused
            if not refused or not self.change.fresh or any(verdict.name.endswith(GAIN) for verdict in refused):
                break
            run_report.verdicts(self.runs, run_id, made[-1].verdicts, f"refused/features, {fit}.md")
            if fit != "with chains" and self._lost(refused):
                break
        best = min(made, key=lambda attempt: len(attempt.refused))  # of equals the first
        if not self.change.fresh:
            return best, []
        others = [f"fitted {one.fit}: refused by {_names(one.refused)}" for one in made if one is not best]
        return best, [*others, f"fitted {best.fit}"]

    def _train(self, route: str, make: Callable[[Callable[..., None]], Estimator], run_id: str) -> Estimator:
        self.work.step("train", route=route)
        trained = self.change.fresh or route == "full"
        self.steps.begin(
            f"train the estimator ({route})" if trained else "keep the estimator's outputs for what is left"
        )

        def watch(step: int, figures: dict[str, float]) -> None:
            self.runs.metrics(run_id, {f"train/{name}": value for name, value in figures.items()}, step)

        return make(watch)

    def _judge(self, estimator: Estimator, plugins: VerifiedPlugins) -> tuple[Evaluation, list[Verdict]]:
        self.work.step("evaluate")
        self.steps.begin("evaluate on held-out samples")
        evaluation = self.trainer.judge(estimator)
        self.work.step("gate")
        return evaluation, [
            *evaluate_gates(evaluation.report, self.options.thresholds),
            *calls.ask_gates(plugins, evaluation.report),
        ]

    def _lost(self, refused: Sequence[Verdict]) -> str | None:
        """Why no other estimator would help."""
        if any(verdict.name.endswith(GAIN) for verdict in refused):
            return "no estimator mends an adapter"
        if refused and all(verdict.name.startswith("plugin ") for verdict in refused):
            return "a plugin's own gate refused"
        return None

    def _not_installed(self, plugins: VerifiedPlugins) -> str | None:
        """Why the synthesisers of all labels cannot be had."""
        return "; ".join(f"plugin {name}: {why}" for name, why in plugins.left_out.items()) or None

    def _conclude(
        self, outcome: Way, estimator: Estimator, route: str, run_id: str, verdicts: Sequence[Verdict]
    ) -> int:
        """One transaction: the deployment, live or waiting for review, or the refusal; returns its number."""
        refused = [verdict.name for verdict in verdicts if not verdict.passed]

        def concluded(operation: OperationRow, number: int, **detail: Any) -> None:
            title = f"{self.kind} {self.change.subject}"
            conclusion = run_report.conclusion(title, outcome, number, verdicts, forced=bool(refused))
            operation.step = PUBLISHED
            operation.detail = operation.detail | detail | {CONCLUSION: asdict(conclusion)}

        self.work.step("publish")
        self.steps.begin("publish")
        with self.registry.blobs.writing() as path:
            save_estimator(estimator, path)
            sha256 = self.registry.blobs.add(path)
        told: dict[str, Any] = {"champion": self.champion.number, "route": route}
        if refused:
            told["refused"] = list(refused)
        if refused and self.options.force:
            told["forced"] = True
        with self.work.session() as (session, operation):
            if publish.live_number(session) != self.champion.number:
                raise RegistryError(
                    f"deployment {self.champion.number}: is no longer live; expected it to stay while a challenger was "
                    "made; nothing was published; run the command again"
                )
            if outcome == "rejected":
                reason = f"refused by {', '.join(refused)}"
                self.change.on_refusal(session, reason)
                queries.record_event(
                    session, self.actor, "reject", self.change.subject, told, operation_id=operation.id
                )
                concluded(operation, self.champion.number)
                return self.champion.number
            adapters = [session.get_one(AdapterRow, member.adapter_id) for member in self.change.proposal.members]
            outputs = queries.estimator(session, sha256, list(self.change.proposal.labels))
            deployment = queries.propose(
                session, adapters, outputs, self.actor, action="propose", subject=self.change.subject,
                operation_id=operation.id, run_id=run_id, detail=told,
            )  # fmt: skip
            if outcome == "live":
                queries.publish(
                    session, deployment, self.actor, action=self.kind, subject=self.change.subject,
                    operation_id=operation.id, detail=told,
                )  # fmt: skip
                self.change.settle_states(session)
            concluded(operation, deployment.number, deployment=deployment.number, outcome=outcome)
            return deployment.number

    def _follow(self, plugins: VerifiedPlugins, outcome: Way) -> None:
        """What follows from the registry: the file that serves, MLflow's versions and aliases, the plugins' notices."""
        follow(self.registry, self.runs, plugins if outcome == "live" else None, self.warn)

    def _frozen(self) -> str:
        """One hash over the backbone and all adapters that serve or shall."""
        digest = hashlib.sha256(fingerprint(self.trainer.backbone).encode())
        for member in (*self.champion.members, *self.change.proposal.members):
            for sha256 in (member.config_sha256, member.weights_sha256):
                problem = self.registry.blobs.problem(sha256)
                if problem:
                    raise RegistryError(f"adapter {member.label}: {problem}; run: abair-registry doctor")
                digest.update(sha256.encode())
        return digest.hexdigest()

    @contextmanager
    def _tracked(self) -> Iterator[str]:
        """The operation's run: ended as it ends, never left running."""
        self.work.step("track")
        with self.work.session() as (_, operation):
            started = operation.started.isoformat()
        data = self.photos.digests() if self.change.fresh else {}
        run_id = run_report.begin(
            self.runs, self.kind, self.work.id, started, self.actor, self.options, self.change, self.champion, data
        )
        self.work.step("track", run_id=run_id)
        try:
            yield run_id
        except BaseException as error:
            status: Literal["KILLED", "FAILED"] = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            reason = "stopped by Ctrl-C" if status == "KILLED" else str(error) or type(error).__name__
            with suppress(RegistryError):  # it may be what failed; `doctor` ends the run when it can be reached
                if not self._concluded(run_id):
                    self.runs.end(run_id, status, reason)
            raise
        try:
            self._concluded(run_id)
        except RegistryError as error:
            self.warn(f"{error}; what is live is live, but the run does not say it; run: abair-registry doctor")

    def _concluded(self, run_id: str) -> bool:
        """End the run as it is recorded that the operation ended; whether that is."""
        with self.registry.database.read() as session:
            conclusion = session.get_one(OperationRow, self.work.id).detail.get(CONCLUSION)
        if conclusion is not None:
            self.runs.conclude(run_id, **conclusion)
        return conclusion is not None


def _names(verdicts: Sequence[Verdict]) -> str:
    return ", ".join(verdict.name for verdict in verdicts)


def remember(
    registry: Registry, champion: DeploymentSnapshot, adapters: Sequence[int], options: OperationOptions, steps: Steps
) -> None:
    """Make and keep the replay of each adapter's label, unless it is kept already.

    Raises:
        TrainingError: a synthesiser failed.
    """
    with registry.database.read() as session:
        kept = queries.replays(session, champion.backbone_id, list(adapters))
        new = members_of([session.get_one(AdapterRow, number) for number in adapters if number not in kept], kept)
    photos = Photos(registry.settings.clean_dir)
    for member in new:
        steps.begin(f"{member.label}: damage clean photos and look at them", replay_count(champion, member.label))
        sha256 = make_replay(registry.blobs, champion, member, photos, options.seed, steps.advance)
        with registry.database.write() as session:
            queries.keep_replay(session, champion.backbone_id, member.adapter_id, sha256)
