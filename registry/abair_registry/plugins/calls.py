"""Calls of live plugins in worker processes: notices, synthesisers, and the jobs of any kind.

A plugin runs only if its name, distribution, version and files are those that were admitted.
Another distribution with its name, a version that was never added, or code that was changed under
the same version is left out, and the caller learns why.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name

from abair.errors import RegistryError, TrainingError
from abair.text import quote_foreign
from abair_registry.db.snapshot import Member
from abair_registry.plugins import installed
from abair_registry.plugins.installed import InstalledPlugin
from abair_registry.plugins.worker.jobs import Job, NoticesJob, PluginRef, SynthesisJob
from abair_registry.plugins.worker.protocol import Refusal
from abair_registry.plugins.worker.supervisor import run_worker


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

    @property
    def unasked(self) -> dict[str, str]:
        """Those that are installed otherwise than they were admitted, so that no hook is called."""
        return {name: why for name, why in self.left_out.items() if name not in self.absent}

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


def verify_plugins(members: Iterable[Member], files: Mapping[str, Mapping[str, str]]) -> VerifiedPlugins:
    """Compare the members' plugins with what is installed; imports none of them.

    `files` are the SHA-256 of their files as they were added, by plugin and path; those of plugins
    that came with a factory were not recorded.
    """
    metadata = installed.plugins_with_metadata()
    found = [plugin for plugin, _ in metadata]
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
        elif changed := _changed_files(same[0], metadata, files.get(member.plugin, {})):
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            left_out[member.plugin] = (
                f"its files are not those of version {member.version} that was added: {changed[0]}{more}"
            )
        else:
            refs.append(PluginRef(name=member.plugin, module=same[0].module, distribution=same[0].distribution))
    return VerifiedPlugins(tuple(refs), left_out, frozenset(absent))


def _changed_files(
    plugin: InstalledPlugin, metadata: Iterable[tuple[InstalledPlugin, Distribution]], recorded: Mapping[str, str]
) -> list[str]:
    """Return which files differ from the recorded ones, if any were recorded."""
    distribution = next(distribution for found, distribution in metadata if found is plugin)
    return installed.changed_files(plugin, distribution, recorded) if recorded else []


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
            failures = run(NoticesJob, limits, clock, plugins=refs, deployment=deployment)
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
        run(kind, limits, on_progress, **fields)
    except _EndedError as refusal:
        names = ", ".join(ref.name for ref in fields["plugins"])
        raise TrainingError(quote_foreign(f"a synthesiser of {names} {refusal}; mend or uninstall it")) from None
    except Refusal as refusal:
        raise TrainingError(quote_foreign(str(refusal))) from None


def run(
    kind: type[Job], limits: Limits, on_progress: Callable[[], object] = lambda: None, **fields: Any
) -> dict[str, Any]:
    """Run a job in a worker process, and return the body of its result.

    Raises:
        Refusal: a plugin's fault, or the process ended before its time.
        RegistryError: the process cannot be started.
    """
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
