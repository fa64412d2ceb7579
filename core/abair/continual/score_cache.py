"""Scores of restored samples, kept from one evaluation to the next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from abair.files import write_text

Scores = tuple[float, float]
"""PSNR in dB and SSIM."""
NamedWeights = Mapping[str, float]
"""Weights by a name of what they weight, in a fixed order; zero weights are left out."""


def distance(one: NamedWeights, other: NamedWeights) -> float:
    """Return the sum of absolute differences: 0 to 2 if each sums to 1."""
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other})


class ScoreCache:
    """Scores by what was restored and the weights that it was restored with.

    `write` drops entries that nobody asked for, because a registry's file would grow without limit.
    """

    def __init__(self) -> None:
        self._scores: dict[str, dict[tuple[tuple[str, float], ...], Scores]] = {}
        self._used: set[tuple[str, tuple[tuple[str, float], ...]]] = set()

    def find(self, key: str, weights: NamedWeights) -> Scores | None:
        """Return the scores with exactly these weights, None if there are none."""
        weights_key = tuple(weights.items())
        scores = self._scores.get(key, {}).get(weights_key)
        if scores is not None:
            self._used.add((key, weights_key))
        return scores

    def nearest(self, key: str, weights: NamedWeights) -> tuple[float, NamedWeights] | None:
        """Return the distance to the nearest weights with scores, and these; None without any."""
        distances = ((distance(weights, dict(known)), known) for known in self._scores.get(key, {}))
        return next(((away, dict(known)) for away, known in sorted(distances)), None)

    def add(self, key: str, weights: NamedWeights, scores: Scores) -> Scores:
        """Add scores, and return them."""
        weights_key = tuple(weights.items())
        self._scores.setdefault(key, {})[weights_key] = scores
        self._used.add((key, weights_key))
        return scores

    @classmethod
    def read(cls, path: Path) -> ScoreCache:
        """Read a file that `write` wrote; if it is absent or damaged, the cache is empty."""
        cache = cls()
        try:
            for key, rows in json.loads(path.read_text(encoding="utf-8"))["scores"].items():
                cache._scores[key] = {
                    tuple((str(name), float(weight)) for name, weight in weights.items()): (float(a), float(b))
                    for weights, a, b in rows
                }
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return cls()
        return cache

    def write(self, path: Path) -> None:
        """Write the entries that were used.

        Raises:
            OSError: The file cannot be written.
        """
        rows: dict[str, list[tuple[dict[str, float], float, float]]] = {}
        for key, weights_key in sorted(self._used):
            rows.setdefault(key, []).append((dict(weights_key), *self._scores[key][weights_key]))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"scores": rows}))


@contextmanager
def open_score_cache(path: Path) -> Iterator[ScoreCache]:
    """Read a file's cache, and write used entries back when the block ends without an error."""
    cache = ScoreCache.read(path)
    yield cache
    cache.write(path)
