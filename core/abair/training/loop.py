"""One plain training loop for all three phases: seeded, resumable, in bf16 where the machine has it.

A phase is a `Task`: what is trained, how a batch is made from its number, and what its loss is. All randomness comes
from the batch's number, and a checkpoint holds everything else, so a run that was killed and resumed ends where an
uninterrupted one does.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from abair.errors import TrainingError
from abair.files import write_text
from abair.inference.hardware import fast_bf16_on_cpu, keep_freed_memory
from abair.model.safetensors_io import write_tensors
from abair.training import distributed
from abair.training.settings import Settings

CHECKPOINT: Final = "checkpoint.safetensors"
HISTORY: Final = "history.jsonl"
BETTER: Final = 0.01
"""By how much a held-out figure must rise to count as better: dB of a restoration, hundredths of an accuracy."""

Batch = tuple[Tensor, ...]
Watch = Callable[[int, dict[str, float]], None]
"""Called after each validation with the step, the loss since the last one, and the held-out figures."""


class Task(Protocol):
    """What a phase brings to the loop."""

    @property
    def name(self) -> str:
        """What is trained, in one word or two; a checkpoint belongs to one name."""
        ...

    @property
    def module(self) -> nn.Module:
        """Its parameters that require gradients are trained; the rest is frozen."""
        ...

    @property
    def depends(self) -> dict[str, str]:
        """What the result depends on besides the settings: data, labels, the frozen network; each as a short text."""
        ...

    def batch(self, index: int) -> Batch:
        """The batch of this number, on the CPU; called in worker processes, so it depends on `index` alone."""
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss to minimise, and figures to show."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on held-out samples; `psnr` or `accuracy` is the one that the progress bar shows."""
        ...


@dataclass
class State:
    """Where a run stands; `best` are the averaged weights of its best validation, where patience is limited."""

    step: int = 0
    seconds: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    figure: float = float("-inf")
    stale: int = 0

    def judge(self, figures: dict[str, float]) -> None:
        """Note whether a validation found better weights than those before."""
        figure = figures["psnr"] if "psnr" in figures else figures["accuracy"]
        if figure >= self.figure + BETTER:
            self.figure, self.stale = figure, 0
            self.best = {name: tensor.clone() for name, tensor in self.average.items()}
        else:
            self.stale += 1

    def position(self, settings: Settings) -> float:
        """How far the run is, in steps; time that is over counts as the steps that it was meant for."""
        by_time = self.seconds / (60 * settings.minutes) if settings.minutes else 0.0
        return max(float(self.step), by_time * settings.steps)

    def over(self, settings: Settings) -> bool:
        """Whether this was the last step: of all of them, of the time, or of the patience."""
        tired = bool(settings.patience) and self.stale >= settings.patience
        return tired or self.position(settings) >= settings.steps


def train(
    task: Task,
    settings: Settings,
    folder: Path,
    *,
    device: str = "cpu",
    quiet: bool = False,
    watch: Watch | None = None,
) -> State:
    """Train `task` to the end that `settings` name, from the checkpoint in `folder` if there is one.

    Leaves the averaged weights (EMA), the best ones where patience is limited, in `task.module`, the checkpoint and
    `history.jsonl` in `folder`.

    Raises:
        TrainingError: the folder's checkpoint belongs to another run, or the loss is not finite.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot be made ({error.strerror}); expected a folder for checkpoints; name another"
        ) from None
    device = distributed.own_device(device)
    rank, world = distributed.join(device)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    module = task.module.to(device)
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
    state = State(average={name: p.detach().clone() for name, p in parameters.items()})
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        _restore(checkpoint, task, settings, parameters, optimizer, state)
    distributed.share_start([*parameters.values(), *state.average.values()])
    if rank == 0:
        _forget_after(folder / HISTORY, state.step)
    autocast = _autocast(settings.precision, device)
    report = _Report(task.name, settings, folder, quiet=quiet or rank > 0)
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    with report:
        over = distributed.as_first(state.over(settings))
        if over:
            report.nothing_left(state)
        for batch in () if over else _batches(task, settings, state.step, rank, world):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, state.position(settings))
            module.train()
            with autocast():
                loss, figures = task.loss(tuple(part.to(device, non_blocking=True) for part in batch))
            if not bool(loss.isfinite()):
                raise TrainingError(
                    f"{folder}: step {state.step}: the loss is {float(loss.detach())}; expected a finite number; "
                    f"lower learning_rate (now {settings.learning_rate}) and resume from the checkpoint"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.share_gradients(parameters.values())
            torch.nn.utils.clip_grad_norm_(parameters.values(), settings.clip)
            optimizer.step()
            state.step += 1
            _average(state, parameters, settings.averaging)
            state.seconds = time.monotonic() - started
            report.step(state, float(loss.detach()), figures)
            over = distributed.as_first(state.over(settings))
            if over or state.step % settings.validate_every == 0:
                if rank == 0:
                    with _averaged(parameters, state.average):
                        module.eval()
                        validated = task.validate()
                    report.validated(state, validated, watch)
                    if settings.patience:
                        state.judge(validated)
                over = distributed.as_first(state.over(settings))
            if over:
                _expect_finite(state, folder, settings)
            if rank == 0 and (over or time.monotonic() - saved > 60 * settings.checkpoint_minutes):
                _save(checkpoint, task, settings, parameters, optimizer, state)
                saved = time.monotonic()
            if over:
                break
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_((state.best or state.average)[name])
    module.eval()
    return state


def _expect_finite(state: State, folder: Path, settings: Settings) -> None:
    """The last step's update is seen by no loss; what 16 bits cannot hold is no weight that could be written."""
    if not all(bool(tensor.half().isfinite().all()) for tensor in state.average.values()):
        raise TrainingError(
            f"{folder}: step {state.step}: the weights are not finite in 16 bits; expected numbers; lower "
            f"learning_rate (now {settings.learning_rate}) and resume from the checkpoint"
        )


def learning_rate(settings: Settings, step: float) -> float:
    """Warm-up, stable, decay (linear to zero): the rate of one step."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    left = max(0.0, settings.steps - step) / max(1.0, settings.decay * settings.steps)
    return settings.learning_rate * min(warm, left, 1.0)


class _Numbered(Dataset[Batch]):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, index: int) -> Batch:
        return self.task.batch(index)


def _batches(task: Task, settings: Settings, start: int, rank: int, world: int) -> Iterator[Batch]:
    """The batches from step `start` on, made ahead of time by worker processes."""
    loader = DataLoader(
        _Numbered(task),
        batch_size=None,
        sampler=range(start * world + rank, settings.steps * world, world),
        num_workers=settings.workers,
        prefetch_factor=8 if settings.workers else None,
        worker_init_fn=_one_thread,
        multiprocessing_context="fork" if settings.workers else None,
    )
    yield from loader


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def _autocast(precision: str, device: str) -> Callable[[], AbstractContextManager[Any]]:
    kind = torch.device(device).type
    has_bf16 = torch.cuda.is_bf16_supported() if kind == "cuda" else fast_bf16_on_cpu()
    enabled = precision == "bfloat16" or (precision == "auto" and has_bf16)
    return lambda: torch.autocast(kind, torch.bfloat16, enabled=enabled)


@torch.no_grad()
def _average(state: State, parameters: dict[str, nn.Parameter], averaging: float) -> None:
    # the average may not trail a run that is younger than its horizon
    keep = min(averaging, (1 + state.step) / (10 + state.step))
    names = list(parameters)
    torch._foreach_lerp_([state.average[n] for n in names], [parameters[n].detach() for n in names], 1 - keep)


class _averaged:  # noqa: N801
    """Within it, the parameters hold their averages."""

    def __init__(self, parameters: dict[str, nn.Parameter], average: dict[str, Tensor]) -> None:
        self.parameters, self.average = parameters, average

    def __enter__(self) -> None:
        self.kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._set(self.average)

    def __exit__(self, *_: object) -> None:
        self._set(self.kept)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])


def _save(
    path: Path, task: Task, settings: Settings, parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW,
    state: State,
) -> None:  # fmt: skip
    """Write the checkpoint; a kill leaves the one before."""
    tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in parameters.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in state.average.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
    facts = {"task": task.name, "step": state.step, "seconds": state.seconds, "of": _identity(task, settings)}
    if state.best:
        facts |= {"figure": state.figure, "stale": state.stale}
    write_tensors(path, tensors, {"abair.checkpoint": json.dumps(facts)})


def _restore(
    path: Path, task: Task, settings: Settings, parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW,
    state: State,
) -> None:  # fmt: skip
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("abair.checkpoint", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise TrainingError(
            f"{path}: damaged ({error}), expected a whole checkpoint; remove it to start anew"
        ) from None
    found = {name.removeprefix("model."): t.shape for name, t in tensors.items() if name.startswith("model.")}
    expected = {name: parameter.shape for name, parameter in parameters.items()}
    identity = _identity(task, settings)
    # what a checkpoint of an earlier version does not say is as it always was then
    usual = {key: str(field.default) for key, field in Settings.model_fields.items()} | {
        "start": "",
        "blended_with": "",
    }
    if facts.get("of", {}).get("beside", "()") != "()":
        usual["mixed"] = "0.3 by chance"
    of = usual | facts.get("of", {})
    others = sorted(key for key in identity if identity[key] != of.get(key))
    if facts.get("task") != task.name or others or found != expected:
        told = "; ".join(f"{key}: found {of.get(key)}, expected {identity[key]}" for key in others[:3])
        raise TrainingError(
            f"{path}: found a checkpoint of another run ({facts.get('task')}{'; ' if told else ''}{told}), expected "
            f"one of {task.name} with these settings and data; name another folder, or remove it to start anew"
        )
    if facts["step"] > settings.steps:
        raise TrainingError(f"{path}: found step {facts['step']}, expected at most {settings.steps}; raise --steps")
    state.step, state.seconds = facts["step"], facts["seconds"]
    state.figure, state.stale = facts.get("figure", state.figure), facts.get("stale", 0)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"model.{name}"])
            state.average[name].copy_(tensors[f"average.{name}"])
            if f"best.{name}" in tensors:
                state.best[name] = torch.empty_like(parameter).copy_(tensors[f"best.{name}"])
            moments = {key: tensors[f"adam.{key}.{name}"] for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": tensors[f"adam.step.{name}"]} | {
                key: torch.empty_like(parameter).copy_(moment) for key, moment in moments.items()
            }


def _identity(task: Task, settings: Settings) -> dict[str, str]:
    """What a checkpoint belongs to: another of any of these would have led elsewhere."""
    free = {"steps", "minutes", "patience", "precision", "workers", "validate_every", "checkpoint_minutes"}
    free |= {"trained_part"}  # what is done with the weights afterwards
    kept = {key: str(value) for key, value in settings.model_dump().items() if key not in free}
    return kept | task.depends


def _forget_after(history: Path, step: int) -> None:
    """Drop what the history says of steps that a kill undid: they will be done, and written, again."""
    if not history.exists():
        return
    lines = history.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_text(history, "".join(f"{line}\n" for line in kept))


class _Report:
    """The progress bar on stderr (loss, held-out figure, time left) and the run's history, one JSON object a line."""

    def __init__(self, name: str, settings: Settings, folder: Path, *, quiet: bool) -> None:
        self.settings, self.path, self.quiet = settings, folder / HISTORY, quiet
        self.losses: list[float] = []
        self.figure = ""
        self.progress = Progress(
            TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            TimeRemainingColumn(), console=Console(stderr=True), disable=quiet or not sys.stderr.isatty(),
        )  # fmt: skip
        self.bar = self.progress.add_task("", total=settings.steps)

    def __enter__(self) -> None:
        self.progress.start()

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, state: State, loss: float, figures: dict[str, float]) -> None:
        self.losses.append(loss)
        recent = self.losses[-100:]
        shown = "".join(f" {name} {value:.3f}" for name, value in figures.items())
        self.progress.update(
            self.bar,
            completed=min(self.settings.steps, state.position(self.settings)),
            description=f"loss {sum(recent) / len(recent):.4f}{shown}{self.figure}",
        )

    def nothing_left(self, state: State) -> None:
        if not self.quiet:
            print(
                f"{self.path.parent}: nothing is left to train: {state.step} steps are done; for more raise steps or "
                "time, to begin anew name another folder for checkpoints",
                file=sys.stderr,
                flush=True,
            )

    def validated(self, state: State, figures: dict[str, float], watch: Watch | None) -> None:
        recent = self.losses[-self.settings.validate_every :]
        entry = {"step": state.step, "seconds": round(state.seconds, 1), "loss": sum(recent) / max(1, len(recent))}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry | figures) + "\n")
        if watch is not None:
            watch(state.step, {"loss": entry["loss"]} | figures)
        for name in ("psnr", "accuracy"):
            if name in figures:
                self.figure = f" held-out {name} {figures[name]:.2f}"
        if self.progress.disable and not self.quiet:
            line = " ".join(f"{name}={value:.4g}" for name, value in (entry | figures).items())
            print(line, file=sys.stderr, flush=True)
