"""What a reviewer sees of an operation in MLflow: parameters, metrics, lineage, figures, and the verdict at the top."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

import abair
from abair.continual.compare import Contender, Evaluation
from abair.labels import CLEAN
from abair.report import Group, Verdict
from abair.text import markdown_table
from abair_registry.db.snapshot import DeploymentSnapshot
from abair_registry.operations import charts
from abair_registry.tracking.mlflow_client import Runs

if TYPE_CHECKING:
    from abair_registry.db.audit import Actor
    from abair_registry.operations.pipeline import OperationOptions, Proposal

_OUTCOMES = {
    "live": "Deployment {number} is live.",
    "challenger": "Deployment {number} waits for review: `abair-registry promote {number}`.",
    "rejected": "Refused. Deployment {number} stays live.",
}


def begin(
    runs: Runs,
    kind: str,
    operation: int,
    started: str,
    actor: Actor,
    options: OperationOptions,
    change: Proposal,
    champion: DeploymentSnapshot,
    data: Mapping[str, str],
) -> str:
    """Start the operation's run with what is known before: parameters and lineage; returns its id."""
    tags = {
        "mlflow.user": actor.name,
        "mlflow.source.name": f"abair-registry {kind} {change.subject}",
        "abair.kind": kind,
        "abair.subject": change.subject,
        "abair.operation": str(operation),
        "abair.started": started,
        "abair.actor": actor.name,
        "abair.asked": actor.reason,
        "abair.champion": str(champion.number),
        "abair.backbone": champion.fingerprint,
    }
    for part in change.proposal.members:
        tags[f"abair.release.{part.label}"] = f"{part.distribution}=={part.version} {part.weights_sha256}"
    params: dict[str, object] = {
        "labels": ", ".join(change.proposal.labels),
        "new": ", ".join(change.fresh) or "none",
        "seed": options.seed,
        "route asked": options.route,
        "review": options.review,
        "force": options.force,
        "abair": abair.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        **{f"gate {name}": value for name, value in options.thresholds.model_dump().items()},
        **{f"SHA-256 of {name}": value for name, value in data.items()},
    }
    return runs.begin(f"{kind} {change.subject}", tags=tags, params=params)


def verdicts(runs: Runs, run_id: str, given: Sequence[Verdict], path: str) -> None:
    """Keep a table of verdicts as a file."""
    runs.text(run_id, verdict_table(given) + "\n", path)


@dataclass(frozen=True)
class Conclusion:
    """What a run's page says once it is known how the operation ended: its first line, and tags."""

    headline: str
    tags: dict[str, str]


def conclusion(title: str, outcome: str, number: int, verdicts: Sequence[Verdict], *, forced: bool) -> Conclusion:
    """How it ended, to be recorded in the transaction that ends it: whoever comes next can tell it to MLflow."""
    forced = forced and outcome != "rejected"
    # the run's name, too, so that the list of runs tells the outcomes
    tags = {"abair.outcome": outcome, "abair.deployment": str(number), "mlflow.runName": f"{title}: {outcome}"}
    tags |= {"abair.forced": "true"} if forced else {}
    return Conclusion(_headline(_OUTCOMES[outcome].format(number=number), verdicts, forced=forced), tags)


def evidence(
    runs: Runs,
    run_id: str,
    change: Proposal,
    evaluation: Evaluation | None,
    verdicts: Sequence[Verdict],
    contender: Contender,
    *,
    champion: DeploymentSnapshot,
    route: str,
    why: str,
) -> None:
    """Everything that was found, before anything is published: the description, metrics, figures, the report.

    Raises:
        RegistryError: the store cannot be reached or written.
    """
    runs.describe(run_id, _description(champion, change, route, why, evaluation, verdicts))
    runs.metrics(run_id, {f"gates/{_plain(verdict.name)}": verdict.measured for verdict in verdicts})
    if evaluation is None:
        return
    values = {}
    for group in evaluation.report.groups:
        for measure, ways in (("psnr", group.psnr), ("ssim", group.ssim)):
            for way, samples in ways.items():
                values[f"{measure}/{_plain(group.name)}/{way}"] = sum(samples) / len(samples)
        values[f"recall/{_plain(group.name)}"] = group.recall
    runs.metrics(run_id, values)
    runs.text(run_id, evaluation.report.model_dump_json(indent=2) + "\n", "report.json")
    runs.text(run_id, json.dumps(asdict(change.proposal), indent=2) + "\n", "lineage.json")
    runs.figure(run_id, charts.bars(evaluation.report), "figures/1 champion and challenger.png")
    runs.figure(run_id, charts.sheet(evaluation, contender, change.fresh), "figures/2 before and after.png")
    runs.figure(run_id, charts.confusion(evaluation.report), "figures/3 confusion matrix.png")
    runs.figure(run_id, charts.histograms(evaluation), "figures/4 weights.png")


def verdict_table(given: Sequence[Verdict]) -> str:
    """Markdown."""
    rows = []
    for v in given:
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
    change: Proposal,
    route: str,
    why: str,
    evaluation: Evaluation | None,
    verdicts: Sequence[Verdict],
) -> str:
    """The text of a run's page; its first line is another when it is known how the operation ended."""
    parts = [_headline("Judged; not published yet.", verdicts)]
    if refused := [verdict.name for verdict in verdicts if not verdict.passed]:
        parts.append(f"**Refused by** {', '.join(refused)}.")  # the page folds what is below
    parts.append(
        f"Labels: {', '.join(change.proposal.labels)}"
        + (f"; new: **{', '.join(change.fresh)}**" if change.fresh else "")
        + f". Compared with deployment {champion.number}. Route: {route} ({why}). "
        "Only the estimator was trained; backbone and adapters are as they were (tag `abair.frozen`)."
    )
    if verdicts:
        parts.append(verdict_table(verdicts))
    if evaluation is not None:
        parts.append("Mean PSNR in dB on held-out samples, the same ones for all:\n\n" + _results(evaluation))
        parts.append("Figures and the whole report lie under *Artifacts*.")
    return "\n\n".join(parts)


def _results(evaluation: Evaluation) -> str:
    rows = []
    new = evaluation.report.new
    for group in sorted(evaluation.report.groups, key=lambda g: (not _is_new(g, new), len(g.labels))):
        figures_of: list[Any] = [group.mean(way) for way in ("input", "backbone", "OH", "SW", "Oracle")]
        cells = [f"{value:.2f}" for value in figures_of]
        cells.append(f"{group.mean('champion'):.2f}" if "champion" in group.psnr else "")
        name = f"**{group.name}**" if _is_new(group, new) else group.name
        rows.append([name, str(len(group.top)), *cells, f"{group.recall:.2f}"])
    columns = ["damage", "n", "input", "bare backbone", "OH", "SW", "Oracle", "champion (SW)", "recall"]
    return markdown_table(columns, rows)


def _is_new(group: Group, new: Sequence[str]) -> bool:
    return group.labels != (CLEAN,) and not set(new).isdisjoint(group.labels)


def _plain(name: str) -> str:
    """What MLflow takes in a metric's name."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in name.replace(" + ", "_and_").replace(":", ""))
