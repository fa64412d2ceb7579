"""The report on an operation in its MLflow run: parameters, metrics, figures, verdicts."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import torch

import abair
from abair.continual.compare import Contender, Evaluation
from abair.continual.separation import Separation
from abair.labels import CLEAN
from abair.report import Group, Report, Verdict
from abair.text import escape_markdown, markdown_table, quote_foreign
from abair_registry.db.snapshot import DeploymentSnapshot
from abair_registry.operations import charts
from abair_registry.operations.gates import GateResult, summarize
from abair_registry.operations.progress import Stage
from abair_registry.operations.report_page import PAGE, Judged, render_page
from abair_registry.operations.requests import Operation, OperationOptions, Outcome, Proposal
from abair_registry.settings import Thresholds, describe_lowered
from abair_registry.tracking.outbox import OperationRun

_OUTCOMES = {
    "live": "Deployment {number} is live.",
    "challenger": "Deployment {number} waits for review: `abair-registry promote {number}`.",
    "rejected": "Refused. Deployment {number} stays live.",
}


_NOTHING_TRAINED = (
    "Nothing was trained: outputs of an estimator that is kept were rearranged; backbone and adapters are as they "
    "were (tag `abair.frozen`)."
)
_JUDGED = {
    "live": "It goes live as the next deployment.",
    "challenger": "It waits for review as a challenger.",
    "rejected": "Nothing changes: deployment {number} stays live.",
}
MOST_SHOWN: Final = 6
MOST_LABELS: Final = 12
LONGEST_WHY: Final = 400
"""What a description shows: refusals or new labels, labels, and characters of a reason."""
_ONLY_ESTIMATOR = "Only the estimator was trained; backbone and adapters are as they were (tag `abair.frozen`)."
_ANOTHER_BACKBONE = (
    "The backbone and its adapters come with the package or with plugins (tag `abair.frozen`); only the estimator was "
    "trained here. Challenger and champion look at each sample's part, not at the whole scene."
)


def begin(
    run: OperationRun,
    operation: Operation,
    number: int,
    started: str,
    *,
    options: OperationOptions,
    proposal: Proposal,
    champion: DeploymentSnapshot,
    photos: Mapping[str, str],
) -> None:
    """Start the run of an operation with its parameters and lineage."""
    actor, title = operation.actor, f"{operation.kind} {proposal.subject}"
    tags = {
        "mlflow.user": actor.name,
        "mlflow.source.name": f"abair-registry {title}",
        "abair.kind": operation.kind,
        "abair.subject": proposal.subject,
        "abair.operation": str(number),
        "abair.started": started,
        "abair.actor": actor.name,
        "abair.asked": actor.reason,
        "abair.champion": str(champion.number),
        "abair.backbone": proposal.deployment.fingerprint,
    }
    tags = {name: value for name, value in tags.items() if value}
    for member in proposal.deployment.members:
        release = f"{member.distribution}=={member.version} {member.weights_sha256}"
        tags[f"abair.release.{member.label}"] = release
    params: dict[str, object] = {
        "labels": ", ".join(proposal.deployment.labels),
        "new": ", ".join(proposal.new_labels) or "none",
        "seed": options.seed,
        "route asked": options.route,
        "review": options.review,
        "force": options.force,
        "abair": abair.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        **{f"gate {name}": value for name, value in options.thresholds.model_dump().items()},
        **{f"SHA-256 of {name}": value for name, value in photos.items()},
    }
    run.begin(title, tags=tags, params=params)


@dataclass(frozen=True)
class Conclusion:
    """What a run shows once its operation has ended: the description's first line, and tags."""

    headline: str
    tags: dict[str, str]


def conclusion(
    title: str,
    outcome: Outcome,
    number: int,
    verdicts: Sequence[Verdict],
    thresholds: Thresholds,
    *,
    forced: bool,
    unasked: Collection[str] = (),
) -> Conclusion:
    """Return what the run is to show, recorded in the transaction that ends the operation.

    So the next command can bring the run up to date if MLflow cannot be reached now. `unasked` are
    the plugins whose gates were not asked.
    """
    forced = forced and outcome != "rejected"
    # the run's name, too, so that the list of runs and the top of its page show the outcome
    name = f"{title}: {_short(outcome, verdicts, forced=forced)}"
    tags = {"abair.outcome": outcome, "abair.deployment": str(number), "mlflow.runName": name}
    tags |= {"abair.forced": "true"} if forced else {}
    tags["abair.gates"] = summarize(verdicts, thresholds, forced=forced)
    tags |= {"abair.gates.not_asked": ", ".join(unasked)} if unasked else {}
    told, lowered = _OUTCOMES[outcome].format(number=number), describe_lowered(thresholds.lowered())
    return Conclusion(_headline(told, verdicts, unasked, lowered=lowered, forced=forced), tags)


def evidence(
    run: OperationRun,
    operation: Operation,
    proposal: Proposal,
    evaluation: Evaluation | None,
    results: Sequence[GateResult],
    contenders: tuple[Contender, Contender],
    *,
    champion: DeploymentSnapshot,
    outcome: Outcome,
    options: OperationOptions,
    route: str,
    why: str,
    unasked: Mapping[str, str],
    separations: Sequence[Sequence[Separation]],
    stages: Sequence[Stage],
) -> None:
    """Record description, page, metrics, report and figures, before anything is published.

    `contenders` are the challenger and the champion.
    """
    run.describe(describe(champion, proposal, route, why, evaluation, results, unasked))
    challenger, before = contenders
    forced = outcome != "rejected" and not all(result.passed for result in results)
    told = ("Forced. " if forced else "") + _JUDGED[outcome].format(number=champion.number)
    if lowered := describe_lowered(options.thresholds.lowered()):
        told += f" Of the gates, {lowered}."
    judged = Judged(
        title=f"{operation.kind} {proposal.subject}",
        outcome=told,
        deployment=champion.number,
        results=results,
        evaluation=evaluation,
        challenger=challenger,
        champion=before,
        origin={
            "asked by": operation.actor.name,
            "reason": operation.actor.reason or "none given",
            "labels": ", ".join(proposal.deployment.labels),
            "new": ", ".join(proposal.new_labels) or "none",
            "route": f"{route} ({why})",
            "trained": _trained(proposal, route).replace("`", ""),
            "seed": str(options.seed),
            "thresholds": ", ".join(f"{name} {value:g}" for name, value in options.thresholds.model_dump().items()),
        },
        unasked=unasked,
        separations=[one for found in separations for one in found],
        stages=stages,
    )
    run.text(render_page(judged), PAGE)
    run.metrics({f"gates/{_metric_name(result.name)}": result.verdict.measured for result in results})
    if evaluation is None:
        return
    report = evaluation.report
    metrics = {}
    for group in report.groups:
        for measure, ways in (("psnr", group.psnr), ("ssim", group.ssim)):
            for way, samples in ways.items():
                metrics[f"{measure}/{_metric_name(group.name)}/{way}"] = sum(samples) / len(samples)
        metrics[f"recall/{_metric_name(group.name)}"] = group.recall
    run.metrics(metrics)
    run.text(report.model_dump_json(indent=2) + "\n", "report.json")
    run.text(json.dumps(asdict(proposal.deployment), indent=2) + "\n", "lineage.json")
    run.figure(charts.bars(report), "figures/1 champion and challenger.png")
    run.figure(charts.sheet(evaluation, challenger, proposal.new_labels), "figures/2 before and after.png")
    run.figure(charts.confusion(report), "figures/3 confusion matrix.png")
    run.figure(charts.histograms(evaluation), "figures/4 weights.png")


def verdict_table(results: Sequence[GateResult]) -> str:
    """Return the verdicts as a Markdown table, plugins' texts escaped."""
    rows = []
    for result in results:
        verdict, advice = ("passed", "") if result.passed else ("**refused**", result.verdict.advice)
        measured = result.found + (f" ({result.verdict.detail})" if result.verdict.detail else "")
        texts = (result.name, measured, result.asked, advice)
        rows.append([verdict, *map(escape_markdown, texts)])
    columns = ["verdict", "gate", "measured", "threshold", "what to do"]
    return markdown_table(columns, rows, left=range(5)) if rows else "No gate was asked."


def _headline(
    outcome: str, verdicts: Sequence[Verdict], unasked: Collection[str] = (), *, lowered: str = "", forced: bool = False
) -> str:
    passed = f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} gates passed"
    passed += f", {escape_markdown(lowered)}." if lowered else "."
    silent = f" Not asked: {escape_markdown(', '.join(unasked))}." if unasked else ""
    return f"## {outcome} {passed}{silent}" + (" **Forced.**" if forced else "")


def _short(outcome: Outcome, verdicts: Sequence[Verdict], *, forced: bool) -> str:
    """Return how an operation ended, and how many gates refused or passed."""
    refused, count = sum(not verdict.passed for verdict in verdicts), len(verdicts)
    if outcome == "rejected":
        return f"refused by {refused} of {count}"
    if not verdicts:
        return outcome
    return f"{outcome}, forced against {refused} of {count}" if forced else f"{outcome}, {count} of {count} passed"


def describe(
    champion: DeploymentSnapshot,
    proposal: Proposal,
    route: str,
    why: str,
    evaluation: Evaluation | None,
    results: Sequence[GateResult],
    unasked: Mapping[str, str],
) -> str:
    """Return the text of a run's page: what one decides by, in a few lines without a table.

    It stays within MLflow's limits however many labels are live. The first line is replaced when
    the operation has ended.
    """
    parts = [_headline("Judged; not published yet.", [result.verdict for result in results], unasked)]
    refused = [result for result in results if not result.passed]
    if refused:
        more = [f"- and {len(refused) - MOST_SHOWN} more"] if refused[MOST_SHOWN:] else []
        parts.append("\n".join(["**Refused by**", "", *map(_refusal, refused[:MOST_SHOWN]), *more]))
    parts.append(f"**All gates, and pictures of the samples that decided: artifact `{PAGE}`.**")
    if evaluation is not None:
        parts.append("\n".join(_essentials(evaluation.report, champion)))
    if unasked:
        named = quote_foreign("; ".join(f"{name} ({why})" for name, why in unasked.items()), LONGEST_WHY)
        parts.append(f"**Gates of live plugins that were not asked:** {escape_markdown(named)}.")
    labels = proposal.deployment.labels
    shown = ", ".join(labels[:MOST_LABELS]) + (f" and {len(labels) - MOST_LABELS} more" if labels[MOST_LABELS:] else "")
    how = escape_markdown(quote_foreign(f"{route} ({why})", LONGEST_WHY))
    compared = f"Compared with deployment {champion.number}." if evaluation is not None else "Nothing was compared."
    parts.append(f"Labels: {shown}. {compared} Route: {how}. {_trained(proposal, route)}")
    return "\n\n".join(parts)


def _refusal(result: GateResult) -> str:
    """Return what a gate found and what to do, as an item of a list."""
    verdict = result.verdict
    found = result.found + (f" ({verdict.detail})" if verdict.detail else "")
    found += f", {result.bound} {result.asked}" if result.asked else ""
    text = f"{found}: {verdict.advice}"
    return f"- **{escape_markdown(verdict.name)}:** {escape_markdown(text)}"


def _essentials(report: Report, champion: DeploymentSnapshot) -> list[str]:
    """Return a line for each new label, and for what was live and loses most; the page has all."""
    lines = []
    for label in report.new[:MOST_SHOWN]:
        group = report.group(label)
        before = f"{group.mean('champion'):.2f} by deployment {champion.number}, " if "champion" in group.psnr else ""
        lines.append(
            f"- **{label}** (new): {group.mean('input'):.2f} dB damaged, {before}**{group.mean('SW'):.2f}** by the "
            f"challenger, {group.mean('Oracle'):.2f} with the true label; recognised on "
            f"{sum(top == label for top in group.top)} of {len(group.top)}"
        )
    lines += [f"- and {len(report.new) - MOST_SHOWN} more new labels"] if report.new[MOST_SHOWN:] else []
    clean = report.group(CLEAN)
    others = [group for group in report.groups if group is not clean and "champion" in group.psnr]
    old = [group for group in others if not _is_new(group, report.new)]
    if old:
        worst = max(old, key=lambda group: group.mean("champion") - group.mean("SW"))
        change = worst.mean("SW") - worst.mean("champion")
        lines.append(f"- of {len(old)} kinds that were live, {worst.name} changes for the worst: {change:+.2f} dB")
    return [*lines, f"- clean photos come back at {clean.mean('SW'):.2f} dB"]


def _trained(proposal: Proposal, route: str) -> str:
    """Return what was trained."""
    if proposal.base is not None:
        return _ANOTHER_BACKBONE
    return _ONLY_ESTIMATOR if proposal.new_labels or route == "full" else _NOTHING_TRAINED


def _is_new(group: Group, new: Sequence[str]) -> bool:
    return group.labels != (CLEAN,) and not set(new).isdisjoint(group.labels)


def _metric_name(name: str) -> str:
    """Return a name with the characters alone that MLflow takes in a metric's name."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in name.replace(" + ", "_and_").replace(":", ""))
