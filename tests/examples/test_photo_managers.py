"""The commands that digiKam and darktable run, as the how-to has them and as those programs would."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "photo-managers.md"
DIGIKAM, DARKTABLE, _ = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "two words.png"
    Image.fromarray(np.random.default_rng(0).integers(60, 200, (48, 64, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def program(tmp_path: Path, bundle: Path) -> str:
    """A stand-in for the path of `abair`: the same program, with the tests' deployment."""
    script = tmp_path / "abair"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m abair "$@" --deployment {bundle}\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs /bin/sh")
def test_the_script_for_digikam_writes_its_output(tmp_path: Path, photo: Path, program: str) -> None:
    output = tmp_path / "out put.png"
    output.touch()  # digiKam may have reserved the name
    script = DIGIKAM.replace("/path/to/venv/bin/abair", program)
    script = script.replace("$INPUT", f'"{photo}"').replace("$OUTPUT", f'"{output}"')
    subprocess.run(["/bin/sh", "-c", script], check=True)
    assert Image.open(output).size == (64, 48)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs /bin/sh")
def test_the_script_for_darktable_changes_the_file_in_place(tmp_path: Path, photo: Path, program: str) -> None:
    before = photo.read_bytes()
    script = tmp_path / "abair-in-place"
    script.write_text(DARKTABLE.replace("/path/to/venv/bin/abair", program))
    script.chmod(0o755)
    subprocess.run([str(script), str(photo)], check=True)
    assert Image.open(photo).size == (64, 48)
    assert photo.read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abair", "abair-in-place", "two words.png"]
