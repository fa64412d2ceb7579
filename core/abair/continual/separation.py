"""How well features tell a new label from each known one, before anything is restored.

Each pair of labels is judged by Fisher's linear discriminant, fitted to the other parts of the
samples (cross-validation). No estimator on these features can be expected to do much better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from abair.continual.replay import WHOLE, Features
from abair.labels import CLEAN

FOLDS: Final = 4
"""Parts of the samples, each judged by a discriminant that did not see it."""
SHRINKAGE: Final = 0.2
"""Share of the covariance that is replaced by equal variances: there are few samples a feature."""
FEWEST: Final = 2 * FOLDS
"""Samples of a label below which nothing is said of it."""
HARD: Final = 0.95
"""Area under the curve below which two labels are hard to tell apart."""


class Separation(NamedTuple):
    """How well features tell a new label from another: the area under the curve.

    It is the probability that of two samples, one of each, the new one looks more like a new one:
    1 for labels that are always told apart, 0.5 for chance.
    """

    new: str
    other: str
    area: float

    @property
    def hard(self) -> bool:
        """Whether mistakes are to be expected."""
        return self.area < HARD


def measure_separation(new: str, features: Features, known: Sequence[Features]) -> list[Separation]:
    """Return how well a new label's features are told from each known label's, the worst first.

    `clean` is one of the known labels. Labels with few samples are left out.
    """
    values = _by_label([features, *known])
    if len(values.get(new, ())) < FEWEST:
        return []
    others = [label for label, rows in values.items() if label != new and len(rows) >= FEWEST]
    scores: dict[str, list[tuple[Tensor, Tensor]]] = {label: [] for label in others}
    for fold in range(FOLDS):
        fitted = {label: rows[_places(rows) != fold] for label, rows in values.items() if len(rows) >= FEWEST}
        solve = _within(fitted)
        for label in others:
            direction = torch.linalg.solve(solve, fitted[new].mean(0) - fitted[label].mean(0))
            held_out = (values[name][_places(values[name]) == fold] for name in (new, label))
            ours, theirs = (rows @ direction for rows in held_out)
            scores[label].append((ours, theirs))
    areas = {label: sum(map(_area, *zip(*parts, strict=True))) / FOLDS for label, parts in scores.items()}
    return sorted((Separation(new, label, float(area)) for label, area in areas.items()), key=lambda one: one.area)


def describe_separation(found: Sequence[Separation]) -> str:
    """Return in a line how well one new label is told from the others, and what to do if badly."""
    if not found:
        return ""
    new, hard = found[0].new, [one for one in found if one.hard]
    if not hard:
        return f"{new}: features tell it from each other label (area under the curve at least {found[0].area:.3f})"
    named = ", ".join(f"{one.other} {one.area:.2f}" for one in hard)
    text = f"{new}: features hardly tell it from {named} (area under the curve; 0.5 is chance, {HARD:g} is good)"
    if damaged := [one.other for one in hard if one.other != CLEAN]:
        text += f"; show more of {new} that does not look like {damaged[0]}, or leave {damaged[0]} to its own plugin"
    if any(one.other == CLEAN for one in hard):
        text += f"; let the mildest damage of {new} be stronger, so that it can be seen"
    return text


def _by_label(parts: Sequence[Features]) -> Mapping[str, Tensor]:
    """Return the normalised features (N, F) of the samples that are all of one label, by label."""
    rows: dict[str, list[Tensor]] = {}
    for part in parts:
        normal = F.layer_norm(part.values.float(), part.values.shape[1:])
        for place, label in enumerate(part.labels):
            rows.setdefault(label, []).append(normal[part.targets[:, place] > WHOLE])
    found = {label: torch.cat(parts) for label, parts in rows.items()}
    deviation = torch.cat(list(found.values())).std(0).clamp_min(1e-6)
    return {label: values / deviation for label, values in found.items()}


def _places(rows: Tensor) -> Tensor:
    """Return the part that each sample belongs to."""
    return torch.arange(len(rows)) % FOLDS


def _within(fitted: Mapping[str, Tensor]) -> Tensor:
    """Return the covariance (F, F) within the labels, shrunk towards equal variances."""
    centred = torch.cat([rows - rows.mean(0) for rows in fitted.values()])
    covariance = centred.T @ centred / max(1, len(centred) - len(fitted))
    level = covariance.diagonal().mean()
    return (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(covariance))


def _area(ours: Tensor, theirs: Tensor) -> float:
    """Return the share of pairs in which ours scores higher; ties count half."""
    difference = ours[:, None] - theirs[None]
    return float(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())
