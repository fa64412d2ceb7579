"""`abair train --processes`: several processes train one network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from abair.model.backbone import load_backbone

pytestmark = pytest.mark.exhaustive

BACKBONE = ("train", "backbone", "--size", "tiny", "--labels", "noise", "--steps", "2", "--batch", "1", "--crop", "32")


def _abair(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    command = [sys.executable, "-m", "abair", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    done = _abair(*BACKBONE, "--processes", "2", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["step=2"]
    assert load_backbone(tmp_path / "out" / "backbone.safetensors").size.name == "tiny"


def test_what_is_wrong_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = _abair(*BACKBONE, "--processes", "2", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr == f"abair: {tmp_path / 'none'}: no such folder; expected a folder with clean photos\n"
    assert not (tmp_path / "out").exists()
