"""The one loop of all phases: seeded, resumable to the bit, and the same for several workers and processes."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.data.seeds import generator_from
from abair.errors import TrainingError
from abair.model.backbone import SIZES, Backbone, fingerprint, load_backbone, save_backbone
from abair.physics import uniform
from abair.training import distributed, loop
from abair.training.backbone import PretrainTask
from abair.training.loop import CHECKPOINT, HISTORY, Batch, learning_rate, train
from abair.training.settings import Settings, read_settings

EVERY_STEP = 1e-9
"""A checkpoint after every step, in minutes."""


class KilledError(Exception):
    """Stands for a kill in the middle of a step."""


@dataclass
class Toy:
    """A small regression; stops as if killed when its loss is asked for the `stop`-th time."""

    name: str = "toy"
    stop: int = -1
    poison: int = -1
    module: nn.Module = field(default_factory=lambda: _module())
    depends: dict[str, str] = field(default_factory=lambda: {"data": "numbers"})
    calls: int = 0
    rates: list[float] = field(default_factory=list)

    def batch(self, index: int) -> Batch:
        generator = generator_from(7, index)
        x = torch.rand(4, 3, 6, 6, generator=generator)
        return x, x.flip(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        if self.calls == self.stop:
            raise KilledError
        loss = (self.module(batch[0]) - batch[1]).square().mean()
        if self.calls == self.poison:
            loss = loss * math.nan
        self.calls += 1
        return loss, {"mse": float(loss.detach())}

    def validate(self) -> dict[str, float]:
        assert not self.module.training
        return {"psnr": float(next(self.module.parameters()).detach().double().sum())}


def _module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {"steps": 8, "batch": 4, "crop": 16, "learning_rate": 1e-2, "warmup": 2, "decay": 0.5}
    values |= {"averaging": 0.9, "precision": "float32", "workers": 0, "validate_every": 3, "checkpoint_minutes": 10.0}
    return Settings(**values | changes)


def _same(first: nn.Module, second: nn.Module) -> bool:
    return fingerprint(first) == fingerprint(second)


def _history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]


def _run(folder: Path, settings: Settings | None = None, **options: Any) -> Toy:
    task = Toy(**options)
    train(task, settings or _settings(), folder, quiet=True)
    return task


# --- seeded and resumable


def test_the_same_settings_give_the_same_weights(tmp_path: Path) -> None:
    first, second = _run(tmp_path / "a"), _run(tmp_path / "b")
    assert _same(first.module, second.module)
    assert not _same(first.module, _module())


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_resumed_after_a_kill_it_ends_exactly_where_an_uninterrupted_run_does(tmp_path: Path, stop: int) -> None:
    settings = _settings(checkpoint_minutes=EVERY_STEP)
    whole = _run(tmp_path / "whole", settings)
    with pytest.raises(KilledError):
        _run(tmp_path / "killed", settings, stop=stop)
    resumed = _run(tmp_path / "killed", settings)
    assert resumed.calls == 8 - stop
    assert _same(resumed.module, whole.module)
    checkpoints = [load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "killed")]
    assert checkpoints[0].keys() == checkpoints[1].keys()
    assert all(torch.equal(tensor, checkpoints[1][name]) for name, tensor in checkpoints[0].items())
    for whole_entry, entry in zip(_history(tmp_path / "whole"), _history(tmp_path / "killed"), strict=True):
        assert (entry["step"], entry["psnr"]) == (whole_entry["step"], whole_entry["psnr"])


def test_steps_after_the_last_checkpoint_are_done_again_and_written_once(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        _run(tmp_path, stop=7)  # its only checkpoint would have come at the end
    assert [entry["step"] for entry in _history(tmp_path)] == [3, 6]
    assert _run(tmp_path).calls == 8
    assert [entry["step"] for entry in _history(tmp_path)] == [3, 6, 8]


def test_a_history_cut_by_a_kill_does_not_stop_the_run(tmp_path: Path) -> None:
    _run(tmp_path)
    with (tmp_path / HISTORY).open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "lo')
    _run(tmp_path)
    assert [entry["step"] for entry in _history(tmp_path)] == [3, 6, 8]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = _run(tmp_path)
    again = _run(tmp_path)
    assert again.calls == 0
    assert _same(first.module, again.module)


def test_a_kill_while_the_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(checkpoint_minutes=EVERY_STEP)
    whole = _run(tmp_path / "whole", settings)
    written = 0

    def half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:  # as safetensors writes
        nonlocal written
        written += 1
        if written == 4:
            path.write_bytes(b"half of it")
            raise KilledError
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(KilledError):
        _run(tmp_path / "killed", settings)
    resumed = _run(tmp_path / "killed", settings)
    assert resumed.calls == 5
    assert _same(resumed.module, whole.module)


# --- refusals


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"name": "other"}, {}, r"found a checkpoint of another run \(toy\), expected one of other"),
        ({}, {"seed": 5}, r"another run \(toy; seed: found 0, expected 5\)"),
        ({}, {"learning_rate": 0.5}, r"learning_rate: found 0\.01, expected 0\.5"),
        ({"depends": {"data": "others"}}, {}, r"data: found numbers, expected others"),
        ({"module": nn.Conv2d(3, 3, 1)}, {}, r"found a checkpoint of another run \(toy\), expected one of toy"),
        ({}, {"steps": 5}, "found step 8, expected at most 5"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(
    tmp_path: Path, options: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    _run(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match=message):
        _run(tmp_path, _settings(**changes), **options)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_the_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    _run(tmp_path)
    wide = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 3, 3, padding=1))
    with pytest.raises(TrainingError, match="found a checkpoint of another run"):
        _run(tmp_path, module=wide)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    _run(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-10])
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: damaged"):
        _run(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path: Path) -> None:
    settings = _settings(checkpoint_minutes=EVERY_STEP)
    task = Toy(poison=4)
    with pytest.raises(TrainingError, match="step 4: the loss is nan; expected a finite number; lower learning_rate"):
        train(task, settings, tmp_path, quiet=True)
    assert all(bool(parameter.isfinite().all()) for parameter in task.module.parameters())
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        assert json.loads(file.metadata()["abair.checkpoint"])["step"] == 4


def test_weights_that_a_last_step_spoiled_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 1: the weights are not finite in 16 bits; expected numbers; lower"):
        _run(tmp_path, _settings(steps=1, learning_rate=1e30, warmup=0))
    assert not (tmp_path / CHECKPOINT).exists()


# --- when it ends


def test_a_run_of_so_many_minutes_ends_in_time_its_rate_fallen_to_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=5)  # a step takes 5 s or more
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    settings = _settings(steps=1000, minutes=2.0)
    task = Toy()
    state = train(task, settings, tmp_path, quiet=True)
    assert 3 < state.step < 25
    assert state.seconds >= 120
    assert learning_rate(settings, state.position(settings)) == 0
    assert [entry["step"] for entry in _history(tmp_path)][-1] == state.step


def test_time_counts_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=5)
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    settings = _settings(steps=1000, minutes=2.0, checkpoint_minutes=EVERY_STEP)
    with pytest.raises(KilledError):
        train(Toy(stop=5), settings, tmp_path, quiet=True)
    again = Toy()
    state = train(again, settings, tmp_path, quiet=True)
    assert 0 < again.calls < state.step
    over = Toy()
    assert train(over, settings, tmp_path, quiet=True).step == state.step
    assert over.calls == 0


@dataclass
class Peaking(Toy):
    """Its third validation is its best one."""

    figures: Iterator[float] = field(default_factory=lambda: iter([1.0, 2.0, 3.0, 2.5, 3.005, 2.0, 9.0]))
    seen: list[dict[str, Tensor]] = field(default_factory=list)

    def validate(self) -> dict[str, float]:
        self.seen.append({name: tensor.clone() for name, tensor in self.module.state_dict().items()})
        return {"psnr": next(self.figures)}


def test_patience_ends_a_run_and_leaves_its_best_weights(tmp_path: Path) -> None:
    task = Peaking()
    state = train(task, _settings(steps=100, validate_every=2, patience=3), tmp_path, quiet=True)
    assert state.step == 12  # the best after 6, and three that are no better by a hundredth
    best = task.seen[2]
    assert all(tensor.equal(best[name]) for name, tensor in task.module.state_dict().items())
    assert not all(tensor.equal(task.seen[-1][name]) for name, tensor in best.items())


def test_patience_is_the_same_after_a_kill(tmp_path: Path) -> None:
    settings = _settings(steps=100, validate_every=2, patience=3, checkpoint_minutes=EVERY_STEP)
    whole = Peaking()
    train(whole, settings, tmp_path / "whole", quiet=True)
    with pytest.raises(KilledError):
        train(Peaking(stop=9), settings, tmp_path / "cut", quiet=True)
    rest = Peaking(figures=iter([3.005, 2.0, 9.0]))
    assert train(rest, settings, tmp_path / "cut", quiet=True).step == 12
    assert _same(rest.module, whole.module)


# --- what a step does


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    settings = _settings(steps=100, warmup=10, decay=0.4, learning_rate=2.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:61] == pytest.approx([2.0] * 52)
    assert rates[80] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(2 / 40)
    assert learning_rate(settings, 100) == 0
    assert rates[:10] == sorted(rates[:10])
    assert rates[60:] == sorted(rates[60:], reverse=True)


@pytest.mark.parametrize(("warmup", "decay", "steps"), [(0, 0.0, 1), (0, 1.0, 5), (50, 0.3, 5)])
def test_every_step_has_a_positive_rate_whatever_the_schedule(warmup: int, decay: float, steps: int) -> None:
    settings = _settings(steps=steps, warmup=warmup, decay=decay)
    assert all(0 < learning_rate(settings, step) <= settings.learning_rate for step in range(steps))


def test_while_the_rate_is_stable_a_longer_run_goes_the_same_way() -> None:
    short, long = (_settings(steps=steps, decay=0.2, warmup=5) for steps in (100, 200))
    assert [learning_rate(short, step) for step in range(81)] == [learning_rate(long, step) for step in range(81)]


def test_the_weights_left_are_the_averages_of_the_steps(tmp_path: Path) -> None:
    task = _run(tmp_path)
    tensors = load_file(tmp_path / CHECKPOINT)
    for name, parameter in task.module.named_parameters():
        assert torch.equal(parameter, tensors[f"average.{name}"])
        assert not torch.equal(parameter, tensors[f"model.{name}"])


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    expected: dict[str, Tensor] = {}
    for steps in range(1, 6):
        settings = _settings(steps=5, decay=0.0, checkpoint_minutes=EVERY_STEP)
        with pytest.raises(KilledError):
            _run(tmp_path / str(steps), settings.model_copy(update={"steps": 9}), stop=steps)
        tensors = load_file(tmp_path / str(steps) / CHECKPOINT)
        keep = min(0.9, (1 + steps) / (10 + steps))
        for name, start in _module().named_parameters():
            before = expected.get(name, start.detach())
            expected[name] = keep * before + (1 - keep) * tensors[f"model.{name}"]
            assert torch.allclose(tensors[f"average.{name}"], expected[name], atol=1e-6)


def test_the_history_has_a_line_for_each_validation(tmp_path: Path) -> None:
    _run(tmp_path)
    entries = _history(tmp_path)
    assert [entry["step"] for entry in entries] == [3, 6, 8]
    for entry in entries:
        assert entry.keys() == {"step", "seconds", "loss", "psnr"}
        assert all(math.isfinite(value) for value in entry.values())


def test_a_run_tells_its_figures_on_stderr_unless_it_is_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    train(Toy(), _settings(), tmp_path / "loud")
    told = capsys.readouterr()
    assert told.out == ""
    assert "psnr=" in told.err


def test_only_what_requires_gradients_is_trained_and_kept(tmp_path: Path) -> None:
    module = _module()
    frozen: Any = module[0]  # type: ignore[index]
    frozen.requires_grad_(False)
    before = fingerprint(frozen)
    task = _run(tmp_path, module=module)
    assert fingerprint(frozen) == before
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert not _same(task.module, _module())
    names = {name.split(".", 1)[1] for name in load_file(tmp_path / CHECKPOINT) if name.startswith("model.")}
    assert names == {"2.weight", "2.bias"}


def test_workers_make_the_very_same_batches(tmp_path: Path) -> None:
    here = list(loop._batches(Toy(), _settings(workers=0), 2, 0, 1))
    there = list(loop._batches(Toy(), _settings(workers=1), 2, 0, 1))
    assert len(here) == len(there) == 6
    for first, second in zip(here, there, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(here[0][0], Toy().batch(2)[0])


def test_processes_share_the_batches_without_overlap() -> None:
    settings = _settings(steps=3)
    ranks = [[batch[0] for batch in loop._batches(Toy(), settings, 1, rank, 2)] for rank in range(2)]
    for rank, batches in enumerate(ranks):
        assert len(batches) == 2
        for step, batch in enumerate(batches, start=1):
            assert torch.equal(batch, Toy().batch(2 * step + rank)[0])


# --- several processes


class _Shared(Toy):
    """In double precision, so that sums in another order do not show."""

    def __init__(self, seed: int, *, both: bool = False) -> None:
        super().__init__(module=_module(seed).double())
        self.both = both

    def batch(self, index: int) -> Batch:
        """One rank's batch, or what two ranks have in the step of this number."""
        if self.both:
            x = torch.cat([super(_Shared, self).batch(2 * index + rank)[0] for rank in range(2)])
        else:
            x = super().batch(index)[0]
        return x.double(), x.double().flip(1)


def _as_rank(folder: str, out: str) -> None:
    """What a process of the group runs; each makes its module from a seed of its own."""
    torch.set_num_threads(1)
    task = _Shared(seed=int(os.environ["RANK"]))
    train(task, _settings(steps=6), Path(folder), quiet=True)
    save_file({name: p.detach().contiguous() for name, p in task.module.named_parameters()}, out)
    group = weakref.ref(torch.distributed.group.WORLD)
    distributed.leave()
    assert group() is None, "the group and its threads are still there when the interpreter ends, which may abort it"


def _start(tmp_path: Path, rank: int, port: int) -> subprocess.Popen[bytes]:
    """Start one process of two, as torchrun does."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(loop.__file__).parents[2]),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='rank')['_as_rank'](*sys.argv[2:])"
    arguments = [__file__, str(tmp_path / "rank"), str(tmp_path / f"{rank}.safetensors")]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


def test_two_processes_end_with_the_weights_of_one_that_saw_both_their_batches(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [_start(tmp_path, rank, port) for rank in range(2)]
    try:
        single = _Shared(seed=0, both=True)
        train(single, _settings(steps=6), tmp_path / "single", quiet=True)
        assert [process.wait(timeout=120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert all(torch.allclose(first[name], p, atol=1e-9) for name, p in single.module.named_parameters())
    assert [entry["step"] for entry in _history(tmp_path / "rank")] == [3, 6]


# --- phase I through the loop


def _dim(clean: Tensor, generator: torch.Generator) -> Tensor:
    return clean * uniform(generator, 0.2, 0.6)


def _grain(clean: Tensor, generator: torch.Generator) -> Tensor:
    return (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


def _pretraining(settings: Settings, stop: int = -1) -> PretrainTask:
    class Stopping(PretrainTask):
        calls = 0

        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            self.calls += 1
            if self.calls > stop >= 0:
                raise KilledError
            return super().loss(batch)

    torch.manual_seed(0)
    photos = CleanPhotos([np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)], "test")
    degrader = Degrader({"dim": _dim, "grain": _grain})
    return Stopping(Backbone(SIZES["tiny"]), degrader, photos, photos, settings)


def test_phase_one_learns_validates_and_resumes_exactly(tmp_path: Path) -> None:
    settings = _settings(steps=6, batch=2, crop=32, validate_every=6, checkpoint_minutes=EVERY_STEP)
    whole = _pretraining(settings)
    start = fingerprint(whole.module.backbone)
    train(whole, settings, tmp_path / "whole", quiet=True)
    with pytest.raises(KilledError):
        train(_pretraining(settings, stop=3), settings, tmp_path / "killed", quiet=True)
    resumed = _pretraining(settings)
    train(resumed, settings, tmp_path / "killed", quiet=True)
    assert fingerprint(resumed.module) == fingerprint(whole.module)
    assert fingerprint(whole.module.backbone) != start
    assert _history(tmp_path / "whole")[-1].keys() == {"step", "seconds", "loss", "psnr", "dim", "grain", "clean"}
    written = save_backbone(whole.module.backbone, tmp_path / "b.safetensors")
    assert fingerprint(load_backbone(tmp_path / "b.safetensors")) == written


def test_phase_one_gives_batches_of_what_it_needs() -> None:
    settings = _settings(batch=3, crop=32)
    degraded, clean, types = _pretraining(settings).batch(4)
    assert degraded.shape == clean.shape == (3, 3, 32, 32)
    assert types.shape == (3, 3, 16, 16)
    assert torch.allclose(types.sum(1), torch.ones(3, 16, 16))
    again = _pretraining(settings).batch(4)
    assert all(torch.equal(a, b) for a, b in zip((degraded, clean, types), again, strict=True))
    assert not torch.equal(degraded, _pretraining(settings).batch(5)[0])


# --- settings


def test_settings_come_from_defaults_then_file_then_what_is_given(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[settings]\nsteps = 20\nbatch = 2\n", encoding="utf-8")
    read = read_settings(_settings(), file, steps=30, seed=None)
    assert (read.steps, read.batch, read.seed) == (30, 2, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[settings]\nstep = 3", "step: .*found 3"),
        ("[settings]\nsteps = 0", "steps: .*found 0"),
        ("[settings]\ncrop = 20", "crop: .*found 20"),
        ("[settings", "cannot be read as TOML"),
        ("steps = 3", r"found steps, expected a table \[settings\]"),
        ("settings = 3", r"found settings, expected a table \[settings\]"),
        (None, "cannot be read as TOML"),
    ],
)
def test_settings_that_cannot_be_used_are_one_clear_error(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "s.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=message) as caught:
        read_settings(_settings(), file)
    assert str(file) in str(caught.value)
