"""How long `abair-registry list` takes, as a process: with the factory's plugins, 200 plugins, and 10,000 events.

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
ME = Actor("measure", "")


def add_plugins(registry: Registry, count: int) -> None:
    """Record so many, each with one adapter, as `add` would."""
    with registry.database.write() as session:
        live = queries.live(session)
        assert live is not None
        adapter = live.members[0].adapter
        for index in range(count):
            same = NewAdapter(
                degradation="snow", title="Snow", backbone_id=live.backbone_id, rank=4, parameters=107_980,
                config_sha256=adapter.config_sha256, weights_sha256=adapter.weights_sha256,
            )  # fmt: skip
            name = f"plugin-{index:03}"
            files = {f"{name}/{number}.py": "0" * 64 for number in range(10)}
            release = NewRelease(
                name=name, distribution=f"abair-{name}", version="1.0", module="m", adapters=[same], files=files,
                declared={},
            )  # fmt: skip
            queries.record_release(session, release, ME)


def add_events(registry: Registry, count: int) -> None:
    """Fill the audit."""
    with registry.database.write() as session:
        for index in range(count):
            audit.record_event(session, ME, "look", f"plugin-{index % 200:03}")


def seconds(home: Path) -> float:
    """The median of a few processes."""
    command = [str(Path(sysconfig.get_path("scripts")) / "abair-registry"), "list"]
    environment = {name: value for name, value in os.environ.items() if name != "ABAIR_REGISTRY_URL"}
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, env=environment | {"ABAIR_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Print one line a size."""
    home = Path(tempfile.mkdtemp())
    try:
        for plugins, events in ((0, 0), (195, 0), (0, 10_000)):
            with open_registry(Settings(home=home, registry_url=None)) as registry:
                add_plugins(registry, plugins)
                add_events(registry, events)
                with registry.database.read() as session:
                    count = len(queries.plugins(session))
            print(f"{count} plugins, {events} more events: {seconds(home):.2f} s", flush=True)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
