"""Programs that are stopped: one line and an exit code, whenever the signal comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="sends signals as POSIX systems do"),
]

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
SCRIPTS = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["scripts"]
STOPPING = [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143), (signal.SIGHUP, "SIGHUP", 129)]
AT_WORK = "finished files are kept, unfinished ones were removed"

# A console script as pip writes it, which sends itself a signal, `times` times, when `event` comes for `name`.
PROGRAM = """
import atexit, os, sys
def send(event, arguments):
    global times
    if times and event == {event!r} and arguments and str(arguments[0]).endswith({name!r}):
        times -= 1
        os.kill(os.getpid(), {number})
times = {times}
sys.addaudithook(send)
if {event!r} == "exit":
    atexit.register(os.kill, os.getpid(), {number})
sys.argv[0] = {script!r}
from {module} import {function}
sys.exit({function}())
"""


def run_script(
    script: str, arguments: Sequence[str], number: int, event: str, name: str, times: int = 1
) -> subprocess.CompletedProcess[str]:
    module, _, function = SCRIPTS[script].partition(":")
    program = PROGRAM.format(
        event=event, name=name, times=times, number=int(number), script=script, module=module, function=function
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, timeout=120, check=False, preexec_fn=heed_signals,
    )  # fmt: skip


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.new("RGB", (40, 30), (90, 120, 60)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def heed_signals() -> None:
    """Whoever runs the tests in the background ignores Ctrl-C, and so would what they start."""
    for number, _, _ in STOPPING:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "how", "code"), STOPPING)
@pytest.mark.parametrize("script", ["abair", "abair-registry"])
def test_a_signal_while_a_program_loads_is_one_line(script: str, number: int, how: str, code: int) -> None:
    assert set(SCRIPTS) == {"abair", "abair-registry"}
    for module in (f"{script.replace('-', '_')}.cli.app", "pydantic"):
        done = run_script(script, ["--version"], number, "import", module)
        assert (done.returncode, done.stderr) == (code, f"{script}: stopped by {how}; nothing was begun\n"), module


@pytest.mark.parametrize(("number", "how", "code"), STOPPING)
def test_a_signal_while_a_command_loads_is_one_line(number: int, how: str, code: int) -> None:
    done = run_script("abair", ["plugin", "list"], number, "import", "abair.discovery")
    assert (done.returncode, done.stderr, done.stdout) == (code, f"abair: stopped by {how}; {AT_WORK}\n", "")


@pytest.mark.exhaustive
def test_torch_is_not_interrupted_while_it_loads_which_would_abort_the_process(photo: str) -> None:
    done = run_script("abair", ["estimate", photo], signal.SIGINT, "import", "torch.cuda")
    assert (done.returncode, done.stderr, done.stdout) == (130, f"abair: stopped by Ctrl-C; {AT_WORK}\n", "")


def test_a_signal_while_the_registry_loads_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path))
    done = run_script("abair-registry", ["list"], signal.SIGINT, "import", "sqlalchemy")
    assert (done.returncode, done.stderr) == (130, f"abair-registry: stopped by Ctrl-C; {AT_WORK}\n")


def test_ctrl_c_again_and_again_is_one_line(photo: str) -> None:
    done = run_script("abair", ["estimate", photo], signal.SIGINT, "open", "a.png", times=3)
    assert (done.returncode, done.stderr) == (130, f"abair: stopped by Ctrl-C; {AT_WORK}\n")


def test_a_signal_after_the_work_takes_nothing_back() -> None:
    done = run_script("abair", ["--version"], signal.SIGINT, "exit", "")
    assert (done.returncode, done.stderr, done.stdout.split()[0]) == (0, "", "abair")


def test_a_program_that_was_started_without_ctrl_c_goes_on() -> None:
    program = 'trap "" INT; "$0" -m abair --version & kill -INT $!; wait $!'
    done = subprocess.run(
        ["sh", "-c", program, sys.executable], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr, done.stdout.split()[0]) == (0, "", "abair")


@pytest.mark.parametrize("package", ["abair", "abair_registry"])
def test_the_module_is_the_program(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", package, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, package.replace("_", "-"))
