"""Judge a deployment on real photographs, which have no reference: what it sees, and what it harms.

A folder holds `damaged/<kind>`, `tricky/<kind>` (undamaged photos that are easily taken for
damaged) and `bursts/<name>` (frames of one scene). Photos elsewhere are measured, too, but nothing
is expected of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from abair import images
from abair.data.photos import list_photos
from abair.errors import ImageError
from abair.images.photo import Photo
from abair.images.pixels import reduce_to_8_bit
from abair.labels import CLEAN, round_confidence
from abair.metrics import PSNR_CAP, psnr

if TYPE_CHECKING:
    from abair.inference.restorer import Restorer

DAMAGED, TRICKY, BURSTS = "damaged", "tricky", "bursts"
"""The folders of which something is expected."""
LABELS_OF_KINDS: Final = {"night": "low-light"}
"""Kinds of damage whose label has another name."""
PLAIN: Final = frozenset({"wall", "page", "stars", "moon", "card", "cloth"})
"""Kinds of undamaged photos that show next to nothing: whatever appears there was invented."""
CROPPED: Final = 0.05
"""Part of each side that the cropped version lacks."""
EXPOSURE: Final = 1.05
"""Factor of the brighter version."""
SMALL_WEIGHT: Final = 0.1
"""Weight of a label that must not change a photo much."""
BORDERS: Final = {9: 255, 64: 0, 200: 255}
"""Widths in pixels of the borders that a part of a damaged photo is put into, and their levels."""
BORDERED: Final = 256
"""Longest side in pixels of that part, from the photo's middle."""
KEPT_PSNR: Final = 38.0
"""PSNR in dB to the photo as it was, from which on an undamaged one counts as kept."""
KEPT_LEVELS: Final = 10.0
"""And by how many 8-bit levels its mean may have moved."""

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int, str], None]
"""Called with the number of photos done, the number of all, and the name of the last one."""
OnPhoto = Callable[[str, Photo, Pixels, Mapping[str, float]], None]
"""Called with each photo's name, itself, its restored pixels, and the weights."""


class FieldPhoto(BaseModel):
    """One photo, estimated and restored.

    `expected` is the label that it should get; None where the deployment has none for its kind or
    nothing is expected. `flips` says for each harmless change of the photo whether the likeliest
    label changed. Means are of the channels, in 8-bit levels; `psnr` is that of the restored photo
    to the photo as it was. `unknown` is what the deployment says of it; None where it cannot tell.
    `small_weight_shift` is the largest shift of a channel's mean by any label with a weight of 0.1,
    measured on plain kinds. `in_borders` maps a border's width in pixels to the PSNR in dB, inside
    of it, to the same part restored without it, where the damage is of a known kind.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    group: str
    kind: str
    expected: str | None
    weights: dict[str, float]
    flips: dict[str, bool]
    mean_before: tuple[float, float, float]
    mean_after: tuple[float, float, float]
    psnr: float
    unknown: float | None = None
    small_weight_shift: float | None = None
    in_borders: dict[int, float] = {}

    @property
    def top(self) -> str:
        """The label with the largest weight."""
        return max(self.weights, key=self.weights.__getitem__)

    @property
    def shift(self) -> float:
        """The largest shift of a channel's mean, in 8-bit levels."""
        return max(abs(after - before) for before, after in zip(self.mean_before, self.mean_after, strict=True))

    @property
    def kept(self) -> bool:
        """Whether it came back as it was, or nearly."""
        return self.psnr >= PSNR_CAP or (self.psnr >= KEPT_PSNR and self.shift <= KEPT_LEVELS)


class FieldReport(BaseModel):
    """All photos, and what could not be read."""

    model_config = ConfigDict(frozen=True)

    deployment: str
    labels: tuple[str, ...]
    photos: tuple[FieldPhoto, ...]
    problems: tuple[str, ...] = ()

    def of(self, group: str) -> list[FieldPhoto]:
        """Return the photos of a group."""
        return [photo for photo in self.photos if photo.group == group]

    def recognised(self) -> tuple[int, int]:
        """Return how many damaged photos of known kinds got their label, and how many there are."""
        known = [photo for photo in self.of(DAMAGED) if photo.expected is not None]
        return sum(photo.top == photo.expected for photo in known), len(known)

    def kept(self) -> tuple[int, int]:
        """Return how many undamaged photos were kept, and how many there are."""
        undamaged = self.of(TRICKY)
        return sum(photo.kept for photo in undamaged), len(undamaged)

    def flips(self) -> dict[str, float]:
        """Return for each harmless change the share of photos whose likeliest label changed."""
        changes = self.photos[0].flips if self.photos else {}
        return {change: sum(photo.flips[change] for photo in self.photos) / len(self.photos) for change in changes}

    def burst_spreads(self) -> dict[str, float]:
        """Return by how many levels each burst's means spread beyond those of its frames."""
        spreads = {}
        for name in sorted({photo.kind for photo in self.of(BURSTS)}):
            frames = [photo for photo in self.of(BURSTS) if photo.kind == name]
            before, after = (
                [sum(mean) / 3 for mean in means]
                for means in ([one.mean_before for one in frames], [one.mean_after for one in frames])
            )
            spreads[name] = max(0.0, (max(after) - min(after)) - (max(before) - min(before)))
        return spreads

    def unknown_auroc(self) -> float | None:
        """Return how well damage without a label is told from all other photos, in [0, 1].

        This is the area under the receiver operating characteristic of `unknown`: the probability
        that a photo of the one is above one of the other; 0.5 is no better than chance. None
        without either, or where the deployment cannot tell.
        """
        judged = [(photo, photo.unknown) for photo in self.photos if photo.unknown is not None]
        strange = [said for photo, said in judged if photo.group == DAMAGED and photo.expected is None]
        known = [said for photo, said in judged if photo.expected is not None]
        return area_above(strange, known)

    def in_borders(self) -> dict[int, tuple[float, float]]:
        """Return for each border's width the mean PSNR inside of it, in dB, and the least."""
        found = [photo.in_borders for photo in self.photos if photo.in_borders]
        by_width = {width: [one[width] for one in found] for width in (found[0] if found else ())}
        return {width: (sum(values) / len(values), min(values)) for width, values in by_width.items()}

    def largest_shift(self) -> float | None:
        """Return the largest shift of a channel's mean among plain photos, in levels."""
        return max((photo.shift for photo in self.of(TRICKY) if photo.kind in PLAIN), default=None)

    def small_weight_shift(self) -> float | None:
        """Return the largest shift of a channel's mean by a weight of 0.1, in levels."""
        return max((one.small_weight_shift for one in self.photos if one.small_weight_shift is not None), default=None)


def area_above(higher: Sequence[float], lower: Sequence[float]) -> float | None:
    """Return how often one of `higher` is above one of `lower`, equal ones counted by half.

    None if one of them is empty.
    """
    if not higher or not lower:
        return None
    above = np.subtract.outer(np.array(higher), np.array(lower))
    return float((above > 0).mean() + (above == 0).mean() / 2)


def judge(
    restorer: Restorer,
    folder: Path,
    paths: Sequence[Path],
    *,
    progress: Progress | None = None,
    on_photo: OnPhoto | None = None,
) -> FieldReport:
    """Estimate and restore the photos at `paths` below a folder.

    Raises:
        ImageError: no photo can be used.
    """
    photos, problems = [], []
    for done, path in enumerate(paths, 1):
        name = path.relative_to(folder).as_posix()
        try:
            photo = images.read(path)
        except ImageError as error:
            problems.append(str(error))
        else:
            judged, restored = _judge_photo(restorer, name, _in_8_bits(photo.pixels))
            photos.append(judged)
            if on_photo:
                on_photo(name, photo, restored, judged.weights)
        if progress:
            progress(done, len(paths), name)
    if not photos:
        raise ImageError(f"{folder}: no photo could be used; " + "; ".join(problems))
    return FieldReport(
        deployment=restorer.deployment.name,
        labels=tuple(restorer.labels),
        photos=tuple(photos),
        problems=tuple(problems),
    )


def choose_photos(folder: Path, limit: int | None = None) -> list[Path]:
    """Return the photo files below a folder, sorted, at most `limit` of each folder.

    Raises:
        ImageError: there are none, or the folder does not exist.
    """
    found = list_photos(folder)
    if not found:
        raise ImageError(
            f"{folder}: found no photos, expected {', '.join(sorted(images.SUFFIXES))} files, best in "
            f"{DAMAGED}/KIND, {TRICKY}/KIND and {BURSTS}/NAME; name another folder with --data"
        )
    kinds: dict[Path, list[Path]] = {}
    for path in found:
        kinds.setdefault(path.parent, []).append(path)
    return [path for of_kind in kinds.values() for path in of_kind[:limit]]


def _judge_photo(restorer: Restorer, name: str, pixels: Pixels) -> tuple[FieldPhoto, Pixels]:
    group, kind = _group_of(name)
    weights, _, unknown = restorer.judge(pixels)
    estimated = {label: float(weight) for label, weight in weights.items()}
    restored = np.asarray(restorer(pixels).image)
    top = max(estimated, key=estimated.__getitem__)
    flips = {}
    for change, changed in _harmless_changes(pixels):
        again = restorer.estimate(changed)
        flips[change] = max(again, key=again.__getitem__) != top
    small = None
    if group == TRICKY and kind in PLAIN:
        small = max(
            _shift(pixels, np.asarray(restorer(pixels, weights={label: SMALL_WEIGHT}).image))
            for label in restorer.labels
            if label != CLEAN
        )
    expected = _expected(group, kind, restorer.labels)
    judged = FieldPhoto(
        file=name,
        group=group,
        kind=kind,
        expected=expected,
        weights={label: round(weight, 4) for label, weight in estimated.items()},
        flips=flips,
        mean_before=_means(pixels),
        mean_after=_means(restored),
        psnr=psnr(restored / np.float32(255), pixels / np.float32(255)),
        unknown=round_confidence(unknown),
        small_weight_shift=small,
        in_borders=_judge_borders(restorer, pixels) if group == DAMAGED and expected is not None else {},
    )
    return judged, restored


def _judge_borders(restorer: Restorer, pixels: Pixels) -> dict[int, float]:
    """Return by a border's width how alike a part comes back inside of it and without it, in dB."""
    rows, columns = (slice(max(0, side - BORDERED) // 2, None) for side in pixels.shape[:2])
    part = np.ascontiguousarray(pixels[rows, columns][:BORDERED, :BORDERED])
    alone = np.asarray(restorer(part).image) / np.float32(255)
    found = {}
    for width, level in BORDERS.items():
        framed = np.pad(part, ((width, width), (width, width), (0, 0)), constant_values=level)
        inside = np.asarray(restorer(framed).image)[width:-width, width:-width]
        found[width] = round(psnr(inside / np.float32(255), alone), 2)
    return found


def _harmless_changes(pixels: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Yield versions of a photo that show the same scene with the same damage."""
    yield "mirror", np.ascontiguousarray(pixels[:, ::-1])
    yield "quarter turn", np.ascontiguousarray(np.rot90(pixels))
    top, left = (round(side * CROPPED / 2) for side in pixels.shape[:2])
    yield "5 % crop", pixels[top : pixels.shape[0] - top, left : pixels.shape[1] - left]
    yield "5 % exposure", np.rint(np.clip(pixels * EXPOSURE, 0, 255)).astype(np.uint8)


def _group_of(name: str) -> tuple[str, str]:
    """Return the group and kind of a photo by its path.

    Where nothing is expected, these are "" and the photo's folder.
    """
    *folders, _ = name.split("/")
    if len(folders) >= 2 and folders[0] in {DAMAGED, TRICKY, BURSTS}:
        return folders[0], folders[1]
    return "", "/".join(folders)


def _expected(group: str, kind: str, labels: Sequence[str]) -> str | None:
    if group == TRICKY:
        return CLEAN
    label = LABELS_OF_KINDS.get(kind, kind)
    return label if group == DAMAGED and label in labels else None


def _in_8_bits(pixels: NDArray[Any]) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else reduce_to_8_bit(pixels)


def _means(pixels: Pixels) -> tuple[float, float, float]:
    red, green, blue = (round(float(mean), 2) for mean in pixels.mean((0, 1)))
    return red, green, blue


def _shift(before: Pixels, after: Pixels) -> float:
    return round(float(np.abs(after.mean((0, 1)) - before.mean((0, 1))).max()), 2)
