"""A resumed run ends as an uninterrupted one; another run's checkpoint is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.support.toy_task import EVERY_STEP, KilledError, Toy, make_module, make_settings, same_weights, train_toy
from torch import Tensor, nn

from abair.errors import TrainingError
from abair.training.checkpoint import CHECKPOINT
from abair.training.loop import train
from abair.training.report import HISTORY, read_history
from abair.training.settings import RENAMED


def test_the_same_settings_give_the_same_weights(tmp_path: Path) -> None:
    first, second = train_toy(tmp_path / "a"), train_toy(tmp_path / "b")
    assert same_weights(first.module, second.module)
    assert not same_weights(first.module, make_module())


@pytest.mark.parametrize("stop", [0, 1, 4, 7])
def test_resumed_after_a_kill_it_ends_exactly_where_an_uninterrupted_run_does(tmp_path: Path, stop: int) -> None:
    settings = make_settings(checkpoint_minutes=EVERY_STEP)
    whole = train_toy(tmp_path / "whole", settings)
    with pytest.raises(KilledError):
        train_toy(tmp_path / "killed", settings, stop=stop)
    resumed = train_toy(tmp_path / "killed", settings)
    assert resumed.calls == 8 - stop
    assert same_weights(resumed.module, whole.module)
    checkpoints = [load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "killed")]
    assert checkpoints[0].keys() == checkpoints[1].keys()
    assert all(torch.equal(tensor, checkpoints[1][name]) for name, tensor in checkpoints[0].items())
    for whole_entry, entry in zip(read_history(tmp_path / "whole"), read_history(tmp_path / "killed"), strict=True):
        assert (entry["step"], entry["psnr"]) == (whole_entry["step"], whole_entry["psnr"])


def test_steps_after_the_last_checkpoint_are_done_again_and_written_once(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train_toy(tmp_path, stop=7)  # its only checkpoint would have come at the end
    assert [entry["step"] for entry in read_history(tmp_path)] == [3, 6]
    assert train_toy(tmp_path).calls == 8
    assert [entry["step"] for entry in read_history(tmp_path)] == [3, 6, 8]


def test_a_history_cut_by_a_kill_does_not_stop_the_run(tmp_path: Path) -> None:
    train_toy(tmp_path)
    with (tmp_path / HISTORY).open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "lo')
    train_toy(tmp_path)
    assert [entry["step"] for entry in read_history(tmp_path)] == [3, 6, 8]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train_toy(tmp_path)
    again = train_toy(tmp_path)
    assert again.calls == 0
    assert same_weights(first.module, again.module)


def test_a_kill_while_the_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(checkpoint_minutes=EVERY_STEP)
    whole = train_toy(tmp_path / "whole", settings)
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
        train_toy(tmp_path / "killed", settings)
    resumed = train_toy(tmp_path / "killed", settings)
    assert resumed.calls == 5
    assert same_weights(resumed.module, whole.module)


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
    train_toy(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match=message):
        train_toy(tmp_path, make_settings(**changes), **options)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_the_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    train_toy(tmp_path)
    wide = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 3, 3, padding=1))
    with pytest.raises(TrainingError, match="found a checkpoint of another run"):
        train_toy(tmp_path, module=wide)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train_toy(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-10])
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: damaged"):
        train_toy(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path: Path) -> None:
    settings = make_settings(checkpoint_minutes=EVERY_STEP)
    task = Toy(poison=4)
    with pytest.raises(TrainingError, match="step 4: the loss is nan; expected a finite number; lower learning_rate"):
        train(task, settings, tmp_path, quiet=True)
    assert all(bool(parameter.isfinite().all()) for parameter in task.module.parameters())
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        assert json.loads(file.metadata()["abair.checkpoint"])["step"] == 4


def test_weights_that_a_last_step_spoiled_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 1: the weights are not finite in 16 bits; expected numbers; lower"):
        train_toy(tmp_path, make_settings(steps=1, learning_rate=1e30, warmup=0))
    assert not (tmp_path / CHECKPOINT).exists()


# --- checkpoints of earlier builds


def _rewrite(folder: Path, **changes: str) -> None:
    """Write the identity that an earlier build wrote: old names, settings of all phases."""
    with safe_open(folder / CHECKPOINT, "pt") as file:
        facts = json.loads(file.metadata()["abair.checkpoint"])
    old_names = {new: old for old, new in RENAMED.items()}
    identity = {old_names.get(key, key): value for key, value in facts["of"].items()}
    assert {"averaging", "clip", "emphasis"} <= set(identity)
    identity |= {"rank": "8", "scene": "512", "beside": "('rain',)"} | changes  # phase I took and ignored them
    metadata = {"abair.checkpoint": json.dumps(facts | {"of": identity})}
    save_file(load_file(folder / CHECKPOINT), folder / CHECKPOINT, metadata=metadata)


def test_a_run_of_an_earlier_build_goes_on(tmp_path: Path) -> None:
    settings = make_settings(checkpoint_minutes=EVERY_STEP)
    whole = train_toy(tmp_path / "whole", settings)
    with pytest.raises(KilledError):
        train_toy(tmp_path / "cut", settings, stop=5)
    _rewrite(tmp_path / "cut")
    resumed = train_toy(tmp_path / "cut", settings)
    assert resumed.calls == 3
    assert same_weights(resumed.module, whole.module)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"averaging": "0.5"}, r"ema_decay: found 0\.5, expected 0\.9"),
        ({"clip": "2.0"}, r"grad_clip: found 2\.0, expected 1\.0"),
        ({"emphasis": "{'blur': 2.0}"}, r"sampling_weights: found \{'blur': 2\.0\}, expected \{\}"),
    ],
)
def test_another_run_of_an_earlier_build_is_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    train_toy(tmp_path)
    _rewrite(tmp_path, **changes)
    with pytest.raises(TrainingError, match=message):
        train_toy(tmp_path)
