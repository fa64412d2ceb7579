"""The wheels and sdists: what is in them, and that they work without the checkout."""

import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from abair_registry.settings import Settings

pytestmark = [pytest.mark.xdist_group("wheels"), pytest.mark.exhaustive]

PLUGINS = ["bitdepth", "blur", "haze", "jpeg", "low-light", "noise", "rain", "snow"]
NAMES = ["abair", *(f"abair-{name}" for name in PLUGINS)]

# Third-party packages come from this environment; the checkout does not: under -S no .pth file is read.
LIBRARIES = Path(sysconfig.get_path("purelib"))

RUN_BY_ALEMBIC = "abair_migrations/env.py"
"""A program that Alembic runs, not a module."""

TEMPLATE = "abair/plugin_kit/template/"
"""What new plugins are made from, tests included."""

IMPORT_EVERYTHING = """
import importlib, json, pathlib
found = {}
for folder in map(pathlib.Path, FOLDERS):
    for file in sorted(folder.rglob("*.py")):
        if str(file.relative_to(folder)) == LEFT_OUT:
            continue
        parts = file.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = importlib.import_module(name).__file__
print(json.dumps(found))
"""

DISCOVER = """
import json
from abair.discovery import discover
plugins = discover()
print(json.dumps({"problems": [str(p) for p in plugins.problems],
                  "adapters": {d.name: str(d.adapters) for d in plugins.degradations}}))
"""

RESTORE = """
import numpy as np
from abair import Restorer
image = (np.indices((24, 32)).sum(0)[..., None] * np.array([1, 2, 3])).astype("uint8")
restored = Restorer.load()(image)
print(restored.image.dtype, restored.image.shape, round(sum(restored.weights.values()), 4))
"""

REGISTRY = """
import os
os.environ |= ENVIRONMENT
from abair_registry.cli.app import run
for command in (
    "db upgrade", "list --json", "db downgrade base --yes", "db current", "db upgrade 0001", "db upgrade", "db check"
):
    code = run(command.split())
    assert code == 0, (command, code)
"""


@pytest.fixture(scope="module")
def wheels(built: dict[str, Path]) -> dict[str, Path]:
    """The wheel of each distribution."""
    return {name: next(folder.glob("*.whl")) for name, folder in built.items()}


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders that were empty: one with the platform's wheel installed, one with the plugins' wheels."""
    platform, plugins = tmp_path_factory.mktemp("platform"), tmp_path_factory.mktemp("plugins")
    for target, chosen in (
        (platform, [wheels["abair"]]),
        (plugins, [wheel for name, wheel in wheels.items() if name != "abair"]),
    ):
        command = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(target)]
        subprocess.run([sys.executable, "-m", "pip", *command, *map(str, chosen)], check=True, timeout=120)
    return platform, plugins


def members(wheel: Path) -> list[str]:
    """The names of a wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def test_the_repository_holds_the_platform_and_eight_plugins(projects: dict[str, Any]) -> None:
    assert sorted(projects) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_holds_every_file_of_its_package_and_nothing_else(
    name: str, projects: dict[str, Any], wheels: dict[str, Path]
) -> None:
    packed = {member for member in members(wheels[name]) if ".dist-info/" not in member}
    assert packed == set(projects[name].package_files())


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_is_typed_licensed_and_free_of_tests(
    name: str, projects: dict[str, Any], wheels: dict[str, Path], root: Path
) -> None:
    names = members(wheels[name])
    for package in projects[name].packages:
        assert f"{package.name}/py.typed" in names
    own = [n for n in names if not n.startswith(TEMPLATE)]
    assert not [n for n in own if "tests" in Path(n).parts or Path(n).name.startswith(("test_", "conftest"))]
    with zipfile.ZipFile(wheels[name]) as archive:
        (licence,) = [n for n in names if n.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (root / "LICENSE").read_bytes()
        (metadata,) = [n for n in names if n.endswith(".dist-info/METADATA")]
        fields = Parser().parsestr(archive.read(metadata).decode())
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.11"
    assert str(fields.get_payload()).strip(), "the README is missing"


def test_the_platforms_wheel_holds_the_factory_deployment(wheels: dict[str, Path]) -> None:
    names = members(wheels["abair"])
    assert {"abair/weights/factory/deployment.json", "abair/weights/MODEL_CARD.md"} <= set(names)
    # backbone, estimator, replay, and an adapter for each of the eight
    assert len([n for n in names if n.startswith("abair/weights/factory/") and n.endswith(".safetensors")]) == 11


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_plugins_wheel_holds_its_adapter_and_how_it_was_made(
    name: str, projects: dict[str, Any], wheels: dict[str, Path]
) -> None:
    for backbone in ("nano", "nano-2"):
        folder = f"{projects[name].package.name}/adapters/{backbone}"
        files = {Path(n).name for n in members(wheels[name]) if n.startswith(f"{folder}/")}
        assert files >= {"adapter_config.json", "adapter_model.safetensors", "training.toml"}


@pytest.mark.parametrize("name", NAMES)
def test_an_sdist_holds_the_sources_and_no_images(name: str, projects: dict[str, Any], built: dict[str, Path]) -> None:
    (sdist,) = built[name].glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = [Path(member.name) for member in archive.getmembers() if member.isfile()]
    inside = {Path(*file.parts[1:]).as_posix() for file in files}
    project = projects[name]
    assert {path.as_posix() for path in project.package_files().values()} <= inside
    kinds = {file.suffix or file.name for file in files}
    allowed = {
        ".py",
        ".typed",
        ".toml",
        ".json",
        ".md",
        ".safetensors",
        ".mako",
        ".jinja",
        ".html",
        ".svg",
        ".css",
        ".js",
        "LICENSE",
        "PKG-INFO",
        ".gitignore",
        "py.typed",
    }
    assert kinds <= allowed


@pytest.mark.slow
def test_every_module_imports_from_the_installed_wheels_alone(
    projects: dict[str, Any], installed: tuple[Path, Path], run_python: Callable[..., str]
) -> None:
    given = f"FOLDERS = {[str(folder) for folder in installed]!r}\nLEFT_OUT = {RUN_BY_ALEMBIC!r}\n"
    program = given + IMPORT_EVERYTHING
    found = json.loads(run_python(program, [*installed, LIBRARIES]))
    expected = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for project in projects.values()
        for file in project.package_files()
        if file.endswith(".py") and file not in RUN_BY_ALEMBIC
    }
    assert set(found) == expected
    assert len(found) >= 30
    outside = {name: file for name, file in found.items() if not file.startswith(tuple(map(str, installed)))}
    assert not outside


def test_installed_plugins_are_found_with_their_adapters(
    installed: tuple[Path, Path], run_python: Callable[..., str]
) -> None:
    found = json.loads(run_python(DISCOVER, [*installed, LIBRARIES]))
    assert found["problems"] == []
    assert sorted(found["adapters"]) == PLUGINS
    assert all(Path(folder).is_relative_to(installed[1]) for folder in found["adapters"].values())
    assert all(Path(folder, "nano-2").is_dir() for folder in found["adapters"].values())


def test_the_platforms_wheel_alone_restores_an_image(
    installed: tuple[Path, Path], run_python: Callable[..., str]
) -> None:
    assert run_python(RESTORE, [installed[0], LIBRARIES]).split() == ["uint8", "(24,", "32,", "3)", "1.0"]


@pytest.mark.slow
def test_the_schema_goes_up_and_down_from_the_platforms_wheel_alone(
    installed: tuple[Path, Path], run_python: Callable[..., str], settings: Settings
) -> None:
    url = settings.registry_url
    environment = {"ABAIR_HOME": str(settings.home)} | ({"ABAIR_REGISTRY_URL": url.get_secret_value()} if url else {})
    said = run_python(f"ENVIRONMENT = {environment!r}\n{REGISTRY}", [installed[0], LIBRARIES]).splitlines()
    rows = [json.loads(line) for line in said if line.startswith("{")]
    assert [row["name"] for row in rows] == PLUGINS
    assert [line for line in said if not line.startswith("{")] == [
        "the schema's revision is 0002",
        "the schema's revision is none",
        "found none, this program's is 0002",
        "the schema's revision is 0001",
        "the schema's revision is 0002",
        "revision 0002, all tables as expected",
    ]
