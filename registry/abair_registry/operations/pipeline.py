"""The pipeline of an operation: plan, sample, train, evaluate, gate, publish.

Each step is recorded before it begins and is safe to repeat. The step that makes a deployment live
is one transaction. If an operation stops before it, what is live stays as it was. If it stops after
it, nothing is lost: the file that serves, MLflow's aliases and the plugins' notices follow from the
registry, and the next command brings them up to date.
"""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

from sqlalchemy.orm import Session
from typing_extensions import override

from abair.errors import RegistryError, TrainingError
from abair.model.backbone import fingerprint
from abair.model.estimator import save_estimator
from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.db.models import CONCLUSION, PUBLISHED, AdapterRow, DeploymentRow, OperationRow
from abair_registry.db.snapshot import live_snapshot
from abair_registry.operations import lock, refused, run_report
from abair_registry.operations.after_commit import follow
from abair_registry.operations.challenger import Trainer
from abair_registry.operations.lock import Work
from abair_registry.operations.progress import OperationLog, Steps, Terminal, quiet
from abair_registry.operations.replays import Photos, add_replays
from abair_registry.operations.requests import (
    Operation,
    OperationOptions,
    OperationResult,
    Outcome,
    Proposal,
    Unchanged,
)
from abair_registry.operations.routes import Challenger, ChallengerChoice
from abair_registry.plugins import calls
from abair_registry.plugins.gates import find_gates, refuse_broken
from abair_registry.registry import Registry
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.outbox import OperationRun


class ChallengerOperation(Operation):
    """An operation that makes a challenger and, if its gates pass, makes it live.

    A subclass plans what is proposed, and writes the plugin's state when the proposal is published
    or refused.
    """

    samples_new_labels: ClassVar[bool] = False
    """Whether new labels get replays; otherwise they must have them."""

    def __init__(self, subject: str, actor: Actor, options: OperationOptions | None = None) -> None:
        self.subject, self.actor, self.options = subject, actor, options or OperationOptions()

    @classmethod
    @override
    def from_record(cls, subject: str, arguments: Mapping[str, Any], actor: Actor) -> Self:
        """Return the operation that was recorded with these arguments."""
        return cls(subject, actor, OperationOptions.from_json(arguments))

    def arguments(self) -> dict[str, Any]:
        """Return what is recorded, from which `from_record` makes the same operation."""
        return self.options.as_json()

    def find(self, session: Session) -> None:
        """Find what the operation is about, and correct `subject` to its name.

        Raises:
            AbairError: There is no such thing.
        """

    def unchanged(self, session: Session, registry: Registry) -> Unchanged | None:
        """Return why nothing has to be done, if that is plain from what is recorded.

        Raises:
            AbairError: The operation cannot be done.
        """

    def prepare(self, registry: Registry, steps: Steps) -> None:
        """Check what takes time before the operation is recorded and leaves a trace.

        Raises:
            AbairError: The operation cannot be done.
        """

    @abstractmethod
    def plan(self, registry: Registry, work: Work, steps: Steps) -> Proposal | Unchanged:
        """Return what is proposed, or why nothing has to be made.

        Raises:
            AbairError: The operation cannot be done.
        """

    def on_publish(self, session: Session) -> None:
        """Write the plugin's state, in the transaction that makes the proposal live."""

    def on_refusal(self, session: Session, reason: str) -> None:
        """Write the plugin's state, in the transaction that records the refusal."""

    @override
    def run(self, registry: Registry, terminal: Terminal | None = None) -> OperationResult:
        """Run the whole pipeline.

        Raises:
            AbairError: The operation cannot be done; what was live still is.
            RegistryError: Another operation is running, and this one was not asked to wait.
        """
        terminal = terminal or quiet()
        with registry.database.read() as session:
            self.find(session)
            # what somebody does at this moment may change the answer
            unchanged = self.unchanged(session, registry) if lock.running(session) is None else None
            left = lock.interrupted(session) if unchanged else None
            live = live_snapshot(session).number
        if unchanged is not None:
            if left is not None and (left.kind, left.subject) == (self.kind, self.subject):
                lock.settle(registry.database, left.id)
            return OperationResult(None, "live", live, None, None, (), 0.0, unchanged.why)
        self.prepare(registry, terminal.steps)
        began = time.monotonic()
        working = lock.working(
            registry.database, self.kind, self.subject, self.actor,
            arguments=self.arguments(), wait=self.options.wait, waiting=terminal.waiting,
        )  # fmt: skip
        with working as work, terminal.steps as steps:
            proposal = self.plan(registry, work, steps)
            if isinstance(proposal, Unchanged):
                with registry.database.read() as session:
                    ended = _Ended("live", live_snapshot(session).number, unchanged=proposal.why)
            else:
                ended = _Pipeline(self, registry, work, proposal, terminal).run()
        challenger = ended.challenger
        return OperationResult(
            operation=work.id,
            outcome=ended.outcome,
            deployment=ended.deployment,
            run_id=ended.run_id,
            route=challenger.route if challenger else None,
            results=tuple(challenger.results) if challenger else (),
            seconds=round(time.monotonic() - began, 1),
            unchanged=ended.unchanged,
            lowered=self.options.thresholds.lowered() if challenger else {},
        )


@dataclass(frozen=True)
class _Ended:
    """How a pipeline ended: the deployment that is live or waits, and the challenger, if any."""

    outcome: Outcome
    deployment: int
    run_id: str | None = None
    challenger: Challenger | None = None
    unchanged: str | None = None


class _Pipeline:
    """One proposal on its way from its samples to its publication, in one MLflow run."""

    def __init__(
        self, operation: ChallengerOperation, registry: Registry, work: Work, proposal: Proposal, terminal: Terminal
    ) -> None:
        self.operation, self.registry, self.work, self.terminal = operation, registry, work, terminal
        with registry.database.read() as session:
            self.champion = live_snapshot(session)
            files = queries.recorded_files(session, (m.adapter_id for m in proposal.deployment.members))
        # the installed metadata is scanned once; later steps get what was found
        self.plugins = calls.verify_plugins(proposal.deployment.members, files)
        self.gates = find_gates(self.plugins)
        if not operation.options.force:
            refuse_broken(self.gates)
        self.proposal = self._sampled(proposal)
        self.runs = Runs(registry.settings)
        self.trainer = Trainer(
            blobs=registry.blobs,
            settings=registry.settings,
            champion=self.champion,
            base=self.proposal.base or self.champion,
            proposal=self.proposal.deployment,
            new_labels=self.proposal.new_labels,
            seed=operation.options.seed,
        )

    def run(self) -> _Ended:
        """Train, evaluate, gate and publish; then update the file, MLflow and the plugins."""
        with self._tracked() as run:
            for name, why in self.plugins.unasked.items():
                self.terminal.warn(f"plugin {name}: {why}; its own gate and notice are left out")
            frozen = self._frozen()
            log = OperationLog(self.work, self.terminal.steps, run)
            challenger = ChallengerChoice(self.trainer, self.operation.options, self.plugins, self.gates, log).choose()
            if self._frozen() != frozen:
                raise TrainingError("backbone or adapters changed during the training; run: abair-registry doctor")
            run.tags({"abair.route": challenger.route, "abair.route.why": challenger.why, "abair.frozen": frozen})
            outcome = self._outcome(challenger)
            run_report.evidence(
                run, self.operation, self.proposal, challenger.evaluation, challenger.results,
                (self.trainer.contender(challenger.estimator), self.trainer.champion_contender()),
                champion=self.champion, outcome=outcome, options=self.operation.options,
                route=challenger.route, why=challenger.why, unasked=self.plugins.unasked,
                separations=self.trainer.separations, stages=self.terminal.steps.stages(),
            )  # fmt: skip
            sha256 = self._keep_estimator(challenger)
            number = self._conclude(outcome, challenger, sha256, run.run_id)
            if outcome == "rejected":
                refused.keep(run, self.registry, self.proposal.deployment, sha256, self.work.id, self.terminal.warn)
        notified = self.plugins if outcome == "live" else None
        follow(self.registry, self.runs, notified, self.terminal, self.work.id)
        return _Ended(outcome, number, run.run_id, challenger)

    def _sampled(self, proposal: Proposal) -> Proposal:
        """Return the proposal with its new labels' replays, where the operation makes them."""
        if not self.operation.samples_new_labels:
            return proposal
        self.work.step("train")
        return add_replays(
            self.registry,
            proposal.base or self.champion,
            proposal,
            self.plugins,
            self.operation.options.seed,
            self.terminal.steps,
        )

    def _outcome(self, challenger: Challenger) -> Outcome:
        if challenger.refused and not self.operation.options.force:
            return "rejected"
        return "challenger" if self.operation.options.review else "live"

    def _keep_estimator(self, challenger: Challenger) -> str:
        """Keep the estimator as a blob and return its SHA-256."""
        with self.registry.blobs.writing() as path:
            save_estimator(challenger.estimator, path)
            return self.registry.blobs.add(path)

    def _conclude(self, outcome: Outcome, challenger: Challenger, sha256: str, run_id: str | None) -> int:
        """Record the deployment or the refusal in one transaction; return what is live or waits."""
        operation, subject = self.operation, self.proposal.subject
        detail: dict[str, Any] = {"champion": self.champion.number, "route": challenger.route}
        if self.plugins.unasked:
            detail["gates not asked"] = self.plugins.unasked
        detail |= refused.judgement(challenger.results, operation.options.thresholds, forced=outcome != "rejected")
        self.work.step("publish")
        if outcome == "live":
            self.terminal.steps.begin("publish")
        with self.work.session() as (session, row):
            if queries.live_number(session) != self.champion.number:
                raise RegistryError(
                    f"deployment {self.champion.number}: is no longer live; expected it to stay while a challenger was "
                    "made; nothing was published; run the command again"
                )
            if outcome == "rejected":
                operation.on_refusal(session, f"refused by {', '.join(detail['refused'])}")
                audit.record_event(session, operation.actor, "reject", subject, detail, operation_id=row.id)
                self._record_conclusion(row, outcome, self.champion.number, challenger)
                return self.champion.number
            deployment = self._propose(session, row, sha256, run_id, detail)
            if outcome == "live":
                queries.publish(
                    session, deployment, operation.actor, action=operation.kind, subject=subject,
                    operation_id=row.id, detail=detail,
                )  # fmt: skip
                operation.on_publish(session)
            self._record_conclusion(row, outcome, deployment.number, challenger)
            row.detail = {**row.detail, "deployment": deployment.number, "outcome": outcome}
            return deployment.number

    def _propose(
        self, session: Session, row: OperationRow, sha256: str, run_id: str | None, detail: dict[str, Any]
    ) -> DeploymentRow:
        """Add the proposal as a deployment with the estimator of this hash."""
        proposed = self.proposal.deployment
        return queries.propose(
            session,
            [session.get_one(AdapterRow, member.adapter_id) for member in proposed.members],
            queries.ensure_estimator(session, sha256, list(proposed.labels)),
            self.operation.actor,
            action="propose",
            subject=self.proposal.subject,
            operation_id=row.id,
            run_id=run_id,
            detail=detail,
        )

    def _record_conclusion(self, row: OperationRow, outcome: Outcome, number: int, challenger: Challenger) -> None:
        """Mark the operation as done, and keep what its MLflow run is to show."""
        title = f"{self.operation.kind} {self.proposal.subject}"
        conclusion = run_report.conclusion(
            title, outcome, number, challenger.verdicts, self.operation.options.thresholds,
            forced=bool(challenger.refused), unasked=self.plugins.unasked,
        )  # fmt: skip
        row.step = PUBLISHED
        row.detail = {**row.detail, CONCLUSION: asdict(conclusion)}

    def _frozen(self) -> str:
        """Return one hash over the backbone and all adapters that are live or proposed."""
        digest = hashlib.sha256(fingerprint(self.trainer.backbone).encode())
        for member in (*self.champion.members, *self.proposal.deployment.members):
            for sha256 in (member.config_sha256, member.weights_sha256):
                problem = self.registry.blobs.problem(sha256)
                if problem:
                    raise RegistryError(f"adapter {member.label}: {problem}; run: abair-registry doctor")
                digest.update(sha256.encode())
        return digest.hexdigest()

    @contextmanager
    def _tracked(self) -> Iterator[OperationRun]:
        """Start the operation's MLflow run, and end it as the operation ends."""
        self.work.step("track")
        with self.work.session() as (_, row):
            started = row.started.isoformat()
        photos = Photos(self.registry.settings.clean_dir).digests() if self.proposal.new_labels else {}
        run = OperationRun(self.runs, self.registry.settings.home, self.terminal.warn)
        run_report.begin(
            run, self.operation, self.work.id, started,
            options=self.operation.options, proposal=self.proposal, champion=self.champion, photos=photos,
        )  # fmt: skip
        if run.run_id is not None:
            self.work.step("track", run_id=run.run_id)
        try:
            yield run
        except BaseException as error:
            status: Literal["KILLED", "FAILED"] = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            reason = str(error) or ("stopped by Ctrl-C" if status == "KILLED" else type(error).__name__)
            with suppress(RegistryError):  # the database may be what failed: `doctor` ends it later
                if not self._conclude_run(run):
                    run.end(status, reason)
            raise
        self._conclude_run(run)

    def _conclude_run(self, run: OperationRun) -> bool:
        """End the run with the operation's recorded conclusion; return whether there is one."""
        with self.registry.database.read() as session:
            conclusion = session.get_one(OperationRow, self.work.id).detail.get(CONCLUSION)
        if conclusion is not None:
            run.conclude(**conclusion)
        return conclusion is not None
