"""The strangers of `damage/`: their synthesisers, and how a command is told which to measure."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

DAMAGE: Final = Path(__file__).parent / "damage"


def load(name: str) -> Synthesizer:
    """Return the synthesiser of a stranger."""
    spec = importlib.util.spec_from_file_location(name, DAMAGE / f"{name}.py")
    if spec is None or spec.loader is None:
        sys.exit(f"{name}: found no file {DAMAGE / name}.py; expected one of the strangers there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.degrade  # type: ignore[no-any-return]


def read_arguments(description: str) -> tuple[Path | None, list[str], int]:
    """Read a command's clean photos, strangers, all by default, and held-out scenes of each."""
    everyone = sorted(path.stem for path in DAMAGE.glob("*.py"))
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", help=f"strangers; by default all: {', '.join(everyone)}")
    parser.add_argument("--clean", type=Path, help="folder of clean photos; without it, those of scikit-image")
    parser.add_argument("--scenes", type=int, default=60, help="held-out scenes of each stranger")
    given = parser.parse_args()
    if strangers := [name for name in given.names if name not in everyone]:
        sys.exit(f"{strangers[0]}: no such stranger; expected one of {', '.join(everyone)}")
    return given.clean, given.names or everyone, given.scenes
