"""`abair train --processes`: several processes train one network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from abair.model.backbone import load_backbone

pytestmark = pytest.mark.exhaustive

BACKBONE = ("train", "backbone", "--size", "tiny", "--labels", "noise", "--steps", "2", "--batch", "1", "--crop", "32")


def _abair(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    command = [sys.executable, "-m", "abair", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


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


def test_ctrl_c_ends_all_of_them_in_one_line(photos: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "abair",
        *BACKBONE,
        "--processes",
        "2",
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "out"),
    ]
    command[command.index("--steps") + 1] = "1000000"
    settings = tmp_path / "settings.toml"
    settings.write_text("[settings]\nvalidate_every = 5\n")
    process = subprocess.Popen(
        [*command, "--settings", str(settings)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith("step=5 ")
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        rest = [line for line in process.communicate(timeout=60)[1].splitlines() if not line.startswith("step=")]
    finally:
        process.kill()
    assert rest == ["abair: stopped by Ctrl-C; finished files are kept, unfinished ones were removed"]
    assert process.returncode == 130


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
