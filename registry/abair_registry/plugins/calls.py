"""Calls of live plugins in worker processes: gates, notices, synthesisers.

A plugin runs only if its name, distribution and version are those that were admitted. Another
distribution with its name, or a version that was never added, is left out, and the caller learns
why.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name
from pydantic import TypeAdapter, ValidationError

from abair.errors import RegistryError, TrainingError
from abair.report import Report, Verdict
from abair.text import quote_foreign
from abair_registry.db.snapshot import Member
from abair_registry.plugins import installed
from abair_registry.plugins.worker.jobs import GatesJob, Job, NoticesJob, PluginRef, SynthesisJob
from abair_registry.plugins.worker.protocol import Refusal
from abair_registry.plugins.worker.supervisor import run_worker

_VERDICTS = TypeAdapter(list[Verdict])
MOST_VERDICTS: Final = 20
"""Most verdicts of one plugin; each is a line on the terminal and on the run's page."""


@dataclass(frozen=True)
class Limits:
    """What one job may take: wall clock, memory beyond torch's, bytes of a file that it writes.

    A notice that takes over `slow` seconds is told to be slow.
    """

    seconds: float
    memory_mib: int = 2048
    largest_file: int = 64 * 1024**2
    slow: float = 5.0


HOOK_LIMITS: Final = Limits(seconds=30)
"""For gates and notices, which look at numbers and write lines."""
REPLAY_LIMITS: Final = Limits(seconds=1800, memory_mib=8192)
"""For the replay of a new label, which reads a folder of photos."""
TRAINING_LIMITS: Final = Limits(seconds=4 * 3600, memory_mib=16384, largest_file=1024**3)
"""For the whole estimator, which keeps the features of its samples in one file."""


class _EndedError(Refusal):
    """The process ended before it answered; the text does not say by which plugin."""


@dataclass(frozen=True)
class VerifiedPlugins:
    """The plugins of a deployment that may run, and by name why the others may not.

    `absent` are those of the others that are not installed at all.
    """

    refs: tuple[PluginRef, ...]
    left_out: dict[str, str]
    absent: frozenset[str] = frozenset()

    def require(self, names: Collection[str]) -> tuple[PluginRef, ...]:
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
        return tuple(ref for ref in self.refs if ref.name in names)


def verify_plugins(members: Iterable[Member]) -> VerifiedPlugins:
    """Compare the members' plugins with what is installed; imports none of them."""
    found = installed.installed_plugins()
    refs, left_out, absent = [], {}, set()
    for member in {member.plugin: member for member in members}.values():
        named = [plugin for plugin in found if plugin.name == member.plugin]
        recorded = canonicalize_name(member.distribution)
        same = [plugin for plugin in named if canonicalize_name(plugin.distribution) == recorded]
        if not named:
            left_out[member.plugin] = "not installed"
            absent.add(member.plugin)
        elif len(named) > 1 or not same:
            others = ", ".join(quote_foreign(plugin.distribution, 60) for plugin in named)
            left_out[member.plugin] = f"installed by distribution {others}, recorded for {member.distribution}"
        elif same[0].version != member.version:
            left_out[member.plugin] = (
                f"version {quote_foreign(same[0].version, 60)} is installed, {member.version} is recorded"
            )
        else:
            refs.append(PluginRef(name=member.plugin, module=same[0].module, distribution=same[0].distribution))
    return VerifiedPlugins(tuple(refs), left_out, frozenset(absent))


def ask_gates(plugins: VerifiedPlugins, report: Report) -> dict[str, list[Verdict]]:
    """Return the verdicts of each plugin's `abair_gates`, by the plugin's name.

    A gate that raises, or returns something else, refuses in the plugin's name. If the worker
    process ends before its time, one refusal stands for all, under all their names.
    """
    if not plugins.refs:
        return {}
    try:
        answers = _run(GatesJob, HOOK_LIMITS, plugins=plugins.refs, report=report)
    except Refusal as refusal:
        names = ", ".join(ref.name for ref in plugins.refs)
        return {names: [_failed_gate(f"of {names}", f"a gate of {names} {refusal}")]}
    verdicts: dict[str, list[Verdict]] = {}
    for name, answer in answers.items():
        try:
            own = _VERDICTS.validate_python(answer)
        except ValidationError:
            own = [
                _failed_gate(
                    "its gate", f"the gate of plugin {name} could not be asked ({quote_foreign(str(answer), 300)})"
                )
            ]
        if len(own) > MOST_VERDICTS:
            found = f"the gate of plugin {name} returned {len(own)} verdicts; expected at most {MOST_VERDICTS}"
            own = [_failed_gate("its gate", found)]
        verdicts[name] = [_cleaned(verdict, name) for verdict in own]
    return {name: own for name, own in verdicts.items() if own}


def send_notices(plugins: VerifiedPlugins, deployment: Path, limits: Limits = HOOK_LIMITS) -> list[str]:
    """Call each plugin's `abair_deployed` with the deployment in a folder.

    One process is for all of them, until one hangs or dies: that one is named, and the others hear
    theirs in another process. Returns one line for each failure, and for each that was slow.

    A failure changes nothing: the deployment is live.
    """
    problems: list[str] = []
    groups = [plugins.refs] if plugins.refs else []
    while groups:
        refs = groups.pop(0)
        clock = _NoticeClock()
        try:
            failures = _run(NoticesJob, limits, clock, plugins=refs, deployment=deployment)
        except Refusal as refusal:
            at = clock.finished if clock.moments else 0
            if len(refs) > 1 and not clock.moments:  # it hangs or dies where all are imported: one by one, then
                groups += [(ref,) for ref in refs]
            elif at < len(refs):
                problems.append(f"plugin {refs[at].name}: its notice of the deployment {refusal}")
                groups += [refs[at + 1 :]] if refs[at + 1 :] else []
            else:
                problems.append(f"plugin {', '.join(ref.name for ref in refs)}: a notice of the deployment {refusal}")
        except RegistryError as error:
            problems.append(str(error))
        else:
            problems += [
                f"plugin {name}: its notice of the deployment failed ({quote_foreign(str(why), 300)})"
                for name, why in failures.items()
            ]
        problems += [
            f"plugin {ref.name}: its notice of the deployment took {seconds:.0f} s; expected less than "
            f"{limits.slow:g}, since the command waits for it"
            for ref, seconds in zip(refs, clock.seconds(), strict=False)
            if seconds > limits.slow
        ]
    return problems


class _NoticeClock:
    """Measures how long each plugin took: it is called once before the first, and after each."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def __call__(self) -> None:
        self.moments.append(time.monotonic())

    @property
    def finished(self) -> int:
        """How many plugins heard theirs."""
        return max(0, len(self.moments) - 1)

    def seconds(self) -> list[float]:
        """Return what each of them took."""
        return [after - before for before, after in pairwise(self.moments)]


def run_job(
    kind: type[SynthesisJob], limits: Limits, on_progress: Callable[[], object] = lambda: None, **fields: Any
) -> None:
    """Run plugins' synthesisers; the result is written where the job says.

    Args:
        kind: `ReplayJob` or `EstimatorJob`.
        limits: what the job may take.
        on_progress: called for each finished part.
        **fields: of the job.

    Raises:
        TrainingError: a synthesiser failed, hung, or took more than it may.
    """
    try:
        _run(kind, limits, on_progress, **fields)
    except _EndedError as refusal:
        names = ", ".join(ref.name for ref in fields["plugins"])
        raise TrainingError(quote_foreign(f"a synthesiser of {names} {refusal}; mend or uninstall it")) from None
    except Refusal as refusal:
        raise TrainingError(quote_foreign(str(refusal))) from None


def _run(
    kind: type[Job], limits: Limits, on_progress: Callable[[], object] = lambda: None, **fields: Any
) -> dict[str, Any]:
    job = kind(
        token=secrets.token_hex(16), seconds=limits.seconds, memory_mib=limits.memory_mib, output_kib=1024,
        largest_file=limits.largest_file, **fields,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + limits.seconds
        last = run_worker("abair_registry.plugins.worker.run_jobs", job, deadline, on_progress)[-1]
    except Refusal as refusal:
        raise _EndedError(str(refusal)) from None
    except OSError as error:
        raise RegistryError(
            f"a process for plugins cannot be started ({error.strerror or error}); expected a temporary folder that "
            "can be written, and room for one more process"
        ) from None
    if last.kind != "result":
        raise Refusal(str(last.body))
    return last.body if isinstance(last.body, dict) else {}


def _cleaned(verdict: Verdict, plugin: str) -> Verdict:
    """Return a plugin's verdict with its name, all texts on one line and of bounded length."""
    return verdict.model_copy(
        update={
            "name": f"plugin {plugin}: {quote_foreign(verdict.name, 100)}",
            "unit": quote_foreign(verdict.unit, 20),
            "advice": quote_foreign(verdict.advice, 300),
            "detail": quote_foreign(verdict.detail, 100),
        }
    )


def _failed_gate(name: str, why: str) -> Verdict:
    return Verdict(
        name=name, passed=False, measured=0.0, threshold=0.0, advice=f"{quote_foreign(why)}; mend or uninstall it"
    )
