"""This build against another one: the same photos in turn, each in a process of its own.

The other build is a checkout or an environment. Both restore with the same weights. They take turns
(A B A B), and medians are compared, so whatever else the machine does slows both alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field

from abair.errors import DeploymentError
from abair.evaluation import build_probe
from abair.inference.memory import KEPT
from abair.text import describe_fields, markdown_table, quote_foreign

PACKAGE: Final = Path(__file__).parents[1]
LONGEST_SECONDS: Final = 3600
"""Time after which a measurement is given up."""
_KEEP_FREED_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(KEPT), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
"""What `abair` sets for its own process, here for every build alike; see `set_up_memory`."""


class Build(NamedTuple):
    """A build of ABAIR: a Python, and the folder of its package; None is the installed one."""

    python: str
    source: Path | None


class Seconds(BaseModel):
    """Seconds that passed, and those of CPU time, of all threads together."""

    model_config = ConfigDict(frozen=True)

    wall: float
    cpu: float


class Measurement(BaseModel):
    """What one process said: seconds to start and to restore, and its largest memory in bytes.

    `mean` of the result's values shows whether both builds did the same work.
    """

    model_config = ConfigDict(frozen=True)

    start: Seconds
    restore: Seconds
    peak_bytes: int
    mean: float
    abair: str
    torch: str


class Comparison(BaseModel):
    """One size and number of threads: the rounds of both builds."""

    model_config = ConfigDict(frozen=True)

    megapixels: float
    threads: int
    this: tuple[Measurement, ...]
    other: tuple[Measurement, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ratios(self) -> dict[str, float]:
        """This build's median of each figure as a multiple of the other's."""
        return {name: self._median(name, self.this) / self._median(name, self.other) for name in _FIGURES}

    def medians(self, name: str) -> tuple[float, float]:
        """Return the medians of a figure: this build's and the other's."""
        return self._median(name, self.this), self._median(name, self.other)

    @staticmethod
    def _median(name: str, rounds: Sequence[Measurement]) -> float:
        return median(_FIGURES[name](measurement) for measurement in rounds)


_FIGURES: Final[dict[str, Callable[[Measurement], float]]] = {
    "restore, s": lambda measurement: measurement.restore.wall,
    "restore, CPU s": lambda measurement: measurement.restore.cpu,
    "start, CPU s": lambda measurement: measurement.start.cpu,
    "peak memory, MB": lambda measurement: measurement.peak_bytes / 1e6,
}


class BuildReport(BaseModel):
    """All comparisons of one run; `precision` is this build's, the other computes in float32."""

    model_config = ConfigDict(frozen=True)

    against: str
    deployment: str
    precision: str
    rounds: int
    comparisons: tuple[Comparison, ...]

    def markdown(self) -> str:
        """Return medians and ratios as a table, with the conditions below it."""
        rows = []
        for comparison in self.comparisons:
            for name, ratio in comparison.ratios.items():
                this, other = comparison.medians(name)
                size = f"{comparison.megapixels:g}"
                rows.append([size, str(comparison.threads), name, f"{this:.2f}", f"{other:.2f}", f"{ratio:.2f}"])
        columns = ["megapixels", "threads", "figure", "this build", "other build", "ratio"]
        conditions = [
            f"- against {self.against}, both with the weights of {self.deployment}",
            f"- this build in {self.precision}, the other one in float32",
            f"- medians of {self.rounds} rounds, one process each, both builds in turn",
        ]
        return "\n".join([markdown_table(columns, rows, left=(2,)), "", *conditions]) + "\n"


def find_build(path: Path) -> Build:
    """Return the build that a path names: a checkout, an environment's folder, or its python.

    Raises:
        DeploymentError: none of these lies there.
    """
    if (path / "core" / "abair").is_dir():
        return Build(sys.executable, path / "core")
    candidates = (path, path / "bin" / "python", path / "Scripts" / "python.exe")
    for python in candidates:
        if python.is_file() and os.access(python, os.X_OK):
            return Build(str(python.absolute()), None)
    raise DeploymentError(
        f"--against {path}: found no build of ABAIR; expected a checkout, which has core/abair, or an environment or "
        "its python"
    )


def compare_builds(
    against: Path,
    deployment: Path,
    *,
    megapixels: Sequence[float],
    threads: Sequence[int],
    rounds: int,
    precision: str = "float32",
    progress: Callable[[int, int, str], None] | None = None,
    package: Path = PACKAGE,
) -> BuildReport:
    """Measure both builds in turn for every size and number of threads.

    Args:
        against: the other build, see `find_build`.
        deployment: the bundle's folder, which both builds load.
        megapixels: sizes of the photos.
        threads: numbers of torch's threads.
        rounds: measurements of each build.
        precision: of this build; the other one computes in float32.
        progress: is called with measurements made, measurements in all, and what was measured.
        package: this build's folder `abair`.

    Raises:
        DeploymentError: there is no build, or one of them cannot restore with these weights.
    """
    this, other = Build(sys.executable, package.parent), find_build(against)
    comparisons: list[Comparison] = []
    done, total = 0, 2 * rounds * len(megapixels) * len(threads)
    for count in threads:
        for size in megapixels:
            measured: tuple[list[Measurement], list[Measurement]] = ([], [])
            for _ in range(rounds):
                for build, used, kept in zip((this, other), (precision, "float32"), measured, strict=True):
                    kept.append(measure_build(build, deployment, size, count, used))
                    done += 1
                    if progress:
                        progress(done, total, f"{size:g} MP, {count} threads")
            comparisons.append(
                Comparison(megapixels=size, threads=count, this=tuple(measured[0]), other=tuple(measured[1]))
            )
    return BuildReport(
        against=str(against),
        deployment=deployment.name,
        precision=precision,
        rounds=rounds,
        comparisons=tuple(comparisons),
    )


def measure_build(build: Build, deployment: Path, megapixels: float, threads: int, precision: str) -> Measurement:
    """Measure a build once, in a process of its own.

    Raises:
        DeploymentError: the process failed, took too long, or measured another build.
    """
    command = [build.python, "-P", build_probe.__file__, str(deployment), str(megapixels), str(threads), precision]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or build.source}
    environment |= _KEEP_FREED_MEMORY
    if build.source is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(build.source), *sys.path])
    where = build.source or build.python
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=LONGEST_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(f"{where}: the build cannot be measured ({quote_foreign(str(error))})") from None
    try:
        found: Any = json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else None
        measurement = Measurement.model_validate(found)
    except (ValueError, IndexError) as error:
        said = run.stderr.strip() or (describe_fields(error) if isinstance(error, ValidationError) else str(error))
        raise DeploymentError(
            f"{where}: this build cannot restore with {deployment} ({quote_foreign(said.splitlines()[-1])}); choose "
            "weights that both builds read, with --deployment"
        ) from None
    if build.source is not None and not Path(measurement.abair).resolve().is_relative_to(build.source.resolve()):
        raise DeploymentError(
            f"{where}: found {measurement.abair} measured instead; expected the package of this build"
        )
    return measurement
