"""A real MLflow server: its page opens on the registry's store, operations are told to it, and it may die."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.registry.conftest import Run

from abair.deployment import read_deployment
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def server(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[str]]:
    """`abair-registry ui`, when it says where the runs are."""
    command = [sys.executable, "-m", "abair_registry", "ui", "--no-browser", "--port", str(port)]
    # a shell's background jobs ignore Ctrl-C, and so would what they start
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    assert "the runs are at http://127.0.0.1" in process.stderr.readline()
    yield process
    process.send_signal(signal.SIGINT)
    process.wait(30)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_command_that_a_script_started_in_the_background(
    number: int, environment: dict[str, str], port: int
) -> None:
    script = f'"$0" -m abair_registry ui --no-browser --port {port} & echo $!; wait $!'
    with subprocess.Popen(
        ["sh", "-c", script, sys.executable], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        assert shell.stderr is not None
        command = psutil.Process(int(shell.stdout.readline()))
        assert "the runs are at http://127.0.0.1" in shell.stderr.readline()
        left = [command, *command.children(recursive=True)]
        assert len(left) >= 3  # its guardian and the server
        command.send_signal(number)
        assert ended(left)
        _, said = shell.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert shell.returncode == 128 + number
    else:
        assert (shell.returncode, said) == (0, "")


@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_the_page_opens_operations_are_told_to_it_and_nothing_is_left_behind(
    server: subprocess.Popen[str], port: int, run: Run, team: Path, settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert (answer.status, b"MLflow" in answer.read()) == (200, True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    code, (told,), err = run("add", "frost")
    assert (code, told["outcome"]) == (0, "live"), err
    there = Runs(settings.model_copy(update={"tracking_uri": url}))
    assert there.exists(told["run_id"])
    assert [version.tags["abair.deployment"] for version in there.versions()] == ["2"]

    left = descendants(server)
    assert left
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0
    assert ended(left)

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, (told,), err = run("disable", "rain", "--yes")
    assert (code, told["run_id"], err.count("warning: MLflow at")) == (0, None, 1), err
    assert read_deployment(settings.home).name == "3"
    code, (told,), err = run("rollback")
    assert (code, told["deployment"], "what is live is live" in err) == (0, 2, True)
