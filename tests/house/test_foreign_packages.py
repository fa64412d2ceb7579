"""Installing a package runs none of its code where photos are restored, and a damaged one ends no program of ours.

A trap is installed in every group that ABAIR and its libraries load entry points from, next to distributions whose
metadata are damaged. Each program runs in a process of its own, because a group is read once a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tests.support.foreign_package import GROUPS, what_ran, write_damaged, write_info, write_trap

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder before all others on the path, with the trap and the damaged distributions."""
    folder = tmp_path / "site"
    write_trap(folder)
    return folder


@pytest.fixture
def program(site: Path, tmp_path: Path) -> Program:
    """Calls Python with these arguments; variables of the libraries are as on a user's machine unless given."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        ours = ("PYDANTIC_", "TORCH_DEVICE", "SKIMAGE_", "MLFLOW_", "OTEL_", "ABAIR_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            env={**kept, "PYTHONPATH": path, "ABAIR_HOME": str(tmp_path / "home"), **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    Image.new("RGB", (64, 48), (90, 120, 60)).save(tmp_path / "photo.png")
    return call


LIBRARY = """
import abair
print(len([getattr(abair, name) for name in abair.__all__]))
import abair.report
"""
PROGRAMS = {
    "help": ("-m", "abair", "--help"),
    "restore": ("-m", "abair", "restore", "photo.png", "-o", "restored.png"),
    "estimate": ("-m", "abair", "estimate", "photo.png", "--json"),
    "registry's help": ("-m", "abair_registry", "--help"),
    "registry's list": ("-m", "abair_registry", "list", "--json"),
    "registry's doctor": ("-m", "abair_registry", "doctor", "--dry-run"),
    "library": ("-c", LIBRARY),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_program_loads_an_entry_point_of_a_foreign_package(
    program: Program, site: Path, tmp_path: Path, name: str
) -> None:
    assert len(GROUPS) == 27
    write_damaged(site)
    done = program(*PROGRAMS[name])
    assert done.returncode == 0, done.stderr
    assert done.stdout or (tmp_path / "restored.png").is_file()
    assert what_ran(site) == []


@pytest.mark.slow
def test_list_and_doctor_name_each_damaged_distribution_in_one_line(program: Program, site: Path) -> None:
    told = write_damaged(site)
    listed = program("-m", "abair_registry", "list").stderr.splitlines()
    warnings = [line.removeprefix("abair-registry: warning: ") for line in listed if "warning: distribution" in line]
    examined = program("-m", "abair_registry", "doctor", "--dry-run").stdout.splitlines()
    notes = [line.removeprefix("note: ") for line in examined if line.startswith("note: distribution")]
    assert warnings == notes
    assert len(warnings) == len(told) == 4
    for name, reason in told.items():
        (line,) = (line for line in warnings if line.startswith(f"distribution {name}: "))
        assert reason in line
        assert line.endswith("so no plugin of it is used; install it again")


@pytest.mark.slow
def test_a_users_own_setting_turns_a_librarys_plugins_on(program: Program, site: Path) -> None:
    program("-m", "abair", "--help", PYDANTIC_DISABLE_PLUGINS="none")
    assert what_ran(site) == ["pydantic"]
    program("-m", "abair", "estimate", "photo.png", TORCH_DEVICE_BACKEND_AUTOLOAD="1")
    assert what_ran(site) == ["pydantic", "torch.backends"]


FETCH = """
import abair
try:
    abair.Restorer.load("models:/abair@champion")
except abair.AbairError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("allowed", ["", "abair-noise, Trap"])
def test_models_are_fetched_without_plugins_of_mlflow_unless_they_are_named(
    program: Program, site: Path, allowed: str
) -> None:
    server = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = program("-c", FETCH, ABAIR_LIBRARY_PLUGINS=allowed, **server)
    ran = what_ran(site)
    if allowed:
        assert "mlflow.tracking_store" in ran
        assert not [group for group in ran if group.startswith("abair")]
    else:
        assert ran == []
        assert done.stdout.startswith("MLflow at http://127.0.0.1:9: "), done.stderr


HOST = """
import importlib.metadata, os
before, real = dict(os.environ), importlib.metadata.entry_points
import abair
abair.Restorer
assert (dict(os.environ), importlib.metadata.entry_points) == (before, real)
with abair.foreign_points.foreign_kept_out():
    kept = importlib.metadata.entry_points  # as a module does that is imported meanwhile
assert "trap" in {point.name for point in kept(group="fsspec.specs")}
from pydantic import BaseModel
class Own(BaseModel): pass
"""


@pytest.mark.slow
def test_a_program_that_imports_abair_decides_on_its_own_libraries(program: Program, site: Path) -> None:
    assert program("-c", "import abair; abair.Restorer").stderr == ""
    assert what_ran(site) == []
    assert program("-c", HOST).stderr == ""
    assert what_ran(site) == ["pydantic"]


def test_what_an_interrupted_pip_left_behind_is_no_plugin(program: Program, site: Path) -> None:
    write_damaged(site)
    write_info(site, "~b_frost-1.0.dist-info", "ab-frost", b"[abair]\nfrost = trap_0\n")
    listing = (
        "import abair; abair.GROUP; from abair.discovery import installed_points; "
        "print(*(point.name for point in installed_points([])))"
    )
    names = program("-c", listing).stdout.split()
    assert "trap" in names
    assert not {"frost", "interrupted", "nameless"} & set(names)
