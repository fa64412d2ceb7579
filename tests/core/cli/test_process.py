"""The command line as a process of its own, with a stdout that is gone, full or closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.core.cli.conftest import photo

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import time
from unittest import mock
from abair.__main__ import main
from abair.cli import loading
class Fake:
    def judge(self, pixels):
        if pixels.shape[0] > 50:  # a large photo takes its time
            print("begun", file=sys.stderr, flush=True)
            time.sleep(60)
        return {"noise": 1.0}, 1.0, None

assert "torch" not in sys.modules
sys.argv[0] = "abair"
with mock.patch.object(loading, "load_restorer", lambda *_: Fake()):
    main()
"""


def _process(*arguments: str, folder: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    import abair

    environment = os.environ | {"PYTHONPATH": str(Path(abair.__file__).parents[1])}
    environment |= {"TMPDIR": str(folder)} if folder else {}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env=environment, **options)


def test_a_reader_that_goes_away_ends_it_without_a_word() -> None:
    photo("a.png")
    reading, writing = os.pipe()
    os.close(reading)
    with _process("estimate", "a.png", "--json", stdout=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 141
    assert said == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_stdout_is_one_line() -> None:
    photo("a.png")
    with Path("/dev/full").open("w") as full, _process("estimate", "a.png", "--json", stdout=full) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(said.splitlines()) == 1
    assert said.startswith("abair: ")


@pytest.mark.skipif(os.name != "posix", reason="closes a file descriptor in the child, which POSIX systems can")
def test_a_closed_stdout_costs_no_traceback() -> None:
    photo("a.png")
    with _process("estimate", "a.png", "--json", preexec_fn=lambda: os.close(1)) as process:
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as POSIX systems do")
def test_a_termination_ends_it_in_order(tmp_path: Path) -> None:
    photo("a.png", size=(60, 60))
    kept = tmp_path / "kept"
    kept.mkdir()
    with _process("estimate", "-", stdin=Path("a.png").open("rb"), folder=kept) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"
        assert list(kept.iterdir())
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said == "abair: stopped by SIGTERM; finished files are kept, unfinished ones were removed\n"
    assert not list(kept.iterdir())
