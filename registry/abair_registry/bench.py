"""The continual-addition experiment: plugins added one by one, and all sets measured after each.

It follows tables 4 and 5 of the paper (Serrano-Lozano et al.): the gain of a new degradation from
its adapter, the loss of old ones, mixtures, clean photos. Each addition is `abair-registry add` in
a registry of the experiment's own, so what is live on this machine stays as it is. A stage that was
measured before is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from abair.deployment import Deployment, read_deployment
from abair.errors import RegistryError
from abair.evaluation.benchmark import evaluate, weights_hash
from abair.evaluation.datasets.find import FoundSets, find_sets
from abair.evaluation.datasets.paper import RESAVED
from abair.evaluation.policies import Policy
from abair.evaluation.results import QualityReport
from abair.files import atomic_write, write_text
from abair.inference.restorer import Restorer
from abair.locations import FILE_NAME
from abair.model.backbone import load_backbone
from abair.model.estimator import load_estimator
from abair.model.lora import read_adapter_files
from abair.text import markdown_table
from abair_registry.db.audit import Actor
from abair_registry.operations.gates import PSNR_CAP
from abair_registry.operations.lifecycle import Add
from abair_registry.operations.replays import Photos
from abair_registry.operations.requests import OperationOptions
from abair_registry.plugins import installed
from abair_registry.registry import open_registry
from abair_registry.settings import Settings

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

SETS: Final = (
    "CBSD68_s25", "Rain100L", "SOTS_indoor", "GoPro", "LOL_eval15",
    "CBSD68_jpeg20", "CBSD68_4bit", "CBSD68_snow",
    "mix_blur_noise", "mix_blur_jpeg", "mix_haze_snow", *RESAVED, "clean",
)  # fmt: skip
PAPER: Final = {"CBSD68_jpeg20": 1.36, "CBSD68_4bit": 3.71, "CBSD68_snow": 5.35}
"""Gain of SW in dB from the new degradation's adapter in the paper (table 4)."""
LARGEST_LOSS: Final = 0.10
"""dB that a set may lose from the first stage to the last without being listed."""


class Addition(BaseModel):
    """One `add`: how it ended, how much was trained, and the hash of the live weights."""

    model_config = ConfigDict(frozen=True)

    plugin: str
    outcome: str
    route: str | None
    seconds: float
    deployment: int
    adapter_parameters: int
    estimator_parameters: int
    weights_sha256: str
    photos: dict[str, str]
    thresholds: dict[str, float]
    gates: list[dict[str, Any]]


class Experiment(BaseModel):
    """All stages: `reports[0]` of what it starts from, `reports[n]` after the n-th addition."""

    model_config = ConfigDict(frozen=True)

    additions: list[Addition]
    reports: list[QualityReport]

    def score(self, stage: int, key: str, policy: Policy = "SW") -> float | None:
        """Return the mean PSNR in dB of a set at a stage, or None where it was not measured."""
        found = {one.key: one for one in self.reports[stage].sets}.get(key)
        return None if found is None or policy not in found.mean else found.mean[policy].psnr

    def stages(self) -> list[str]:
        """Return the names of the stages: the deployment that it starts from, and each addition."""
        return [self.reports[0].deployment, *(f"+ {addition.plugin}" for addition in self.additions)]

    def _change(self, key: str) -> float:
        return (self.score(len(self.reports) - 1, key) or 0) - (self.score(0, key) or 0)

    def markdown(self) -> str:
        """Return the tables as a Markdown page."""
        stages = self.stages()
        sets = {one.key: one.title for one in self.reports[0].sets}
        last = len(self.reports) - 1
        lines = ["# Plugins added one after the other", "", "Mean PSNR in dB by SW, blind, after each addition.", ""]
        rows = []
        for key, title in sets.items():
            scores = [self.score(stage, key) for stage in range(last + 1)]
            rows.append([title, _cell(self.score(0, key, "input")), *map(_cell, scores), f"{self._change(key):+.2f}"])
        lines.append(markdown_table(["set", "input", *stages, "change"], rows))
        lost = [sets[key] for key in sets if key not in PAPER and self._change(key) < -LARGEST_LOSS]
        lines += ["", f"Lost more than {LARGEST_LOSS:.2f} dB from first to last: {'; '.join(lost) or 'none'}."]
        lines += ["", "## The new degradations", ""]
        rows = []
        for key in (key for key in PAPER if key in sets):
            before, after = self.score(0, key), self.score(last, key)
            others = [self.score(last, key, policy) for policy in ("OH", "Oracle")]
            gain = (after or 0) - (before or 0)
            row = [sets[key], _cell(self.score(0, key, "input")), _cell(before), _cell(after), *map(_cell, others)]
            reached = "reached" if gain >= PAPER[key] else "short"
            rows.append([*row, f"{gain:+.2f}", f"{PAPER[key]:+.2f}", reached])
        columns = ["set", "input", "SW before", "SW after", "OH after", "Oracle", "gain", "gain in the paper", "goal"]
        lines += [markdown_table(columns, rows), "", "## Mixtures, at the end", ""]
        rows = []
        for key in (key for key in sets if key.startswith("mix_") or key in RESAVED):
            cells = [self.score(last, key, policy) for policy in ("input", "OH", "SW", "Oracle")]
            ahead = (cells[2] or 0) - (cells[1] or 0)
            rows.append([sets[key], *map(_cell, cells), f"{ahead:+.2f}"])
        lines.append(markdown_table(["set", "input", "OH", "SW", "Oracle", "SW - OH"], rows))
        lines += ["", "## What each addition cost", ""]
        rows = []
        for one in self.additions:
            refused = [gate["name"] for gate in one.gates if not gate["passed"]]
            outcome = one.outcome + (f" ({', '.join(refused)})" if refused else "")
            numbers = [f"{one.seconds:.0f}", f"{one.adapter_parameters:,}", f"{one.estimator_parameters:,}"]
            rows.append([one.plugin, outcome, one.route or "-", *numbers])
        columns = ["plugin", "outcome", "route", "seconds", "adapter's parameters", "estimator's parameters"]
        lines.append(markdown_table(columns, rows, left=(0, 1, 2)))
        lines += ["", "Protocol", "", *(f"- {line}" for line in self.reports[-1].protocol)]
        asked = {f"{gate} {value:g}" for one in self.additions for gate, value in one.thresholds.items()}
        lines.append(f"- thresholds of the gates: {', '.join(sorted(asked)) or '-'}")
        photos = {digest for one in self.additions for digest in one.photos.values()}
        lines += [f"- new damage was tried on photos with the SHA-256 {digest}" for digest in sorted(photos)]
        lines.append(f"- weights' hash before anything was added: {self.reports[0].weights_sha256}")
        lines += [f"- not measured: {key}: {reason}" for key, reason in self.reports[-1].missing.items()]
        return "\n".join(lines) + "\n"


def run(
    data: Path,
    out: Path,
    plugins: Sequence[str],
    start: Deployment,
    synthesizers: Mapping[str, Synthesizer],
    actor: Actor,
    *,
    limit: int | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Experiment:
    """Add the plugins in a registry below `out`, and measure the sets below `data` after each.

    The registry starts from `start`, the bundle of the paper's five degradations for its tables.
    Tables and a plot are written to `out`.

    Raises:
        RegistryError: `out` cannot be written or holds another experiment, or `start` has one of
            the plugins already.
        AbairError: An addition failed, or the test sets cannot be used; see `Add` and `find_sets`.
    """
    for name in plugins:
        installed.find(name)  # fail now, not after minutes of measuring
    known = [name for name in plugins if name in start.labels]
    if known:
        raise RegistryError(
            f"{', '.join(known)}: found in deployment {start.name} before anything is added; expected one without "
            "what is added; name another with --deployment, or other plugins with --plugins"
        )
    found = find_sets(data, synthesizers, SETS, limit=limit)
    settings = Settings().model_copy(
        update={"home": (out / "home").resolve(), "registry_url": None, "shared_url": None, "tracking_uri": None}
    )
    settings.home.mkdir(parents=True, exist_ok=True)
    additions: list[Addition] = []
    with open_registry(settings, start.folder):
        pass  # its deployment 1 is `start`
    reports = [_measure_stage(start, weights_hash(start), 0, found, out, log)]
    for number, name in enumerate(plugins, 1):
        kept = out / f"addition-{number}.json"
        addition = _kept_addition(kept, name, settings, start)
        if addition is None:
            log(f"adding {name}")
            addition = _add(settings, name, actor, start)
            write_text(kept, addition.model_dump_json(indent=1) + "\n")
        log(f"{name}: {addition.outcome} after {addition.seconds:.0f} s")
        additions.append(addition)
        reports.append(
            _measure_stage(_live_deployment(settings, start), addition.weights_sha256, number, found, out, log)
        )
    experiment = Experiment(additions=additions, reports=reports)
    write_text(out / "additions.json", experiment.model_dump_json(indent=1) + "\n")
    write_text(out / "additions.md", experiment.markdown())
    with atomic_write(out / "additions.png") as path:
        from abair_registry.operations.charts import psnr_by_stage

        stages = range(len(reports))  # beyond what can be seen, undamaged photos would hide everything else
        lines = {
            one.title: [
                None if (score := experiment.score(s, one.key)) is None else min(score, PSNR_CAP) for s in stages
            ]
            for one in reports[0].sets
        }
        figure = psnr_by_stage(experiment.stages(), lines)
        figure.savefig(path, format="png", dpi=120)
    return experiment


def _live_deployment(settings: Settings, start: Deployment) -> Deployment:
    """Return what the experiment's registry published last, or else what it started from."""
    return read_deployment(settings.home) if (settings.home / FILE_NAME).is_file() else start


def _add(settings: Settings, name: str, actor: Actor, start: Deployment) -> Addition:
    with open_registry(settings) as registry:
        result = Add(name, actor, OperationOptions(thresholds=settings.gates)).run(registry)
    deployment = _live_deployment(settings, start)
    backbone = load_backbone(deployment.find(deployment.backbone.file))
    trained = 0
    for entry in deployment.adapters:
        if entry.degradation == name:
            files = deployment.find(entry.config), deployment.find(entry.weights)
            trained = read_adapter_files(*files, backbone, deployment.backbone.fingerprint, name).parameters
    estimator = load_estimator(deployment.find(deployment.estimator), deployment.labels, backbone.size)
    return Addition(
        plugin=name, outcome=result.outcome, route=result.route, seconds=result.seconds,
        deployment=result.deployment, adapter_parameters=trained, gates=result.as_json()["gates"],
        weights_sha256=weights_hash(deployment), photos=Photos(settings.clean_dir).digests(),
        thresholds=settings.gates.model_dump(),
        estimator_parameters=sum(parameter.numel() for parameter in estimator.parameters()),
    )  # fmt: skip


def _kept_addition(path: Path, name: str, settings: Settings, start: Deployment) -> Addition | None:
    """Return the addition of an earlier run, if it is still live, or was refused."""
    try:
        kept = Addition.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
    served = name in _live_deployment(settings, start).labels
    return kept if kept.plugin == name and served == (kept.outcome == "live") else None


def _measure_stage(
    live: Deployment, mark: str, stage: int, found: FoundSets, out: Path, log: Callable[[str], None]
) -> QualityReport:
    """Return the report of the stage with weights of this hash: the kept one, or else a new one."""
    path = out / f"stage-{stage}.json"
    try:
        kept = QualityReport.model_validate_json(path.read_text(encoding="utf-8"))
        counts = {one.key: one.count for one in kept.sets}
        if kept.weights_sha256 == mark and counts == {one.key: len(one) for one in found.sets}:
            return kept
    except (OSError, ValidationError):
        pass
    if weights_hash(live) != mark:
        raise RegistryError(
            f"{path}: is gone, and what it measured is no longer live; expected the files of an experiment as it left "
            "them; name another folder with --out"
        )
    log(f"measuring stage {stage}: {', '.join(live.labels)}")
    report = evaluate(Restorer.load(live.folder), found.sets, missing=found.missing, weights_sha256=mark)
    write_text(path, report.model_dump_json(indent=1) + "\n")
    return report


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
