"""The training loop of all three phases: seeded, resumable, in bfloat16 where the hardware has it.

All randomness comes from a batch's number, and a checkpoint holds everything else. So a run that
was killed and resumed ends where an uninterrupted one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from abair.errors import TrainingError
from abair.inference.hardware import fast_bf16_on_cpu
from abair.inference.memory import set_up_memory
from abair.training import distributed
from abair.training.checkpoint import CHECKPOINT, Checkpoint
from abair.training.optimizer import make_optimizer
from abair.training.report import OnValidation, Report, truncate_history
from abair.training.settings import ImageSettings, Settings
from abair.training.task import Batch, State, Task
from abair.training.workers import compute_ahead

Parameters = Mapping[str, nn.Parameter]


def train(
    task: Task,
    settings: Settings,
    folder: Path,
    *,
    device: str = "cpu",
    quiet: bool = False,
    on_validation: OnValidation | None = None,
) -> State:
    """Train `task` to the end that `settings` set, from the checkpoint in `folder`, if any.

    Leaves the averaged weights, the best ones where patience is limited, in `task.module`, and the
    checkpoint and `history.jsonl` in `folder`.

    Raises:
        TrainingError: the folder's checkpoint belongs to another run, or the loss is not finite.
    """
    _make_folder(folder)
    device, rank, world = _set_up_process(device)
    module = task.module.to(device)
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(parameters.values(), settings, in_bf16=_in_bf16(settings.precision, device))
    state = State(average={name: p.detach().clone() for name, p in parameters.items()})
    checkpoint = Checkpoint(folder / CHECKPOINT, task, settings, parameters, optimizer)
    if checkpoint.path.exists():
        checkpoint.restore(state)
    distributed.broadcast_weights([*parameters.values(), *state.average.values()])
    if rank == 0:
        truncate_history(folder, state.step)
    autocast = _autocast(settings.precision, device)
    report = Report(task.name, settings, folder, quiet=quiet or rank > 0)
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    with report:
        finished = distributed.broadcast_flag(state.is_finished(settings))
        if finished:
            report.nothing_left(state)
        for batch in () if finished else _batches(task, settings, state.step, rank, world):
            module.train()
            with autocast():
                loss, metrics = task.loss(tuple(part.to(device, non_blocking=True) for part in batch))
            if not bool(loss.isfinite()):
                raise TrainingError(
                    f"{folder}: step {state.step}: the loss is {float(loss.detach())}; expected a finite number; "
                    f"lower learning_rate (now {settings.learning_rate}) and resume from the checkpoint"
                )
            _update(optimizer, parameters, loss, settings, learning_rate(settings, state.position(settings)))
            state.step += 1
            _update_average(state, parameters, settings.ema_decay)
            state.seconds = time.monotonic() - started
            report.record_step(state, float(loss.detach()), metrics)
            finished = distributed.broadcast_flag(state.is_finished(settings))
            if finished or state.step % settings.validate_every == 0:
                if rank == 0:
                    with _averaged_weights(parameters, state.average):
                        module.eval()
                        validation = task.validate()
                    report.record_validation(state, validation, on_validation)
                    if settings.patience:
                        state.record_validation(validation)
                finished = distributed.broadcast_flag(state.is_finished(settings))
            if finished:
                _check_weights(state, folder, settings)
            if rank == 0 and (finished or time.monotonic() - saved > 60 * settings.checkpoint_minutes):
                checkpoint.save(state)
                saved = time.monotonic()
            if finished:
                break
    _set_weights(parameters, state.best or state.average)
    module.eval()
    return state


def learning_rate(settings: Settings, position: float) -> float:
    """Return the rate of the step at a position: it rises, stays, and falls linearly to zero."""
    warm = min(1.0, (position + 1) / max(1, settings.warmup))
    left = max(0.0, settings.steps - position) / max(1.0, settings.decay * settings.steps)
    return settings.learning_rate * min(warm, left, 1.0)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot be made ({error.strerror}); expected a folder for checkpoints; name another"
        ) from None


def _set_up_process(device: str) -> tuple[str, int, int]:
    """Return this process's device, its rank, and the number of processes."""
    device = distributed.local_device(device)
    rank, world = distributed.join_group(device)
    torch.set_flush_denormal(True)
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32: Muon's products are the last in 32 bits
    set_up_memory()
    return device, rank, world


def _update(
    optimizer: torch.optim.Optimizer, parameters: Parameters, loss: Tensor, settings: Settings, rate: float
) -> None:
    """Take one step of the optimiser, on the mean gradients of all processes."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(parameters.values())
    torch.nn.utils.clip_grad_norm_(parameters.values(), settings.grad_clip, foreach=True)
    optimizer.step()


def _check_weights(state: State, folder: Path, settings: Settings) -> None:
    """Refuse weights that 16 bits cannot hold: no loss was computed after the last update."""
    if not all(bool(tensor.half().isfinite().all()) for tensor in state.average.values()):
        raise TrainingError(
            f"{folder}: step {state.step}: the weights are not finite in 16 bits; expected numbers; lower "
            f"learning_rate (now {settings.learning_rate}) and resume from the checkpoint"
        )


def _batches(task: Task, settings: Settings, start: int, rank: int, world: int) -> Iterator[Batch]:
    """Yield this rank's batches from step `start` on, made ahead of time by worker processes."""
    uses = settings.reuse if isinstance(settings, ImageSettings) else 1
    first, last = start // uses, -(-settings.steps // uses)
    made = compute_ahead(task.batch, range(first * world + rank, last * world, world), settings.workers)
    for number, batch in enumerate(made, first):
        for use in range(uses):
            if number * uses + use >= start:
                yield _mirror(batch, use)


def _mirror(batch: Batch, use: int) -> Batch:
    """Mirror the maps (B, C, H, W) of a batch: not at all, sideways, upside down, or both ways.

    Right angles are left out: rain falls, and horizons lie.
    """
    axes = [axis for axis, bit in ((3, 1), (2, 2)) if use & bit]
    return tuple(part.flip(axes) if axes and part.ndim == 4 else part for part in batch)


def _in_bf16(precision: str, device: str) -> bool:
    has_bf16 = torch.cuda.is_bf16_supported() if torch.device(device).type == "cuda" else fast_bf16_on_cpu()
    return precision == "bfloat16" or (precision == "auto" and has_bf16)


def _autocast(precision: str, device: str) -> Callable[[], AbstractContextManager[object]]:
    enabled = _in_bf16(precision, device)
    return lambda: torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled)


@torch.no_grad()
def _update_average(state: State, parameters: Parameters, decay: float) -> None:
    # the average may not trail a run that is younger than its horizon
    decay = min(decay, (1 + state.step) / (10 + state.step))
    names = list(parameters)
    torch._foreach_lerp_([state.average[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)


@contextmanager
def _averaged_weights(parameters: Parameters, average: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the parameters their averages for as long as the block lasts."""
    trained = {name: p.detach().clone() for name, p in parameters.items()}
    _set_weights(parameters, average)
    try:
        yield
    finally:
        _set_weights(parameters, trained)


@torch.no_grad()
def _set_weights(parameters: Parameters, values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
