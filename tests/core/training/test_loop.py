"""The training loop: what a step does, when a run ends, and what is left at the end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.toy_task import EVERY_STEP, KilledError, Toy, make_module, make_settings, same_weights, train_toy
from torch import Tensor

from abair.model.backbone import fingerprint
from abair.training import loop
from abair.training.checkpoint import CHECKPOINT
from abair.training.loop import learning_rate, train
from abair.training.report import read_history
from abair.training.task import Batch


def test_a_run_of_so_many_minutes_ends_in_time_its_rate_fallen_to_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=5)  # a step takes 5 s or more
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    settings = make_settings(steps=1000, minutes=2.0)
    task = Toy()
    state = train(task, settings, tmp_path, quiet=True)
    assert 3 < state.step < 25
    assert state.seconds >= 120
    assert learning_rate(settings, state.position(settings)) == 0
    assert [entry["step"] for entry in read_history(tmp_path)][-1] == state.step


def test_time_counts_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=5)
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    settings = make_settings(steps=1000, minutes=2.0, checkpoint_minutes=EVERY_STEP)
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
    state = train(task, make_settings(steps=100, validate_every=2, patience=3), tmp_path, quiet=True)
    assert state.step == 12  # the best after 6, and three that are no better by a hundredth
    best = task.seen[2]
    assert all(tensor.equal(best[name]) for name, tensor in task.module.state_dict().items())
    assert not all(tensor.equal(task.seen[-1][name]) for name, tensor in best.items())


def test_patience_is_the_same_after_a_kill(tmp_path: Path) -> None:
    settings = make_settings(steps=100, validate_every=2, patience=3, checkpoint_minutes=EVERY_STEP)
    whole = Peaking()
    train(whole, settings, tmp_path / "whole", quiet=True)
    with pytest.raises(KilledError):
        train(Peaking(stop=9), settings, tmp_path / "cut", quiet=True)
    rest = Peaking(figures=iter([3.005, 2.0, 9.0]))
    assert train(rest, settings, tmp_path / "cut", quiet=True).step == 12
    assert same_weights(rest.module, whole.module)


# --- what a step does


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    settings = make_settings(steps=100, warmup=10, decay=0.4, learning_rate=2.0)
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
    settings = make_settings(steps=steps, warmup=warmup, decay=decay)
    assert all(0 < learning_rate(settings, step) <= settings.learning_rate for step in range(steps))


def test_while_the_rate_is_stable_a_longer_run_goes_the_same_way() -> None:
    short, long = (make_settings(steps=steps, decay=0.2, warmup=5) for steps in (100, 200))
    assert [learning_rate(short, step) for step in range(81)] == [learning_rate(long, step) for step in range(81)]


def test_the_weights_left_are_the_averages_of_the_steps(tmp_path: Path) -> None:
    task = train_toy(tmp_path)
    tensors = load_file(tmp_path / CHECKPOINT)
    for name, parameter in task.module.named_parameters():
        assert torch.equal(parameter, tensors[f"average.{name}"])
        assert not torch.equal(parameter, tensors[f"model.{name}"])


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    expected: dict[str, Tensor] = {}
    for steps in range(1, 6):
        settings = make_settings(steps=5, decay=0.0, checkpoint_minutes=EVERY_STEP)
        with pytest.raises(KilledError):
            train_toy(tmp_path / str(steps), settings.model_copy(update={"steps": 9}), stop=steps)
        tensors = load_file(tmp_path / str(steps) / CHECKPOINT)
        keep = min(0.9, (1 + steps) / (10 + steps))
        for name, start in make_module().named_parameters():
            before = expected.get(name, start.detach())
            expected[name] = keep * before + (1 - keep) * tensors[f"model.{name}"]
            assert torch.allclose(tensors[f"average.{name}"], expected[name], atol=1e-6)


def test_the_history_has_a_line_for_each_validation(tmp_path: Path) -> None:
    train_toy(tmp_path)
    entries = read_history(tmp_path)
    assert [entry["step"] for entry in entries] == [3, 6, 8]
    for entry in entries:
        assert entry.keys() == {"step", "seconds", "loss", "psnr"}
        assert all(math.isfinite(value) for value in entry.values())


def test_a_run_tells_its_figures_on_stderr_unless_it_is_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_toy(tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    train(Toy(), make_settings(), tmp_path / "loud")
    told = capsys.readouterr()
    assert told.out == ""
    assert "psnr=" in told.err


def test_only_what_requires_gradients_is_trained_and_kept(tmp_path: Path) -> None:
    module = make_module()
    frozen: Any = module[0]  # type: ignore[index]
    frozen.requires_grad_(False)
    before = fingerprint(frozen)
    task = train_toy(tmp_path, module=module)
    assert fingerprint(frozen) == before
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert not same_weights(task.module, make_module())
    names = {name.split(".", 1)[1] for name in load_file(tmp_path / CHECKPOINT) if name.startswith("model.")}
    assert names == {"2.weight", "2.bias"}


def test_workers_make_the_very_same_batches(tmp_path: Path) -> None:
    here = list(loop._batches(Toy(), make_settings(workers=0), 2, 0, 1))
    there = list(loop._batches(Toy(), make_settings(workers=1), 2, 0, 1))
    assert len(here) == len(there) == 6
    for first, second in zip(here, there, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(here[0][0], Toy().batch(2)[0])


def test_processes_share_the_batches_without_overlap() -> None:
    settings = make_settings(steps=3)
    ranks = [[batch[0] for batch in loop._batches(Toy(), settings, 1, rank, 2)] for rank in range(2)]
    for rank, batches in enumerate(ranks):
        assert len(batches) == 2
        for step, batch in enumerate(batches, start=1):
            assert torch.equal(batch, Toy().batch(2 * step + rank)[0])


# --- batches that serve several steps


@pytest.mark.parametrize("reuse", [1, 2, 4])
def test_a_batch_serves_as_many_steps_as_asked_mirrored_differently(tmp_path: Path, reuse: int) -> None:
    seen: list[Tensor] = []

    class Watched(Toy):
        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            seen.append(batch[0])
            return super().loss(batch)

    train(Watched(), make_settings(steps=8, reuse=reuse), tmp_path, quiet=True)
    for step, found in enumerate(seen):
        made = Toy().batch(step // reuse)[0]
        axes = {0: [], 1: [3], 2: [2], 3: [2, 3]}[step % reuse]
        assert torch.equal(found, made.flip(axes)), step
    assert len(seen) == 8


def test_a_run_that_reuses_batches_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    settings = make_settings(reuse=3, checkpoint_minutes=EVERY_STEP)
    whole = train_toy(tmp_path / "whole", settings)
    with pytest.raises(KilledError):
        train_toy(tmp_path / "cut", settings, stop=5)
    assert same_weights(train_toy(tmp_path / "cut", settings).module, whole.module)
