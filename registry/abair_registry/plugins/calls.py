"""What plugins say of a challenger, hear of a deployment and make for it: each time in a process of their own.

Only a plugin that is installed as it is recorded runs: its name, distribution and version must be those that were
admitted. Another distribution that took the name, or a version that was never added, is left out and told.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from abair.errors import RegistryError, TrainingError
from abair.report import Report, Verdict
from abair.text import quote_foreign
from abair_registry.db.snapshot import Member
from abair_registry.plugins import installed
from abair_registry.plugins.installed import normalised
from abair_registry.plugins.worker.run_jobs import Errand, Gates, Making, Notices, Point
from abair_registry.plugins.worker.runtime import Refusal
from abair_registry.plugins.worker.supervisor import ask

_VERDICTS = TypeAdapter(list[Verdict])


@dataclass(frozen=True)
class Limits:
    """What one errand may take: seconds of wall clock, MiB of memory beyond torch's, bytes of a file that it writes."""

    seconds: float
    memory_mib: int = 2048
    largest_file: int = 64 * 1024**2


ASKING: Final = Limits(seconds=30)
"""For gates and notices, which look at numbers and write lines."""
SAMPLING: Final = Limits(seconds=1800, memory_mib=8192)
"""For the samples of a new label; a folder of photos is read for them."""
TRAINING: Final = Limits(seconds=4 * 3600, memory_mib=16384, largest_file=1024**3)
"""For the whole estimator; what was seen in its samples is kept in one file."""


@dataclass(frozen=True)
class VerifiedPlugins:
    """The plugins of some members that may run, and why the others may not, by the plugins' names.

    `absent` are those of the others that are not installed at all.
    """

    points: tuple[Point, ...]
    left_out: dict[str, str]
    absent: frozenset[str] = frozenset()

    def require(self, names: Collection[str]) -> tuple[Point, ...]:
        """Return the named plugins.

        Raises:
            TrainingError: One of them is not installed as it is recorded.
        """
        for name in names:
            if name in self.left_out:
                raise TrainingError(
                    f"plugin {name}: {self.left_out[name]}; expected it installed as it is recorded; "
                    "install that version"
                )
        return tuple(point for point in self.points if point.name in names)


def verify_plugins(members: Iterable[Member]) -> VerifiedPlugins:
    """Which plugins are installed as they are recorded; nothing is imported."""
    found = installed.installed_plugins()
    points, left_out, absent = [], {}, set()
    for member in {member.plugin: member for member in members}.values():
        named = [point for point in found if point.name == member.plugin]
        same = [point for point in named if normalised(point.distribution) == normalised(member.distribution)]
        if not named:
            left_out[member.plugin] = "not installed"
            absent.add(member.plugin)
        elif len(named) > 1 or not same:
            others = ", ".join(quote_foreign(point.distribution, 60) for point in named)
            left_out[member.plugin] = f"installed by distribution {others}, recorded for {member.distribution}"
        elif same[0].version != member.version:
            left_out[member.plugin] = (
                f"version {quote_foreign(same[0].version, 60)} is installed, {member.version} is recorded"
            )
        else:
            points.append(Point(name=member.plugin, module=same[0].module, distribution=same[0].distribution))
    return VerifiedPlugins(tuple(points), left_out, frozenset(absent))


def ask_gates(plugins: VerifiedPlugins, report: Report) -> dict[str, list[Verdict]]:
    """Return the verdicts of each plugin's `abair_gates`, by the plugin's name.

    A gate that raises, or returns something else, refuses. If the process itself ends early, one
    refusal stands for all plugins, under all their names.
    """
    if not plugins.points:
        return {}
    try:
        said = _errand(Gates, ASKING, points=plugins.points, report=report)
    except Refusal as refusal:
        names = ", ".join(point.name for point in plugins.points)
        return {names: [_unasked(f"of {names}", f"a gate of {names} {refusal}")]}
    given: dict[str, list[Verdict]] = {}
    for name, answer in said.items():
        try:
            own = _VERDICTS.validate_python(answer)
        except ValidationError:
            own = [
                _unasked(
                    "its gate", f"the gate of plugin {name} could not be asked ({quote_foreign(str(answer), 300)})"
                )
            ]
        for verdict in own:
            texts = {
                "name": f"plugin {name}: {quote_foreign(verdict.name, 100)}",
                "advice": quote_foreign(verdict.advice, 300),
            }
            given.setdefault(name, []).append(
                verdict.model_copy(update=texts | {"unit": quote_foreign(verdict.unit, 20)})
            )
    return given


def send_notices(plugins: VerifiedPlugins, deployment: Path) -> list[str]:
    """Tell each plugin's `abair_deployed` of the deployment in a folder; what went wrong, which changes nothing."""
    if not plugins.points:
        return []
    try:
        said = _errand(Notices, ASKING, points=plugins.points, deployment=deployment)
    except Refusal as refusal:
        return [f"plugins {', '.join(point.name for point in plugins.points)}: a notice of the deployment {refusal}"]
    except RegistryError as error:
        return [str(error)]
    return [
        f"plugin {name}: its notice of the deployment failed ({quote_foreign(str(why), 300)})"
        for name, why in said.items()
    ]


def run_job(kind: type[Making], limits: Limits, tell: Callable[[], object] = lambda: None, **given: Any) -> None:
    """Have synthesisers run: what is made is written where the errand says; `tell` hears of each part.

    Raises:
        TrainingError: one of them failed, hung, or took more than it may.
    """
    try:
        _errand(kind, limits, tell, **given)
    except Refusal as refusal:
        raise TrainingError(quote_foreign(str(refusal))) from None


def _errand(
    kind: type[Errand], limits: Limits, tell: Callable[[], object] = lambda: None, **given: Any
) -> dict[str, Any]:
    errand = kind(
        token=secrets.token_hex(16), seconds=limits.seconds, memory_mib=limits.memory_mib, output_kib=1024,
        largest_file=limits.largest_file, **given,
    )  # fmt: skip
    try:
        last = ask("abair_registry.plugins.worker.run_jobs", errand, time.monotonic() + limits.seconds, tell)[-1]
    except OSError as error:
        raise RegistryError(
            f"a process for plugins cannot be started ({error.strerror or error}); expected a temporary folder that "
            "can be written, and room for one more process"
        ) from None
    if last.kind != "done":
        raise Refusal(str(last.body))
    return last.body if isinstance(last.body, dict) else {}


def _unasked(name: str, why: str) -> Verdict:
    return Verdict(
        name=name, passed=False, measured=0.0, threshold=0.0, advice=f"{quote_foreign(why)}; mend or uninstall it"
    )
