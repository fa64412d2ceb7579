"""Kills operations at random moments and looks at what is left: `python tests/support/kill.py TIMES [postgresql]`.

Each turn forks a process that changes what serves, kills it, and forks another that holds the registry to its
invariants, restores a photo, and adds the plugin, which must succeed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from abair import Restorer
from abair.deployment import read_deployment
from abair_registry.db import queries
from abair_registry.db.audit import Actor
from abair_registry.maintenance import integrity
from abair_registry.operations import charts, lock
from abair_registry.operations.lifecycle import Add, Disable, Enable, Remove, Retrain
from abair_registry.operations.promotion import Promote, Rollback
from abair_registry.operations.requests import Operation, OperationOptions
from abair_registry.plugins import installed
from abair_registry.registry import Registry, open_registry, sync_live_file
from abair_registry.settings import ChallengerConfig, Settings
from abair_registry.tracking import sync
from abair_registry.tracking.mlflow_client import Runs

ME = Actor("me", "because")
OPTIONS = OperationOptions(route="features", force=True)
"""So little is trained here that gates may refuse it, which is none of what is looked at."""
KINDS = ("add", "review", "disable", "remove", "retrain", "promote", "rollback")
SMALL = ChallengerConfig(
    training_scenes=8,
    held_out=4,
    held_out_clean=4,
    first_look=2,
    held_out_of_mixture=1,
    held_out_mixtures=2,
    mixtures=4,
    mixtures_labels=2,
    full_steps=24,
    validation=1,
    temperature=2,
)
NEW_HOME = 25
"""Turns after which the home is a new one: a first `add` has more to do."""


def make_small() -> None:
    """As little work as has all the steps: what is killed is the bookkeeping, not the training."""
    torch.set_num_threads(1)
    for name in ("bars", "confusion", "histograms", "sheet"):
        setattr(charts, name, _small_figure)


def _small_figure(*_: object) -> object:
    from matplotlib.figure import Figure

    return Figure((1, 1))


def run_operation(settings: Settings, bundle: Path, kind: str) -> None:
    """Run one of the operations that are killed, whatever is live."""
    with open_registry(settings, bundle) as registry:
        with registry.database.read() as session:
            live = queries.live(session)
            assert live is not None
            labels, number = live.labels, live.number
            newest = queries.history(session)[0][0].number
        toggle = Disable if "rain" in labels else Enable
        operations: dict[str, Operation] = {
            "add": Add("frost", ME, OPTIONS),
            "disable": toggle("rain", ME, OPTIONS),
            "review": toggle("rain", ME, replace(OPTIONS, review=True)),
            "remove": Remove("frost", ME, OPTIONS),
            "retrain": Retrain(ME, replace(OPTIONS, route="full")),
            "promote": Promote(newest if newest != number else max(1, newest - 1), ME, force=True),
            "rollback": Rollback(1 if number != 1 else None, ME),
        }
        operations[kind].run(registry)


def examine(settings: Settings, bundle: Path, photo: np.ndarray) -> None:
    """What must hold after a kill, before and after anybody opens the registry again."""
    if (settings.home / "deployment.json").exists():
        read_deployment(settings.home).verify()
        Restorer.load(settings.home)(photo)
    with open_registry(settings, bundle) as registry:
        sync_live_file(registry)
        _invariants(registry)
        lock.recover(registry.database)
        result = Add("frost", ME, OPTIONS).run(registry)
        assert result.outcome == "live", result
        runs = Runs(settings)
        sync.reconcile(registry, runs)
        assert sync.reconcile(registry, runs) == []
        assert runs.running() == []
        version = next(v for v in runs.versions() if v.number == runs.version("champion"))
        assert version.tags["abair.deployment"] == str(result.deployment)
        _invariants(registry)
        assert "frost" in Restorer.load(settings.home)(photo).weights


def _invariants(registry: Registry) -> None:
    count, problems = integrity.verify(registry)
    assert count, count
    assert not problems, problems
    with registry.database.read() as session:
        live = queries.live(session)
        assert live is not None
        assert [*(member.label for member in live.members), "clean"] == live.labels
        serving = {member.adapter.release.plugin_id for member in live.members}
        for plugin in queries.plugins(session):
            assert (plugin.id in serving) == (plugin.state == "live"), (plugin.name, plugin.state)
        numbers = [deployment.number for deployment, _ in queries.history(session)]
        assert numbers == list(range(len(numbers), 0, -1))
        assert queries.was_live(session, live.number)


def start(work: Callable[[], None]) -> int:
    """Begin work in a process that has loaded all modules already; return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def forked(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Do work in a process of its own, killed after so many seconds; its exit code, -9 if it was killed."""
    child = start(work)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(times: int, bundle: Path, homes: Path, urls: list[str]) -> int:
    """Kill so many operations; returns how many were still running when they were killed."""
    make_small()
    installed.find("frost")
    chance = random.Random(0)
    photo = np.random.default_rng(0).integers(0, 255, (60, 70, 3), dtype=np.uint8)
    # how long an operation lives: learnt from those that ended before they were killed, and longer after each kill
    durations = dict.fromkeys(KINDS, 1.5)
    killed = 0
    settings = Settings()
    for turn in range(times):
        if turn % NEW_HOME == 0:
            number = turn // NEW_HOME
            home = homes / str(number)
            url = urls[number] if urls else None
            settings = Settings(
                home=home, registry_url=url, clean_dir=Settings().clean_dir, samples=100, challenger=SMALL
            )
            began = time.monotonic()
            assert forked(partial(run_operation, settings, bundle, "add")) == 0
            durations["add"] = time.monotonic() - began
        kind = chance.choice(KINDS)
        if kind == "add":  # at the end of each turn it is live
            assert forked(partial(run_operation, settings, bundle, "remove")) == 0
        began = time.monotonic()
        code = forked(partial(run_operation, settings, bundle, kind), chance.uniform(0.0, durations[kind]))
        killed += code == -signal.SIGKILL
        durations[kind] *= 1.2
        if code != -signal.SIGKILL:
            assert code == 0, (turn, kind, code)
            durations[kind] = 0.9 * (time.monotonic() - began)
        assert forked(partial(examine, settings, bundle, photo)) == 0, (turn, kind)
        if sys.stderr.isatty():
            print(f"\r{turn + 1} of {times}, {killed} killed", end="", file=sys.stderr, flush=True)
    return killed


if __name__ == "__main__":
    times, bundle, homes, *urls = sys.argv[1:]
    print(main(int(times), Path(bundle), Path(homes), urls))
