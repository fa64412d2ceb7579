"""Measure `abair restore --engine ray`: seconds by number of workers, and the command's memory.

    python benchmarks/ray_workers.py                   # made photos, 1 and 2 workers
    python benchmarks/ray_workers.py --waiting 8       # a stage that waits in their place
    python benchmarks/ray_workers.py --rows 100000     # memory of the driver; nothing is restored

Needs the extra `ray` and an idle machine. Prints one line a measurement. Workers of a waiting stage
take no CPU, so eight of them show what handing out costs and not what eight cores bring.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
from PIL import Image

from abair.batch.photo import Choices
from abair.batch.ray_engine import Bundle, restore
from abair.batch.worker import Orders, Task
from abair.cli.console import explain
from abair.deployment import read_deployment

MIB = 2**20


class Waiting:
    """Stands in for a restorer: waits and returns the photo."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def load(self) -> Waiting:
        """Return itself."""
        return self

    def __call__(self, image: np.ndarray, **_: object) -> SimpleNamespace:
        """Return the photo after a while."""
        time.sleep(self.seconds)
        made = {"weights": {"clean": 1.0}, "policy": "soft", "quality": "standard", "deployment": "waiting"}
        size = {"seconds": self.seconds, "megapixels": image.size / 3e6}
        return SimpleNamespace(
            image=image, confidence=None, unknown=None, warnings=(), further_looks=(), **size, **made
        )


def main() -> None:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(description="Measure abair restore --engine ray.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--side", type=int, default=512, help="of the made photos, in pixels")
    parser.add_argument("--waiting", type=int, metavar="N", help="1 and N workers that only wait")
    parser.add_argument("--seconds", type=float, default=0.5, help="that they wait for a photo")
    parser.add_argument("--rows", type=int, help="so many planned photos that do not exist")
    options = parser.parse_args()
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    counts = [1, options.waiting] if options.waiting else options.workers
    ray.init(num_cpus=max(counts), include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    with tempfile.TemporaryDirectory() as folder:
        if options.rows:
            measure_memory(Path(folder), options.rows, max(counts))
            return
        tasks = make_photos(Path(folder), options.photos, options.side)
        bundle = (
            Waiting(options.seconds) if options.waiting else Bundle.read(read_deployment("factory"), "cpu", "float32")
        )
        for count in counts:
            started = time.perf_counter()
            done = [0.0]
            for record in restore(tasks, bundle, orders(), workers=count):
                assert "error" not in record, record
                done.append(time.perf_counter() - started)
            rate = (len(tasks) - 1) / max(done[-1] - done[1], 1e-9)
            print(
                f"{count} workers: {done[-1]:.1f} s, the first after {done[1]:.1f} s; then {rate:.2f} photos a second"
            )


def orders() -> Orders:
    """Return orders that replace outputs."""
    return Orders(Choices(overwrite=True), "/", False, explain)


def make_photos(folder: Path, count: int, side: int) -> list[Task]:
    """Write noisy photos and return the tasks."""
    tasks = []
    for number in range(count):
        source = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source)
        tasks.append(Task(number, str(source), str(folder / "out" / source.name), True))
    return tasks


def measure_memory(folder: Path, rows: int, workers: int) -> None:
    """Print the driver's memory after each tenth of rows, whose files do not exist."""
    process = psutil.Process()
    before = process.memory_info().rss
    started = time.perf_counter()
    places = ((f"{folder}/{number:07}.png", f"{folder}/out/{number:07}.png") for number in range(rows))
    tasks = (Task(number, source, target, True) for number, (source, target) in enumerate(places))
    for done, _ in enumerate(restore(tasks, Waiting(0.0), orders(), workers=workers), 1):
        if done == 1 or done % max(1, rows // 10) == 0:
            grown = (process.memory_info().rss - before) / MIB
            print(f"{done} rows: {grown:+.0f} MiB, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
