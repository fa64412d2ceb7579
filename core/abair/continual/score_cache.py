"""What was measured is looked up: the scores of restored samples, kept from one evaluation to the next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from abair.files import write_text

Scores = tuple[float, float]
"""PSNR in dB and SSIM."""
Named = Mapping[str, float]
"""Weights by what they are the weights of, in a fixed order; those of nothing are left out."""


def distance(one: Named, other: Named) -> float:
    """The sum of all differences: 0 to 2 where each sums to 1."""
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other})


class Measured:
    """Scores by what was restored, and by the weights that it was restored with.

    What nobody asks for any more is forgotten when it is kept, or a registry's file would grow for ever.
    """

    def __init__(self) -> None:
        self._scores: dict[str, dict[tuple[tuple[str, float], ...], Scores]] = {}
        self._asked: set[tuple[str, tuple[tuple[str, float], ...]]] = set()

    def find(self, what: str, weights: Named) -> Scores | None:
        """The scores with exactly these weights, None if they were not measured."""
        key = tuple(weights.items())
        scores = self._scores.get(what, {}).get(key)
        if scores is not None:
            self._asked.add((what, key))
        return scores

    def nearest(self, what: str, weights: Named) -> tuple[float, Named] | None:
        """The nearest weights with which it was measured, behind how far away they are; None if it never was."""
        measured = self._scores.get(what, {})
        away = ((distance(weights, dict(key)), key) for key in measured)
        return next(((far, dict(key)) for far, key in sorted(away)), None)

    def note(self, what: str, weights: Named, scores: Scores) -> Scores:
        """Remember the scores, and return them."""
        key = tuple(weights.items())
        self._scores.setdefault(what, {})[key] = scores
        self._asked.add((what, key))
        return scores

    @classmethod
    def read(cls, path: Path) -> Measured:
        """What `write` wrote; nothing where there is no such file, or a damaged one: it is measured again."""
        measured = cls()
        try:
            for what, rows in json.loads(path.read_text(encoding="utf-8"))["measured"].items():
                measured._scores[what] = {
                    tuple((str(name), float(weight)) for name, weight in weights.items()): (float(a), float(b))
                    for weights, a, b in rows
                }
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return cls()
        return measured

    def write(self, path: Path) -> None:
        """Keep what was asked for. Raises OSError."""
        rows: dict[str, list[tuple[dict[str, float], float, float]]] = {}
        for what, key in sorted(self._asked):
            rows.setdefault(what, []).append((dict(key), *self._scores[what][key]))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"measured": rows}))


@contextmanager
def measured(path: Path) -> Iterator[Measured]:
    """What the file holds; what was asked for within is kept there for the next time."""
    known = Measured.read(path)
    yield known
    known.write(path)
