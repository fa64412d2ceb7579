"""The program that does plugins' jobs: `python -m abair_registry.plugins.worker.run_jobs`.

Gates and notices are called and synthesisers run here and nowhere else: the process that trains,
evaluates and publishes imports no plugin. What comes back is data, and that process checks it:
verdicts, a replay, or an estimator that passes the gates like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from abair.contract import GROUP, Degradation
from abair.data.synthesizers import load_synthesizer
from abair.deployment import read_deployment
from abair.discovery import Plugins, discover
from abair.errors import AbairError, PluginError
from abair.report import Report, Verdict
from abair.text import describe_error
from abair_registry.plugins.worker.jobs import (
    JOBS,
    AnyJob,
    EstimatorJob,
    GatesJob,
    HooksJob,
    Job,
    NoticesJob,
    ReplayJob,
    TrainedAdapter,
)
from abair_registry.plugins.worker.protocol import Refusal, Send
from abair_registry.plugins.worker.runtime import confine, serve_request

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from abair.data.photos import CleanPhotos
    from abair.data.synthesizers import Synthesizer

_VERDICTS = TypeAdapter(list[Verdict])


def work(job: AnyJob, send: Send) -> tuple[str, object]:
    """Do a job; returns kind and body of the last message.

    The body of notices is each plugin's answer by its name.

    Raises:
        Refusal: a gate or synthesiser failed, or a plugin that is needed cannot be used.
    """
    if isinstance(job, HooksJob):
        send("stage", "loading it")
        confine(job)
        return "result", {"gates": bool(_load(job).manager.hook.abair_gates.get_hookimpls())}
    if isinstance(job, GatesJob):
        send("stage", "loading it")
        confine(job)
        plugins = _load(job)
        send("stage", "asking its gate")
        return "result", {"verdicts": gates(plugins, job.report)}
    if isinstance(job, NoticesJob):
        send("stage", "loading plugins to tell them of the deployment")
        confine(job)
        return "result", notices(_discover(job), job, send)
    send("stage", "making samples")
    import torch

    torch.set_num_threads(job.threads)
    try:
        if isinstance(job, ReplayJob):
            replay(job, send)
        else:
            estimator(job)
    except AbairError as error:
        raise Refusal(str(error)) from None
    return "result", None


def gates(plugins: Plugins, report: Report) -> list[object]:
    """Return the plugin's verdicts as JSON values.

    Raises:
        Refusal: its gate failed, or returned something else.
    """
    verdicts: list[Verdict] = []
    for _, implementation in _implementations(plugins, "abair_gates", {"report": report}):
        try:
            verdicts += _VERDICTS.validate_python(implementation())
        except BaseException as error:  # a plugin may raise anything
            raise Refusal(describe_error(error)) from None
    return [verdict.model_dump(mode="json") for verdict in verdicts]


def notices(plugins: Plugins, job: NoticesJob, send: Send) -> dict[str, object]:
    """Give each plugin its notice; returns what failed, as a text, by the plugin's name.

    One `progress` message is sent before the first, and one after each in the order of the job.
    """
    failures: dict[str, object] = {}
    given: dict[str, object] = {"deployment": read_deployment(job.deployment)}
    implementations = dict(_implementations(plugins, "abair_deployed", given))
    send("progress", None)
    for ref in job.plugins:
        if (implementation := implementations.get(ref.name)) is not None:
            send("stage", "in its hook abair_deployed")
            try:
                implementation()
            except BaseException as error:  # a plugin may raise anything
                failures[ref.name] = describe_error(error)
        send("progress", None)
    return failures


def replay(job: ReplayJob, send: Send) -> None:
    """Write the replay of a new label to `out`; each sample is one `progress` message."""
    from abair.continual.collect import ReplayCounts, add_damage, build_held_out, build_replay
    from abair.continual.mixtures import build_mixtures
    from abair.continual.replay import HeldOut, Replay
    from abair.data.degrade import Degrader, Recipe
    from abair.data.photos import load_clean_photos
    from abair.model.backbone import fingerprint, load_backbone
    from abair.model.lora import read_adapter_files

    # damage over the whole scene or a part of it; each sample is kept with its scene undamaged
    recipe = Recipe(cutmix=0.25, mixture=0.0, clean=0.0, gamma=0.35)
    backbone = load_backbone(job.backbone)
    train_on, held_out = load_clean_photos(job.photos)
    others = [(other, Replay.load(other.replay)) for other in job.others]
    adapters = {
        one.label: read_adapter_files(*one.files, backbone, fingerprint(backbone), one.label)
        for one in (*job.known, TrainedAdapter(label=job.label, files=job.adapter))
    }
    confine(job)
    plugins = _discover(job)
    synthesizer = _load_synthesizer(_degradation(plugins, job.label))
    degrader = Degrader({job.label: synthesizer}, recipe)

    def on_progress() -> None:
        send("progress", None)

    counts = ReplayCounts(job.trained, job.judged, job.kept, job.judged_clean)
    made = build_replay(
        backbone, degrader, [train_on], held_out, counts, job.seed,
        undamaged=-(-job.trained // 2), on_progress=on_progress,
    )  # fmt: skip
    known = _working_synthesizers(plugins, [one.label for one in job.known], train_on)
    mixed: list[HeldOut] = []
    for place, (other, kept) in enumerate(others, 1):
        if other.label in known:
            over = Degrader({other.label: known[other.label], job.label: synthesizer})
            pair = [(other.label, job.label)]
            mixed += build_held_out(backbone, over, held_out, pair, job.kept, job.seed, first_kind=1 + place)
        else:  # without its synthesiser: the kept parts of scenes that show its damage
            samples = [sample for sample in kept.held_out if sample.labels == (other.label,)][: job.kept]
            mixed += add_damage(backbone, degrader, job.label, samples, job.seed)
    chains = None
    if known:
        both = {**known, job.label: synthesizer}
        chains = build_mixtures(
            backbone, both, adapters, job.label, train_on, job.chained, job.seed, on_progress=on_progress
        )
    Replay(made.features, (*made.held_out, *mixed), chains, job.source).save(job.out)


def estimator(job: EstimatorJob) -> None:
    """Train the whole estimator on samples of all labels and write it to `out`."""
    from abair.data.degrade import Degrader
    from abair.data.photos import load_clean_photos
    from abair.model.backbone import fingerprint, load_backbone
    from abair.model.blend_cost import BlendCosts
    from abair.model.estimator import save_estimator
    from abair.model.lora import Blender, read_adapter_files
    from abair.training.estimator import RECIPE, EstimatorTask
    from abair.training.loop import train
    from abair.training.settings import ESTIMATING
    from abair.training.temperature import calibrate, calibrate_confidence

    backbone, folder = load_backbone(job.backbone), job.folder
    expected, names = fingerprint(backbone), job.labels[:-1]
    adapters = [
        read_adapter_files(*files, backbone, expected, name) for files, name in zip(job.adapters, names, strict=True)
    ]
    photos, held_out = load_clean_photos(job.photos)
    confine(job)
    plugins = _discover(job)
    degrader = Degrader({name: _load_synthesizer(_degradation(plugins, name)) for name in names}, RECIPE)
    steps = job.trained
    settings = ESTIMATING.model_copy(
        update={"steps": steps, "seed": job.seed, "workers": 0, "validate_every": max(1, steps // 12)}
    )
    blender = Blender(backbone, adapters)
    task = EstimatorTask(
        backbone, degrader, photos, held_out, settings, folder, job.samples,
        costs=BlendCosts(blender), validation_samples=job.validation,
    )  # fmt: skip
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # the samples are what takes long; they are kept
    train(task, settings, folder, quiet=True)
    made = task.module.requires_grad_(False).eval()
    calibrate(made, backbone, blender, degrader, held_out, job.temperature)
    calibrate_confidence(made, *task.held_out_features())
    save_estimator(made, job.out)


def _discover(job: Job) -> Plugins:
    return discover([EntryPoint(ref.name, ref.module, GROUP) for ref in job.plugins])


def _load(job: Job) -> Plugins:
    """Load the plugin of a job for one plugin.

    Raises:
        Refusal: it cannot be loaded.
    """
    plugins = _discover(job)
    if plugins.problems:
        raise Refusal(plugins.problems[0].reason)
    return plugins


def _degradation(plugins: Plugins, name: str) -> Degradation:
    try:
        return plugins.get(name)
    except AbairError as error:
        raise Refusal(str(error)) from None


def _working_synthesizers(plugins: Plugins, labels: Sequence[str], photos: CleanPhotos) -> dict[str, Synthesizer]:
    """Return the labels' synthesisers that work: a broken old one must not hold up a new label."""
    from abair.data.seeds import Stream, generator_for

    working = {}
    for label in labels:
        try:
            degrade = _load_synthesizer(_degradation(plugins, label))
            degrade(
                photos.crop(generator_for(0, Stream.SYNTHESIZER_PROBE), 64), generator_for(0, Stream.SYNTHESIZER_PROBE)
            )
        except (AbairError, Refusal):
            continue
        working[label] = degrade
    return working


def _load_synthesizer(degradation: Degradation) -> Synthesizer:
    """Load a synthesiser; its failures refuse with a line that names the degradation."""
    degrade = load_synthesizer(degradation)

    def guarded(clean: Tensor, generator: Generator) -> Tensor:
        try:
            return degrade(clean, generator)
        except PluginError as error:
            raise Refusal(f"{error}; mend it and add the plugin again") from None
        except BaseException as error:  # a plugin may raise anything
            raise Refusal(
                f"degradation {degradation.name}: its synthesiser failed ({describe_error(error)}); expected "
                "samples; mend it and add the plugin again"
            ) from None

    return guarded


def _implementations(plugins: Plugins, hook: str, given: dict[str, object]) -> list[tuple[str, Callable[[], object]]]:
    """Return each plugin's own implementation of a hook, with the arguments that it names.

    Pluggy's call would end at the first that raises.
    """
    caller = getattr(plugins.manager.hook, hook)
    return [
        (i.plugin_name, partial(i.function, **{name: given[name] for name in i.argnames}))
        for i in caller.get_hookimpls()
    ]


if __name__ == "__main__":
    serve_request(JOBS, work)
