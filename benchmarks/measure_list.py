"""Measure `abair-registry list` as a process: few plugins, 200 plugins, and 10,000 events.

Run: python benchmarks/measure_list.py
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from abair_registry.db import audit, queries
from abair_registry.db.audit import Actor
from abair_registry.db.queries import NewAdapter, NewRelease
from abair_registry.registry import Registry, open_registry
from abair_registry.settings import Settings

REPEATS = 9
ACTOR = Actor("measure", "")


def add_plugins(registry: Registry, count: int) -> None:
    """Record `count` plugins with one adapter each, as `add` would."""
    with registry.database.write() as session:
        live = queries.live(session)
        assert live is not None
        adapter = live.members[0].adapter
        for index in range(count):
            new_adapter = NewAdapter(
                degradation="snow", title="Snow", backbone_id=live.backbone_id, rank=4, parameters=107_980,
                config_sha256=adapter.config_sha256, weights_sha256=adapter.weights_sha256,
            )  # fmt: skip
            name = f"plugin-{index:03}"
            files = {f"{name}/{number}.py": "0" * 64 for number in range(10)}
            release = NewRelease(
                name=name, distribution=f"abair-{name}", version="1.0", module="m", adapters=[new_adapter], files=files,
                declared={},
            )  # fmt: skip
            queries.record_release(session, release, ACTOR)


def add_events(registry: Registry, count: int) -> None:
    """Record `count` events."""
    with registry.database.write() as session:
        for index in range(count):
            audit.record_event(session, ACTOR, "look", f"plugin-{index % 200:03}")


def measure_seconds(home: Path) -> float:
    """Return the median time of a few processes."""
    command = [str(Path(sysconfig.get_path("scripts")) / "abair-registry"), "list"]
    environment = {name: value for name, value in os.environ.items() if name != "ABAIR_REGISTRY_URL"}
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, env=environment | {"ABAIR_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print one line per size."""
    home = Path(tempfile.mkdtemp())
    try:
        for plugins, events in ((0, 0), (195, 0), (0, 10_000)):
            with open_registry(Settings(home=home, registry_url=None)) as registry:
                add_plugins(registry, plugins)
                add_events(registry, events)
                with registry.database.read() as session:
                    count = len(queries.plugins(session))
            print(f"{count} plugins, {events} more events: {measure_seconds(home):.2f} s", flush=True)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
