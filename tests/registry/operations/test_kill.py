"""SIGKILL at random moments: what serves stays whole, and the next `add` succeeds. `make bench` kills 250 times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.kill import NEW_HOME

SCRIPT = Path(__file__).parents[2] / "support" / "kill.py"
TIMES = {"sqlite": int(os.environ.get("ABAIR_KILLS", "3")), "postgresql": int(os.environ.get("ABAIR_KILLS", "4")) // 4}


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills what it forks, which POSIX systems can")
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_kill_at_any_moment_costs_nothing_that_was_live(
    kind: str, team: Path, bundle: Path, clean_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    times = TIMES[kind]
    urls = []
    if kind == "postgresql":  # a home that is a new one has a database that is
        urls = [request.getfixturevalue("new_database")() for _ in range(0, times, NEW_HOME)]
    command = [sys.executable, str(SCRIPT), str(times), str(bundle), str(tmp_path / "homes"), *urls]
    path = os.pathsep.join(map(str, [team, *filter(None, sys.path)]))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ABAIR_REG", "MLFLOW"))}
    done = subprocess.run(
        command,
        env=environment | {"PYTHONPATH": path, "ABAIR_CLEAN_DIR": str(clean_dir)},
        capture_output=True,
        text=True,
        timeout=60 + 60 * times,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= times // 3, done.stderr
