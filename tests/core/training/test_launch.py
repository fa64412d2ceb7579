"""`abair train --processes`: several processes train one network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from abair.model.backbone import load_backbone

pytestmark = pytest.mark.exhaustive

BACKBONE = ("train", "backbone", "--size", "tiny", "--labels", "noise", "--steps", "2", "--batch", "1", "--crop", "32")


def _abair(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    command = [sys.executable, "-m", "abair", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.mark.rare
@pytest.mark.exhaustive
def test_two_processes_train_one_network(photos: Path, tmp_path: Path) -> None:
    done = _abair(*BACKBONE, "--processes", "2", "--data", str(photos), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["step=2"]
    assert load_backbone(tmp_path / "out" / "backbone.safetensors").size.name == "tiny"


def test_what_is_wrong_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = _abair(*BACKBONE, "--processes", "2", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr == f"abair: {tmp_path / 'none'}: no such folder; expected a folder with clean photos\n"
    assert not (tmp_path / "out").exists()


@contextmanager
def training(photos: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Two processes in the midst of a training without an end, in a group of their own."""
    settings = folder / "settings.toml"
    settings.write_text("[settings]\nvalidate_every = 5\nworkers = 1\n")
    command = [sys.executable, "-m", "abair", *BACKBONE, "--processes", "2", "--data", str(photos)]
    command += ["--out", str(folder / "out"), "--settings", str(settings)]
    command[command.index("--steps") + 1] = "1000000"
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith("step=5 ")
        yield process
    finally:
        process.kill()


def ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize(("number", "how", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_a_signal_ends_all_of_them_in_one_line(photos: Path, tmp_path: Path, number: int, how: str, code: int) -> None:
    with training(photos, tmp_path) as process:
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 4  # two that train, each with one that makes samples
        os.killpg(process.pid, number)
        rest = [line for line in process.communicate(timeout=60)[1].splitlines() if not line.startswith("step=")]
    assert rest == [f"abair: stopped by {how}; finished files are kept, unfinished ones were removed"]
    assert process.returncode == code
    assert ended(started)


@pytest.mark.rare
@pytest.mark.exhaustive
def test_all_of_them_end_with_a_launcher_that_was_killed(photos: Path, tmp_path: Path) -> None:
    with training(photos, tmp_path) as process:
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert ended(started)


def test_one_that_was_killed_is_named_in_one_line_and_ends_the_others(photos: Path, tmp_path: Path) -> None:
    with training(photos, tmp_path) as process:
        started = psutil.Process(process.pid).children(recursive=True)
        second = next(one for one in started if one.environ().get("RANK") == "1" and one.ppid() == process.pid)
        second.kill()
        rest = [line for line in process.communicate(timeout=60)[1].splitlines() if not line.startswith("step=")]
    assert len(rest) == 1
    assert rest[0].startswith("abair: training process 1 of 2: was ended by SIGKILL; expected it to go on")
    assert process.returncode == 1
    assert ended(started)


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: install g++")
def test_a_compiled_network_learns_what_another_one_does(photos: Path, tmp_path: Path) -> None:
    done = [
        _abair(*BACKBONE, "--precision", "float32", "--data", str(photos), "--out", str(tmp_path / name), *options)
        for name, options in (("plain", ()), ("compiled", ("--compile",)))
    ]
    assert [one.returncode for one in done] == [0, 0], done[1].stderr
    plain, compiled = (load_backbone(tmp_path / name / "backbone.safetensors") for name in ("plain", "compiled"))
    for (name, one), other in zip(plain.state_dict().items(), compiled.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=2e-3), name
