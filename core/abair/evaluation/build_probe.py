"""One measurement of one build: load a deployment, restore a photo, say the figures.

This file runs as a program of its own, by the Python and with the packages of the build that is
measured. So it imports nothing of ABAIR but `Restorer`, which every build has.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


class _Clock:
    """Times one piece of work: seconds that passed, and seconds of CPU time of all threads."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        """Return what has passed since this clock was made."""
        return {"wall": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu}


def peak_memory() -> int:
    """Return the largest resident size of this process in bytes.

    Linux tells it of this program alone; `getrusage` starts from the size of the process that
    started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(deployment: str, megapixels: float, threads: int, precision: str) -> dict[str, Any]:
    """Load the deployment and restore one photo of 3:2 with fixed weights after an estimate."""
    start = _Clock()
    import numpy as np
    import torch

    import abair

    torch.set_num_threads(threads)
    restorer = abair.Restorer.load(deployment, precision=precision)  # type: ignore[arg-type]
    loaded = start.seconds()
    # speed does not depend on what a photo shows; weights are fixed, because estimates may differ
    generator, weights = np.random.default_rng(0), {restorer.labels[0]: 1.0}
    restorer(generator.integers(0, 256, (64, 96, 3), np.uint8), weights=weights)  # warm up
    height = max(1, round((megapixels * 1e6 / 1.5) ** 0.5))
    photo = generator.integers(0, 256, (height, max(1, round(1.5 * height)), 3), np.uint8)
    work = _Clock()
    restorer.estimate(photo)
    restored = restorer(photo, weights=weights).image
    return {
        "start": loaded,
        "restore": work.seconds(),
        "peak_bytes": peak_memory(),
        "mean": float(restored.mean()),
        "abair": str(Path(abair.__file__).parent),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    name, size, count, chosen = sys.argv[1:]
    try:
        print(json.dumps(measure(name, float(size), int(count), chosen)))
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split())[:500])
