"""Files that are damaged at random: read or refused in one line, and what is read is written whole.

benchmarks/mutated_files.py tries ten thousand, in processes with limits; this is a sample of them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

SEED = 1
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def mutated() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("mutated_files")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_mutated_files_are_read_or_refused(
    mutated: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files, out, found = mutated.sources(), tmp_path / "out", list[str]()
    out.mkdir()
    for index in range(300):
        name, data = mutated.make(index, SEED, files)
        (tmp_path / name).write_bytes(data)
        found.append(mutated.judge(tmp_path / name, out))
        assert not found[-1].startswith("wrong"), (name, found[-1])
    assert found.count("refused") > 100
    assert found.count("read") > 50
    assert capfd.readouterr().err == ""
