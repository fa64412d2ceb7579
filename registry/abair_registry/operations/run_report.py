"""The report on an operation in its MLflow run: parameters, metrics, figures, verdicts."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

import abair
from abair.continual.compare import Contender, Evaluation
from abair.labels import CLEAN
from abair.report import Group, Verdict, Way
from abair.text import markdown_table
from abair_registry.db.snapshot import DeploymentSnapshot
from abair_registry.operations import charts
from abair_registry.operations.requests import Operation, OperationOptions, Outcome, Proposal
from abair_registry.tracking.mlflow_client import Runs

_OUTCOMES = {
    "live": "Deployment {number} is live.",
    "challenger": "Deployment {number} waits for review: `abair-registry promote {number}`.",
    "rejected": "Refused. Deployment {number} stays live.",
}


def begin(
    runs: Runs,
    operation: Operation,
    number: int,
    started: str,
    *,
    options: OperationOptions,
    proposal: Proposal,
    champion: DeploymentSnapshot,
    photos: Mapping[str, str],
) -> str:
    """Start the run of an operation with its parameters and lineage; return the run's id.

    Raises:
        RegistryError: The store cannot be reached or written.
    """
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
        "abair.backbone": champion.fingerprint,
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
    return runs.begin(title, tags=tags, params=params)


@dataclass(frozen=True)
class Conclusion:
    """What a run shows once its operation has ended: the description's first line, and tags."""

    headline: str
    tags: dict[str, str]


def conclusion(title: str, outcome: Outcome, number: int, verdicts: Sequence[Verdict], *, forced: bool) -> Conclusion:
    """Return what the run is to show, recorded in the transaction that ends the operation.

    So the next command can bring the run up to date if MLflow cannot be reached now.
    """
    forced = forced and outcome != "rejected"
    # the run's name, too, so that the list of runs shows the outcomes
    tags = {"abair.outcome": outcome, "abair.deployment": str(number), "mlflow.runName": f"{title}: {outcome}"}
    tags |= {"abair.forced": "true"} if forced else {}
    return Conclusion(_headline(_OUTCOMES[outcome].format(number=number), verdicts, forced=forced), tags)


def evidence(
    runs: Runs,
    run_id: str,
    proposal: Proposal,
    evaluation: Evaluation | None,
    verdicts: Sequence[Verdict],
    contender: Contender,
    *,
    champion: DeploymentSnapshot,
    route: str,
    why: str,
) -> None:
    """Record description, metrics, report and figures, before anything is published.

    Raises:
        RegistryError: The store cannot be reached or written.
    """
    runs.describe(run_id, _description(champion, proposal, route, why, evaluation, verdicts))
    runs.metrics(run_id, {f"gates/{_metric_name(verdict.name)}": verdict.measured for verdict in verdicts})
    if evaluation is None:
        return
    report = evaluation.report
    metrics = {}
    for group in report.groups:
        for measure, ways in (("psnr", group.psnr), ("ssim", group.ssim)):
            for way, samples in ways.items():
                metrics[f"{measure}/{_metric_name(group.name)}/{way}"] = sum(samples) / len(samples)
        metrics[f"recall/{_metric_name(group.name)}"] = group.recall
    runs.metrics(run_id, metrics)
    runs.text(run_id, report.model_dump_json(indent=2) + "\n", "report.json")
    runs.text(run_id, json.dumps(asdict(proposal.deployment), indent=2) + "\n", "lineage.json")
    runs.figure(run_id, charts.bars(report), "figures/1 champion and challenger.png")
    runs.figure(run_id, charts.sheet(evaluation, contender, proposal.new_labels), "figures/2 before and after.png")
    runs.figure(run_id, charts.confusion(report), "figures/3 confusion matrix.png")
    runs.figure(run_id, charts.histograms(evaluation), "figures/4 weights.png")


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table."""
    rows = []
    for v in verdicts:
        verdict, advice = ("passed", "") if v.passed else ("**refused**", v.advice)
        measured = f"{v.measured:.2f} {v.unit}" + (f" ({v.detail})" if v.detail else "")
        rows.append([verdict, v.name, measured, f"{v.threshold:g} {v.unit}", advice])
    columns = ["verdict", "gate", "measured", "threshold", "what to do"]
    return markdown_table(columns, rows, left=range(5)) if rows else "No gate was asked."


def _headline(outcome: str, verdicts: Sequence[Verdict], *, forced: bool = False) -> str:
    passed = f"{sum(verdict.passed for verdict in verdicts)} of {len(verdicts)} gates passed."
    return f"## {outcome} {passed}" + (" **Forced.**" if forced else "")


def _description(
    champion: DeploymentSnapshot,
    proposal: Proposal,
    route: str,
    why: str,
    evaluation: Evaluation | None,
    verdicts: Sequence[Verdict],
) -> str:
    """Return the text of a run's page; its first line is replaced when the operation has ended."""
    parts = [_headline("Judged; not published yet.", verdicts)]
    if refused := [verdict.name for verdict in verdicts if not verdict.passed]:
        parts.append(f"**Refused by** {', '.join(refused)}.")  # the page folds what is below
    parts.append(
        f"Labels: {', '.join(proposal.deployment.labels)}"
        + (f"; new: **{', '.join(proposal.new_labels)}**" if proposal.new_labels else "")
        + f". Compared with deployment {champion.number}. Route: {route} ({why}). "
        "Only the estimator was trained; backbone and adapters are as they were (tag `abair.frozen`)."
    )
    if verdicts:
        parts.append(verdict_table(verdicts))
    if evaluation is not None:
        parts.append("Mean PSNR in dB on held-out samples, the same ones for all:\n\n" + _psnr_table(evaluation))
        parts.append("Figures and the whole report lie under *Artifacts*.")
    return "\n\n".join(parts)


def _psnr_table(evaluation: Evaluation) -> str:
    """Return the mean PSNR of each group as a Markdown table, new labels first."""
    rows = []
    new = evaluation.report.new
    ways: tuple[Way, ...] = ("input", "backbone", "OH", "SW", "Oracle")
    for group in sorted(evaluation.report.groups, key=lambda g: (not _is_new(g, new), len(g.labels))):
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
