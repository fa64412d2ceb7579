"""`docs/tutorial/write-a-plugin.md` does what it says: its snippets are run in order.

The environment is made of wheels alone. So a package from outside the repository, installed
from its wheel beside the platform's, goes the whole way to live.
The network in the platform's wheel is exchanged for the tiny one, which is trained in seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import pictures
from tests.support.few_samples import FEW_SAMPLES

pytestmark = [
    pytest.mark.xdist_group("wheels"),
    pytest.mark.exhaustive,
    pytest.mark.rare,
    pytest.mark.skipif(os.name != "posix", reason="the tutorial is written for a POSIX shell"),
]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "write-a-plugin.md"
SNIPPET = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
OURS = re.compile(r"_*(editable_*)?_*(impl_)?abair", re.IGNORECASE)
"""What the checkout put among the libraries."""


@pytest.fixture(scope="module")
def stranger(built: dict[str, Path], bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of an environment with the platform's wheel, all libraries, and no trace of the checkout."""
    root = tmp_path_factory.mktemp("stranger")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True, timeout=60)
    paths = {"base": str(root / "venv"), "platbase": str(root / "venv")}
    site, programs = (Path(sysconfig.get_path(name, vars=paths)) for name in ("purelib", "scripts"))
    libraries = root / "libraries"
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not OURS.match(entry.name) and entry.suffix != ".pth":
            (libraries / entry.name).symlink_to(entry)
    (site / "libraries.pth").write_text(f"{libraries}\n")
    for name in ("pip", "pytest"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{programs / "python"}" -m {name} "$@"\n')
        (programs / name).chmod(0o755)
    clean = root / "clean"
    clean.mkdir()
    for place, picture in enumerate(pictures(range(20, 32)).photos):
        Image.fromarray(picture).save(clean / f"{place:02}.png")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ABAIR_", "MLFLOW", "PYT"))}
    environment = (
        inherited
        | FEW_SAMPLES
        | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(root),
            "ABAIR_HOME": str(root / "home"),
            "ABAIR_CLEAN_DIR": str(clean),
            "OMP_NUM_THREADS": "1",
            # what a build needs is among the libraries, and nothing shall be fetched
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
    )
    (wheel,) = built["abair"].glob("*.whl")
    subprocess.run([programs / "pip", "install", "--quiet", wheel], check=True, timeout=120, env=environment)
    factory = site / "abair" / "weights" / "factory"
    shutil.rmtree(factory)
    shutil.copytree(bundle, factory)
    return environment


def weights(folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """What the estimator gives to the photo that the tutorial made."""
    command = ["abair", "restore", "dive.png", "-o", "again.png", "--overwrite", "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return dict(told["weights"])


def test_every_snippet_runs_and_ends_as_the_page_says(stranger: dict[str, str], tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []
    weighed = {}
    for kind, snippet in SNIPPET.findall(PAGE.read_text(encoding="utf-8")):
        assert kind in ("sh", "sh fails"), kind
        if "rollback" in snippet:
            weighed = weights(tmp_path, stranger)
        done = subprocess.run(
            ["sh", "-euc", snippet], cwd=tmp_path, env=stranger, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == (kind == "sh fails"), f"{snippet}\n{done.stdout}\n{done.stderr}"
        said.append((snippet, done.stdout + done.stderr))

    def told(snippet: str) -> list[str]:
        return [answer for asked, answer in said if snippet in asked]

    refused, accepted = told("add underwater")
    assert "underwater: gain" in refused
    assert "live" in accepted
    assert "rejected" in told("abair-registry list")[0]
    assert "underwater" in told("abair-registry history")[0]
    assert max(weighed, key=lambda label: weighed[label]) == "underwater"
    assert "underwater" not in weights(tmp_path, stranger)
    for picture in ("underwater.png", "mended.png"):
        assert np.asarray(Image.open(tmp_path / picture)).std() > 1
