"""Samples of the campaigns in benchmarks/campaigns/, which kill, crowd, damage and deceive a registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.exhaustive, pytest.mark.rare]

REPOSITORY = Path(__file__).parents[2]
CAMPAIGNS = REPOSITORY / "benchmarks" / "campaigns"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what all campaigns are made of; the first one fills it."""
    return tmp_path_factory.mktemp("parts")


def campaign(name: str, parts: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CAMPAIGNS / name), "--parts", str(parts), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="adopts the processes that are left, which Linux lets it")
@pytest.mark.parametrize("server", [(), ("--postgresql",)], ids=["sqlite", "postgresql"])
def test_kills_leave_what_was_live_or_what_follows_and_no_process(parts: Path, server: tuple[str, ...]) -> None:
    done = campaign("kills.py", parts, "--count", "3", "--seed", "3", *server)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("3 of 3 right"), done.stdout


def test_a_crowd_gets_the_answers_that_each_of_them_would_get_alone(parts: Path) -> None:
    done = campaign("crowd.py", parts, "--processes", "3", "--operations", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("24 of 24 commands answered"), done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="adopts the processes that are left, which Linux lets it")
def test_hostile_packages_reach_neither_what_serves_nor_terminal_nor_page(parts: Path) -> None:
    done = campaign("hostile.py", parts, "--only", "metadata: a", "--count", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("5 of 5 right"), done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX's")
def test_a_damaged_home_is_told_and_mended_by_what_is_advised(parts: Path) -> None:
    done = campaign("damage.py", parts, "--only", "live blob: estimator", "--count", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 of 2 right"), done.stdout


def test_operations_do_their_work_while_mlflow_is_in_trouble(parts: Path) -> None:
    done = campaign("mlflow_away.py", parts, "--only", ", promote", "--count", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 of 2 right"), done.stdout
