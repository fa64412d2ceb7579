"""Degradations put on clean photos: singly, as mixtures, or by regions.

Every sample depends on its generator alone (see `abair.data.seeds`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from abair.data.file_artifacts import FileKind, draw_file_artifacts
from abair.data.hard_negatives import hard_negative
from abair.data.seeds import Stream, generator_for
from abair.errors import TrainingError
from abair.labels import CLEAN
from abair.physics import chance, log_uniform, uniform

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer

GAMMAS: Final = (0.55, 1.8)
"""Range of the exponent that brightens or darkens photos, as exposure and editing do."""
LIKELY: Final = 0.5
"""Share of the mixtures that are one of `Recipe.likely_mixtures`, where some are given."""


@dataclass(frozen=True)
class Recipe:
    """Probabilities of the kinds of samples; the rest carry one degradation over the whole image.

    Degradations are equally likely, but those in `sampling_weights` by that factor more.
    """

    cutmix: float = 0.25
    """A rectangle holds another degradation, or none (Degradation CutMix)."""
    mixture: float = 0.13
    """Two degradations, one after the other."""
    clean: float = 0.1
    """No degradation."""
    file_artifacts: float = 0.0
    """Of all samples: stored in a lossy file afterwards, which does not change the labels."""
    gamma: float = 0.0
    """Of all samples: the photo is made brighter or darker first, which is no damage."""
    sampling_weights: tuple[tuple[str, float], ...] = ()
    hard_negatives: float = 0.0
    """Of the clean samples: a scene that is easily taken for damaged instead of the photo."""
    file_degradations: tuple[tuple[FileKind, str], ...] = ()
    """The degradation that a kind of lossy file is, where one is trained on: what was stored so
    afterwards is then a mixture with it."""
    likely_mixtures: tuple[tuple[str, str], ...] = ()
    """Pairs of degradations that photos often have, in the order in which they arise: half of the
    mixtures are one of them."""

    def __str__(self) -> str:
        """Return the text that identifies the recipe in checkpoints and pools of samples.

        It keeps the field names of the first release, so that files written since then still match.
        """
        later = f", hard_negatives={self.hard_negatives!r}" if self.hard_negatives else ""
        later += f", file_degradations={dict(self.file_degradations)!r}" if self.file_degradations else ""
        later += f", likely_mixtures={self.likely_mixtures!r}" if self.likely_mixtures else ""
        return (
            f"Recipe(cutmix={self.cutmix!r}, double={self.mixture!r}, clean={self.clean!r}, "
            f"filed={self.file_artifacts!r}, toned={self.gamma!r}, emphasis={self.sampling_weights!r}{later})"
        )


class SampleKind(StrEnum):
    """How the damage of a sample was put on."""

    CLEAN = "clean"
    """None at all."""
    SINGLE = "single"
    """One degradation over the whole image."""
    MIXTURE = "mixture"
    """Several degradations over the whole image, one after the other."""
    REGIONS = "regions"
    """A rectangle that holds another degradation, or none, than the rest (Degradation CutMix)."""


@dataclass(frozen=True)
class Sample:
    """One training pair (3, H, W) in [0, 1] and how it was made.

    `types` (L, H, W) is each pixel's distribution over the degrader's labels. `labels` are those
    that occur, each once, in the order of the damage: `clean` alone for an undamaged sample, the
    rectangle's last for regions. An undamaged photo in a lossy file that is a degradation has both.
    """

    degraded: Tensor
    clean: Tensor
    types: Tensor
    labels: tuple[str, ...]
    kind: SampleKind


class Degrader:
    """Applies degradations to clean photos.

    `labels` are the degradations' names in the order given and, last, `clean`. This is the order of
    a sample's `types`.

    Raises:
        TrainingError: There are no synthesisers, or the recipe names an unknown degradation or
            weights one by a factor that is not positive.
    """

    def __init__(self, synthesizers: Mapping[str, Synthesizer], recipe: Recipe | None = None) -> None:
        if not synthesizers:
            raise TrainingError(
                "no degradations: found no usable plugin; install one, as from a checkout: pip install "
                "./plugins/abair-noise"
            )
        self.synthesizers = dict(synthesizers)
        self.labels = (*self.synthesizers, CLEAN)
        self.recipe = recipe or Recipe()
        for _, name in self.recipe.file_degradations:
            if name not in self.synthesizers:
                raise TrainingError(
                    f"file_degradations: found {name}, expected one of the degradations that are trained on: "
                    f"{', '.join(synthesizers)}"
                )
        for pair in self.recipe.likely_mixtures:
            if len({*pair} & {*synthesizers}) < 2:
                raise TrainingError(
                    f"likely_mixtures: found {' and '.join(pair)}, expected two different degradations of those that "
                    f"are trained on: {', '.join(synthesizers)}"
                )
        for name, weight in self.recipe.sampling_weights:
            if name not in self.synthesizers or not 0 < weight < math.inf:
                raise TrainingError(
                    f"sampling_weights: found {name} = {weight}, expected a number above 0 for one of "
                    f"{', '.join(synthesizers)}"
                )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and what the synthesisers make of a small picture."""
        rows, columns = torch.linspace(0, 1, 48)[:, None], torch.linspace(0, 1, 64)[None]
        picture = torch.stack([rows.expand(48, 64), columns.expand(48, 64), rows * columns])
        digest = hashlib.sha256()
        for name, degrade in self.synthesizers.items():
            for seed in range(4):
                damaged = to_8_bit(degrade(picture.clone(), generator_for(seed, Stream.DEGRADER_DIGEST)))
                digest.update(name.encode() + damaged.mul(255).round_().to(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def sample(self, clean: Tensor, generator: torch.Generator) -> Sample:
        """Damage a clean photo (3, H, W) in a way drawn from the recipe."""
        kind = uniform(generator, 0.0, 1.0)
        if self.recipe.gamma and chance(generator, self.recipe.gamma):
            clean = apply_gamma(clean, generator)
        sample = self._draw(clean, generator, kind)
        if self.recipe.file_artifacts and chance(generator, self.recipe.file_artifacts):
            sample = self._store(sample, generator)
        return replace(sample, degraded=to_8_bit(sample.degraded))

    def _store(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Store a sample in a lossy file, which may be a degradation of its own."""
        stored, kind = draw_file_artifacts(sample.degraded, generator)
        name = dict(self.recipe.file_degradations).get(kind)
        if name is None or len(sample.labels) > 1 or name in sample.labels:
            return replace(sample, degraded=stored)
        types = (sample.types + self._types(sample.clean, name)) / 2
        return Sample(stored, sample.clean, types, (*sample.labels, name), SampleKind.MIXTURE)

    def single(self, clean: Tensor, name: str, generator: torch.Generator) -> Sample:
        """Apply one degradation to a clean photo (3, H, W), or none for `clean`."""
        degraded = clean if name == CLEAN else self.synthesizers[name](clean, generator)
        kind = SampleKind.CLEAN if name == CLEAN else SampleKind.SINGLE
        return Sample(to_8_bit(degraded), clean, self._types(clean, name), (name,), kind)

    def mixture(self, clean: Tensor, names: Sequence[str], generator: torch.Generator) -> Sample:
        """Apply several degradations to a clean photo (3, H, W), one after the other."""
        degraded = clean
        for name in names:
            degraded = self.synthesizers[name](degraded, generator)
        types = torch.stack([self._types(clean, name) for name in names]).mean(0)
        return Sample(to_8_bit(degraded), clean, types, tuple(names), SampleKind.MIXTURE)

    def _draw(self, clean: Tensor, generator: torch.Generator, kind: float) -> Sample:
        """Damage a photo in the way that `kind`, uniform in [0, 1), selects."""
        recipe = self.recipe
        names = list(self.synthesizers)
        if kind < recipe.clean:
            if recipe.hard_negatives and chance(generator, recipe.hard_negatives):
                clean = to_8_bit(hard_negative(clean, generator))
            return Sample(clean, clean, self._types(clean, CLEAN), (CLEAN,), SampleKind.CLEAN)
        first, second = self._draw_two(generator)
        if kind < recipe.clean + recipe.mixture and len(names) > 1:
            pair = (names[first], names[second])
            if recipe.likely_mixtures and chance(generator, LIKELY):
                pair = recipe.likely_mixtures[int(torch.randint(len(recipe.likely_mixtures), (), generator=generator))]
            return self.mixture(clean, pair, generator)
        name = names[first]
        degraded, types = self.synthesizers[name](clean, generator), self._types(clean, name)
        if kind < recipe.clean + recipe.mixture + recipe.cutmix:
            other = self.labels[int(torch.randint(len(self.labels), (), generator=generator))]
            patch = clean if other == CLEAN else self.synthesizers[other](clean, generator)
            rows, columns = _draw_rectangle(clean.shape[-2], clean.shape[-1], generator)
            degraded = degraded.clone()
            degraded[:, rows, columns] = patch[:, rows, columns]
            types[:, rows, columns] = self._types(clean, other)[:, rows, columns]
            labels = (name,) if other == name else (name, other)
            return Sample(degraded, clean, types, labels, SampleKind.REGIONS)
        return Sample(degraded, clean, types, (name,), SampleKind.SINGLE)

    def _draw_two(self, generator: torch.Generator) -> tuple[int, int]:
        """Draw the positions of two degradations, different ones if there are two."""
        count = len(self.synthesizers)
        if not self.recipe.sampling_weights:
            order = torch.randperm(count, generator=generator)
        else:
            weights = dict(self.recipe.sampling_weights)
            probabilities = torch.tensor([weights.get(name, 1.0) for name in self.synthesizers])
            order = torch.multinomial(probabilities, min(2, count), generator=generator)
        return int(order[0]), int(order[min(1, count - 1)])

    def _types(self, clean: Tensor, name: str) -> Tensor:
        """Return the types (L, H, W) of an image that is `name` everywhere."""
        types = torch.zeros((len(self.labels), *clean.shape[-2:]))
        types[self.labels.index(name)] = 1.0
        return types


def apply_gamma(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Brighten or darken a photo (3, H, W) in [0, 1] by a random exponent in `GAMMAS`.

    The result has 8-bit values. Users' photos vary in tone more than curated training photos do.
    """
    return to_8_bit(clean ** log_uniform(generator, *GAMMAS))


def to_8_bit(image: Tensor) -> Tensor:
    """Round to the values in [0, 1] that 8-bit files hold, because networks are given files."""
    return image.clamp(0.0, 1.0).mul(255).round_().div_(255)


def _draw_rectangle(height: int, width: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Draw rows and columns of a rectangle, a quarter to three quarters of each side.

    After CutMix (Yun et al., ICCV 2019).
    """
    rows, columns = (max(1, round(side * uniform(generator, 0.25, 0.75))) for side in (height, width))
    top = int(torch.randint(height - rows + 1, (), generator=generator))
    left = int(torch.randint(width - columns + 1, (), generator=generator))
    return slice(top, top + rows), slice(left, left + columns)
