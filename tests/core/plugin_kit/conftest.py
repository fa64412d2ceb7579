"""The command line called in this process, in an empty folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.command import Abair

from abair.cli import app


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABAIR_DEBUG", raising=False)


@pytest.fixture
def abair(capsys: pytest.CaptureFixture[str]) -> Abair:
    """Call the command line; return the exit code and the lines on stdout and stderr."""

    def call(*arguments: str) -> SimpleNamespace:
        code = app.run(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return SimpleNamespace(code=code, out=said.out.splitlines(), err=said.err.splitlines())

    return call
