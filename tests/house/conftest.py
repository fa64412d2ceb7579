"""What the tests about the repository share: the projects in it, and their wheels and sdists, built once."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Project:
    """A distribution of this repository: where it lies and what its pyproject.toml says."""

    folder: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the distribution, as `abair-noise`."""
        return str(self.config["project"]["name"])

    @property
    def packages(self) -> list[Path]:
        """The folders of the import packages."""
        listed = self.config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        return [self.folder / str(package) for package in listed]

    @property
    def package(self) -> Path:
        """The folder of the one import package, as `plugins/abair-noise/src/abair_noise`."""
        (package,) = self.packages
        return package

    def package_files(self) -> dict[str, Path]:
        """Every file of the packages: as the wheel should name it, and where it lies below the project's folder."""
        return {
            path.relative_to(package.parent).as_posix(): path.relative_to(self.folder)
            for package in self.packages
            for path in package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def projects() -> dict[str, Project]:
    """All distributions by name: the platform and its plugins."""
    files = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    found = [Project(file.parent, tomllib.loads(file.read_text(encoding="utf-8"))) for file in files]
    return {project.name: project for project in found}


@pytest.fixture(scope="session")
def plugins(projects: dict[str, Project]) -> list[Project]:
    """The plugins' distributions."""
    return [project for name, project in projects.items() if name != "abair"]


@pytest.fixture(scope="session")
def built(projects: dict[str, Project], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each distribution with its wheel and its sdist."""
    folder = tmp_path_factory.mktemp("built")
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder / name)],
            cwd=project.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, project in projects.items()
    }
    for name, process in running.items():
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, f"{name} cannot be built: {said}"
    return {name: folder / name for name in projects}


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """A function that runs a program in a fresh interpreter, with threads kept low, and returns what it prints.

    With `paths`, these and the standard library are all that can be imported: no environment, no `.pth` files.
    """

    def run(program: str, paths: list[Path] | None = None) -> str:
        flags = ["-I"]
        if paths is not None:
            flags.append("-S")
            program = f"import sys\nsys.path[:0] = {[str(path) for path in paths]!r}\n{program}"
        done = subprocess.run(
            [sys.executable, *flags, "-c", program],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
