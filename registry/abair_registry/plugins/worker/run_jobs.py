"""What plugins do for an operation, in a process of their own: `python -m abair_registry.errands`.

Their gates are asked, their notices given, their synthesisers run, here and nowhere else: the process that trains,
judges and publishes imports no plugin. What comes back is data, which that process checks: verdicts, a replay, an
estimator that the gates judge like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from abair.contract import GROUP, Degradation
from abair.data.synthesizers import load_synthesizer
from abair.deployment import read_deployment
from abair.discovery import Plugins, discover
from abair.errors import AbairError
from abair.report import Report, Verdict
from abair.text import describe_error
from abair_registry.plugins.worker.runtime import Asked, Refusal, Send, answer, confine

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from abair.data.degrade import CleanPhotos
    from abair.data.synthesizers import Synthesizer

_VERDICTS = TypeAdapter(list[Verdict])


class Point(BaseModel):
    """A plugin by its entry point; `distribution` is the one whose metadata the asking process compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    module: str
    distribution: str


class Damaged(BaseModel):
    """Held-out samples of one live label, which a new one damages further."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    replay: Path


class Trained(BaseModel):
    """A label's adapter: its configuration and its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    files: tuple[Path, Path]


class Errand(Asked):
    """What each errand has: the plugins that it needs."""

    points: tuple[Point, ...]


class Gates(Errand):
    """Ask each plugin's `abair_gates` about a report."""

    task: Literal["gates"] = "gates"
    report: Report


class Notices(Errand):
    """Tell each plugin's `abair_deployed` of the deployment in a folder."""

    task: Literal["notices"] = "notices"
    deployment: Path


class Making(Errand):
    """Run synthesisers on the photos of a folder, without one on those of scikit-image; `out` gets the result."""

    threads: int
    backbone: Path
    photos: Path | None
    seed: int
    out: Path


class MakeReplay(Making):
    """Make what a new label leaves behind: `trained`, `judged` and `kept` samples, as `trainer` says.

    And `chained` samples with its damage over that of the labels that are `known`, if there are any.
    """

    task: Literal["replay"] = "replay"
    label: str
    adapter: tuple[Path, Path]
    known: tuple[Trained, ...]
    others: tuple[Damaged, ...]
    trained: int
    judged: int
    kept: int
    chained: int


class MakeEstimator(Making):
    """Train the whole estimator, `trained` steps on `samples`; `adapters` are two files each, in `labels`' order."""

    task: Literal["estimator"] = "estimator"
    labels: tuple[str, ...]
    adapters: tuple[tuple[Path, Path], ...]
    trained: int
    samples: int
    folder: Path


Request = Gates | Notices | MakeReplay | MakeEstimator
REQUESTS: Final[TypeAdapter[Request]] = TypeAdapter(Annotated[Request, Field(discriminator="task")])


def work(errand: Request, send: Send) -> tuple[str, object]:
    """The kind of the last message and what it says: for gates and notices, each plugin's answer by its name.

    Raises:
        Refusal: a synthesiser failed, or a plugin that is needed cannot be used.
    """
    if isinstance(errand, Gates):
        confine(errand)
        return "done", gates(_usable(errand), errand.report)
    if isinstance(errand, Notices):
        confine(errand)
        return "done", notices(_usable(errand), errand.deployment)
    import torch

    torch.set_num_threads(errand.threads)
    try:
        if isinstance(errand, MakeReplay):
            replay(errand, send)
        else:
            estimator(errand)
    except AbairError as error:
        raise Refusal(str(error)) from None
    return "done", None


def gates(plugins: Plugins, report: Report) -> dict[str, object]:
    """Each plugin's verdicts as JSON values, or why it could not be asked, as a text."""
    given: dict[str, object] = {}
    for name, asked in _implementations(plugins, "abair_gates", {"report": report}):
        try:
            verdicts = _VERDICTS.validate_python(asked())
        except (Exception, SystemExit) as error:
            given[name] = (
                describe_error(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
            )
        else:
            given[name] = [verdict.model_dump(mode="json") for verdict in verdicts]
    return given


def notices(plugins: Plugins, deployment: Path) -> dict[str, object]:
    """What went wrong, as a text, by the plugin's name."""
    wrong: dict[str, object] = {}
    for name, told in _implementations(plugins, "abair_deployed", {"deployment": read_deployment(deployment)}):
        try:
            told()
        except (Exception, SystemExit) as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    return wrong


def replay(errand: MakeReplay, send: Send) -> None:
    """What a new label leaves behind, written to `out`; a part is done with each sample."""
    from abair.continual.mixtures import chains_of
    from abair.continual.replay import HeldOut, Replay, damaged_further, held_out_of, replay_of
    from abair.data.degrade import Degrader, Recipe, clean_photos
    from abair.model.backbone import fingerprint, load_backbone
    from abair.model.lora import read_adapter_files

    # over the whole scene or over a part of it; each sample is kept with its scene undamaged
    recipe = Recipe(cutmix=0.25, double=0.0, clean=0.0, toned=0.35)
    backbone = load_backbone(errand.backbone)
    train_on, held_out = clean_photos(errand.photos)
    others = [(other, Replay.load(other.replay)) for other in errand.others]
    adapters = {
        one.label: read_adapter_files(*one.files, backbone, fingerprint(backbone), one.label)
        for one in (*errand.known, Trained(label=errand.label, files=errand.adapter))
    }
    confine(errand)
    plugins = _usable(errand)
    synthesizer = _guarded(_degradation(plugins, errand.label))
    degrader = Degrader({errand.label: synthesizer}, recipe)

    def tell() -> None:
        send("one", None)

    made = replay_of(
        backbone, degrader, [train_on], held_out, errand.judged, errand.seed, trained=errand.trained, paired=True,
        tell=tell,
    )  # fmt: skip
    known = _working(plugins, [one.label for one in errand.known], train_on)
    mixed: list[HeldOut] = []
    for place, (other, kept) in enumerate(others, 1):
        if other.label in known:
            over = Degrader({other.label: known[other.label], errand.label: synthesizer})
            pair = [(other.label, errand.label)]
            mixed += held_out_of(backbone, over, held_out, pair, errand.kept, errand.seed, first=1 + place)
        else:  # what is left of it has to do: parts of scenes that show its damage
            samples = [sample for sample in kept.held_out if sample.labels == (other.label,)][: errand.kept]
            mixed += damaged_further(backbone, degrader, errand.label, samples, errand.seed)
    chains = None
    if known:
        both = {**known, errand.label: synthesizer}
        chains = chains_of(backbone, both, adapters, errand.label, train_on, errand.chained, errand.seed, tell=tell)
    Replay(made.features, (*made.held_out, *mixed), chains).save(errand.out)


def estimator(errand: MakeEstimator) -> None:
    """The whole estimator, from samples of all labels, written to `out`; checkpoints and history in `folder`."""
    from abair.data.degrade import Degrader, clean_photos
    from abair.model.backbone import fingerprint, load_backbone
    from abair.model.blend_cost import Costs
    from abair.model.estimator import save_estimator
    from abair.model.lora import Blender, read_adapter_files
    from abair.training.estimator import RECIPE, EstimatorTask
    from abair.training.loop import train
    from abair.training.settings import ESTIMATING
    from abair.training.temperature import calibrate

    backbone, folder = load_backbone(errand.backbone), errand.folder
    mark, names = fingerprint(backbone), errand.labels[:-1]
    adapters = [
        read_adapter_files(*files, backbone, mark, name) for files, name in zip(errand.adapters, names, strict=True)
    ]
    photos, held_out = clean_photos(errand.photos)
    confine(errand)
    plugins = _usable(errand)
    degrader = Degrader({name: _guarded(_degradation(plugins, name)) for name in names}, RECIPE)
    steps = errand.trained
    settings = ESTIMATING.model_copy(
        update={"steps": steps, "seed": errand.seed, "workers": 0, "validate_every": max(1, steps // 12)}
    )
    blender = Blender(backbone, adapters)
    task = EstimatorTask(backbone, degrader, photos, held_out, settings, folder, errand.samples, costs=Costs(blender))
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # the samples are what takes long; they are kept
    train(task, settings, folder, quiet=True)
    made = task.module.requires_grad_(False).eval()
    calibrate(made, backbone, blender, degrader, held_out)
    save_estimator(made, errand.out)


def _usable(errand: Errand) -> Plugins:
    return discover([EntryPoint(point.name, point.module, GROUP) for point in errand.points])


def _degradation(plugins: Plugins, name: str) -> Degradation:
    try:
        return plugins.get(name)
    except AbairError as error:
        raise Refusal(str(error)) from None


def _working(plugins: Plugins, labels: Sequence[str], photos: CleanPhotos) -> dict[str, Synthesizer]:
    """The labels' synthesisers, less those that do not work: a new label does not wait until an old one is mended."""
    from abair.data.degrade import generator_for

    working = {}
    for label in labels:
        try:
            degrade = _guarded(_degradation(plugins, label))
            degrade(photos.crop(generator_for(0, 24), 64), generator_for(0, 24))
        except (AbairError, Refusal):
            continue
        working[label] = degrade
    return working


def _guarded(degradation: Degradation) -> Synthesizer:
    """The synthesiser, whose failures refuse with a line that names the degradation."""
    degrade = load_synthesizer(degradation)

    def guarded(clean: Tensor, generator: Generator) -> Tensor:
        try:
            return degrade(clean, generator)
        except (Exception, SystemExit) as error:
            raise Refusal(
                f"degradation {degradation.name}: its synthesiser failed ({type(error).__name__}: {error}); expected "
                "samples; mend it and add the plugin again"
            ) from None

    return guarded


def _implementations(plugins: Plugins, hook: str, given: dict[str, object]) -> list[tuple[str, Callable[[], object]]]:
    """One by one, not by pluggy's call, which ends at the first that raises; each gets the arguments that it names."""
    caller = getattr(plugins.manager.hook, hook)
    return [
        (i.plugin_name, partial(i.function, **{name: given[name] for name in i.argnames}))
        for i in caller.get_hookimpls()
    ]


if __name__ == "__main__":
    answer(REQUESTS, work)
