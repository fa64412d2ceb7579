"""The report on an operation in its MLflow run: parameters, metrics, figures, verdicts."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

import abair
from abair.continual.compare import Contender, Evaluation
from abair.labels import CLEAN
from abair.report import Group, Verdict, Way
from abair.text import escape_markdown, format_measured, markdown_table
from abair_registry.db.snapshot import DeploymentSnapshot
from abair_registry.operations import charts
from abair_registry.operations.gates import summarize
from abair_registry.operations.requests import Operation, OperationOptions, Outcome, Proposal
from abair_registry.settings import Thresholds, describe_lowered
from abair_registry.tracking import limits
from abair_registry.tracking.mlflow_client import DESCRIPTION
from abair_registry.tracking.outbox import OperationRun

_OUTCOMES = {
    "live": "Deployment {number} is live.",
    "challenger": "Deployment {number} waits for review: `abair-registry promote {number}`.",
    "rejected": "Refused. Deployment {number} stays live.",
}


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
    # the run's name, too, so that the list of runs shows the outcomes
    tags = {"abair.outcome": outcome, "abair.deployment": str(number), "mlflow.runName": f"{title}: {outcome}"}
    tags |= {"abair.forced": "true"} if forced else {}
    tags["abair.gates"] = summarize(verdicts, thresholds, forced=forced)
    tags |= {"abair.gates.not_asked": ", ".join(unasked)} if unasked else {}
    told, lowered = _OUTCOMES[outcome].format(number=number), describe_lowered(thresholds.lowered())
    return Conclusion(_headline(told, verdicts, unasked, lowered=lowered, forced=forced), tags)


def evidence(
    run: OperationRun,
    proposal: Proposal,
    evaluation: Evaluation | None,
    verdicts: Sequence[Verdict],
    contender: Contender,
    *,
    champion: DeploymentSnapshot,
    route: str,
    why: str,
    unasked: Mapping[str, str],
) -> None:
    """Record description, metrics, report and figures, before anything is published."""
    run.describe(*_descriptions(champion, proposal, route, why, evaluation, verdicts, unasked))
    run.metrics({f"gates/{_metric_name(verdict.name)}": verdict.measured for verdict in verdicts})
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
    run.figure(charts.sheet(evaluation, contender, proposal.new_labels), "figures/2 before and after.png")
    run.figure(charts.confusion(report), "figures/3 confusion matrix.png")
    run.figure(charts.histograms(evaluation), "figures/4 weights.png")


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table, plugins' texts escaped."""
    rows = []
    for v in verdicts:
        verdict, advice = ("passed", "") if v.passed else ("**refused**", v.advice)
        measured = f"{format_measured(v.measured)} {v.unit}" + (f" ({v.detail})" if v.detail else "")
        texts = (v.name, measured, f"{v.threshold:g} {v.unit}", advice)
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


def _descriptions(
    champion: DeploymentSnapshot,
    proposal: Proposal,
    route: str,
    why: str,
    evaluation: Evaluation | None,
    verdicts: Sequence[Verdict],
    unasked: Mapping[str, str],
) -> tuple[str, str]:
    """Return the text of a run's page, and the whole text if the page has no room for it.

    The first line is replaced when the operation has ended; the whole text comes without it.
    """
    headline = _headline("Judged; not published yet.", verdicts, unasked)
    refused = [verdict for verdict in verdicts if not verdict.passed]
    parts = []
    if refused:
        parts.append(
            f"**Refused by** {', '.join(escape_markdown(verdict.name) for verdict in refused)}."
        )  # the page folds what is below
    if unasked:
        named = "; ".join(f"{name} ({why})" for name, why in unasked.items())
        parts.append(f"**Gates of live plugins that were not asked:** {escape_markdown(named)}.")
    parts.append(
        f"Labels: {', '.join(proposal.deployment.labels)}"
        + (f"; new: **{', '.join(proposal.new_labels)}**" if proposal.new_labels else "")
        + f". Compared with deployment {champion.number}. Route: {route} ({why}). "
        + (_ONLY_ESTIMATOR if proposal.base is None else _ANOTHER_BACKBONE)
    )
    tail = ["Figures and the whole report lie under *Artifacts*."] if evaluation is not None else []
    whole = "\n\n".join([*parts, *_tables(verdicts, evaluation, evaluation.report.groups if evaluation else ()), *tail])
    if len(headline) + 2 + len(whole) <= limits.NOTE:
        return f"{headline}\n\n{whole}", ""
    notable = [group for group in evaluation.report.groups if _is_notable(group, evaluation)] if evaluation else []
    left_out = f"Gates that passed and labels that were live before are left out: the artifact `{DESCRIPTION}` has all."
    shown = [headline, *parts, left_out, *_tables(refused, evaluation, notable), *tail]
    return "\n\n".join(shown), whole


def _tables(verdicts: Sequence[Verdict], evaluation: Evaluation | None, groups: Sequence[Group]) -> list[str]:
    """Return the tables of verdicts and of mean PSNR, each with its heading, if there is one."""
    tables = [verdict_table(verdicts)] if verdicts else []
    if evaluation is not None and groups:
        heading = "Mean PSNR in dB on held-out samples, the same ones for all:"
        tables.append(f"{heading}\n\n{_psnr_table(evaluation, groups)}")
    return tables


def _is_notable(group: Group, evaluation: Evaluation) -> bool:
    """Return whether a group is shown where there is no room for all: a new label, clean photos."""
    return group.labels == (CLEAN,) or (len(group.labels) == 1 and _is_new(group, evaluation.report.new))


def _psnr_table(evaluation: Evaluation, groups: Sequence[Group]) -> str:
    """Return the mean PSNR of each of the groups as a Markdown table, new labels first."""
    rows = []
    new = evaluation.report.new
    ways: tuple[Way, ...] = ("input", "backbone", "OH", "SW", "Oracle")
    for group in sorted(groups, key=lambda g: (not _is_new(g, new), len(g.labels))):
        cells = [f"{group.mean(way):.2f}" for way in ways]
        cells.append(f"{group.mean('champion'):.2f}" if "champion" in group.psnr else "")
        name = f"**{group.name}**" if _is_new(group, new) else group.name
        rows.append([name, str(len(group.top)), *cells, f"{group.recall:.2f}"])
    columns = ["damage", "n", "input", "bare backbone", "OH", "SW", "Oracle", "champion (SW)", "recall"]
    return markdown_table(columns, rows)


def _is_new(group: Group, new: Sequence[str]) -> bool:
    return group.labels != (CLEAN,) and not set(new).isdisjoint(group.labels)


def _metric_name(name: str) -> str:
    """Return a name with the characters alone that MLflow takes in a metric's name."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in name.replace(" + ", "_and_").replace(":", ""))
