"""Routes: how the estimator of a challenger is chosen.

By features, several fits are tried until the gates pass one. If they refuse all, training in full
is offered, unless that cannot help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from abair.continual.compare import Evaluation
from abair.continual.separation import describe_separation
from abair.errors import RegistryError
from abair.model.estimator import Estimator
from abair.report import Verdict
from abair_registry.operations import run_report
from abair_registry.operations.challenger import Fit, OnStep, Trainer
from abair_registry.operations.gates import GateKind, GateResult, evaluate_gates, find_open, plugin_results
from abair_registry.operations.progress import OperationLog
from abair_registry.operations.requests import OperationOptions
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.plugins.gates import PluginGates, ask_gates

_FULL: Final = "; or train on new samples of all labels, which takes about five times as long: --route full"
_PHOTOS: Final = "; or name a folder of your own photos, because the sample photos are few: export ABAIR_CLEAN_DIR=DIR"
_OF_ESTIMATOR: Final = frozenset({GateKind.ORACLE_GAP, GateKind.RECALL, GateKind.LOSS})
"""Kinds of gates that another estimator may pass."""


@dataclass(frozen=True)
class Challenger:
    """A trained estimator, its route and why it took that, its evaluation and gate results."""

    estimator: Estimator
    route: str
    why: str
    evaluation: Evaluation | None
    results: list[GateResult]

    @property
    def refused(self) -> list[GateResult]:
        """The results that do not pass."""
        return [result for result in self.results if not result.passed]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of all results."""
        return [result.verdict for result in self.results]


@dataclass(frozen=True)
class ChallengerChoice:
    """Trains challengers by the route that was asked for, and chooses one."""

    trainer: Trainer
    options: OperationOptions
    plugins: VerifiedPlugins
    gates: PluginGates
    log: OperationLog

    def choose(self) -> Challenger:
        """Return the challenger of the route that was asked for.

        Raises:
            RegistryError: The full route was asked for, and not all plugins are installed.
            TrainingError: A label has no replay, or a synthesiser failed.
        """
        if self.options.route == "full":
            if reason := self._not_installed():
                raise RegistryError(f"the full route: {reason}; install what is recorded")
            return self._attempt("full", partial(self.trainer.train_full, self.plugins), "asked for")
        if self.trainer.missing_replays() and not self.trainer.new_labels:
            # nothing can be compared: the outputs stay as the bundle's
            kept = self.trainer.fit_features(lambda *_: None)
            return Challenger(kept, "features", "no samples to judge by", None, [])
        for found in filter(None, self.trainer.separations):
            self.log.steps.tell(describe_separation(found))
        best, history = self._by_features()
        if self.trainer.settings.clean_dir is None:
            best = replace(best, results=_advise(best.results, _PHOTOS))
        why = "; ".join(["on kept features", *history])
        if not best.refused:
            return replace(best, why=why)
        if obstacle := _cannot_help(best.refused) or self._not_installed():
            return replace(best, why=f"{why}; in full would not help, because {obstacle}")
        return replace(best, why=why, results=_advise(best.results, _FULL))

    def _by_features(self) -> tuple[Challenger, list[str]]:
        """Return the fit that no gate refuses, or fewest do, and the fits' history in words."""
        new = self.trainer.new_labels
        attempts: dict[Fit, Challenger] = {}
        for fit in self.trainer.fits():
            attempt = self._attempt("features", partial(self.trainer.fit_features, fit=fit))
            attempts[fit] = attempt
            if new:
                self.log.steps.tell(f"fitted {fit}: {_summary(attempt.results)}")
            if not attempt.refused or not new or _adapter_is_useless(attempt.refused) or _silent_gates(attempt.refused):
                break
            table = run_report.verdict_table(attempt.results) + "\n"
            self.log.run.text(table, f"refused/features, {fit}.md")
        best = min(attempts, key=lambda fit: len(attempts[fit].refused))  # of equals the first
        if not new:
            return attempts[best], []
        refused = {fit: _names(attempt.refused) for fit, attempt in attempts.items() if fit is not best}
        return attempts[best], [*(f"fitted {fit}: refused by {by}" for fit, by in refused.items()), f"fitted {best}"]

    def _attempt(self, route: str, train: Callable[[OnStep], Estimator], why: str = "") -> Challenger:
        estimator = self._train(route, train)
        evaluation, results = self._evaluate(estimator)
        return Challenger(estimator, route, why, evaluation, results)

    def _train(self, route: str, train: Callable[[OnStep], Estimator]) -> Estimator:
        trained = self.trainer.new_labels or route == "full"
        shown = f"train the estimator ({route})" if trained else "keep the estimator's outputs for what is left"
        self.log.begin("train", shown, route=route)
        return train(self.log.training_step)

    def _evaluate(self, estimator: Estimator) -> tuple[Evaluation, list[GateResult]]:
        self.log.begin("evaluate", "evaluate on held-out samples")
        evaluation = self.trainer.evaluate(estimator, partial(find_open, thresholds=self.options.thresholds))
        self.log.lease.step("gate")
        results = evaluate_gates(evaluation.report, self.options.thresholds)
        for answer in ask_gates(self.gates, evaluation.report):
            results += plugin_results(answer.verdicts, answer.plugin, failed=answer.failed)
        return evaluation, results

    def _not_installed(self) -> str | None:
        """Return why not all plugins can make samples, or None if they can."""
        return "; ".join(f"plugin {name}: {why}" for name, why in self.plugins.left_out.items()) or None


def _adapter_is_useless(refused: Sequence[GateResult]) -> bool:
    return any(result.kind is GateKind.ADAPTER_GAIN for result in refused)


def _cannot_help(refused: Sequence[GateResult]) -> str | None:
    """Return why no other estimator would pass, or None if one might."""
    if _adapter_is_useless(refused):
        return "no estimator mends an adapter"
    if silent := _silent_gates(refused):
        return f"the gate of plugin {', '.join(silent)} gave no verdict"
    if refused and all(result.kind is GateKind.PLUGIN for result in refused):
        return "a plugin's own gate refused"
    return None


def _silent_gates(refused: Sequence[GateResult]) -> list[str]:
    """Return the plugins whose gates gave no verdict, as they would not on another estimator."""
    return [result.source for result in refused if result.kind is GateKind.NO_VERDICT]


def _advise(results: Sequence[GateResult], advice: str) -> list[GateResult]:
    """Return the results; where another estimator may help, the advice is added."""
    return [
        replace(result, verdict=result.verdict.model_copy(update={"advice": f"{result.verdict.advice}{advice}"}))
        if not result.passed and result.kind in _OF_ESTIMATOR
        else result
        for result in results
    ]


def _summary(results: Sequence[GateResult]) -> str:
    """Return in words how many gates passed, and by what the others refused."""
    refused = [
        f"{result.name} {result.found}" + (f" (threshold {result.asked})" if result.asked else "")
        for result in results
        if not result.passed
    ]
    passed = f"{len(results) - len(refused)} of {len(results)} gates passed"
    return f"{passed}; refused by {', '.join(refused)}" if refused else passed


def _names(results: Sequence[GateResult]) -> str:
    return ", ".join(result.name for result in results)
