"""The main job on photos that come with the dependencies: damage them, restore them blind, measure, show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from abair.data.sample_photos import sample_photos
from abair.errors import ImageError
from abair.evaluation.benchmark import HEADINGS, Progress, QualityReport, evaluate, score_text
from abair.evaluation.datasets.find import EvaluationSet, Item, degrade, picture_seed
from abair.evaluation.policies import POLICIES, ImageResult, Policy
from abair.evaluation.reports.contact_sheet import Half, SheetRow, before_after, contact_sheet
from abair.files import atomic_write

if TYPE_CHECKING:
    from abair.data.synthesizers import Synthesizer
    from abair.inference.restorer import Restorer

PHOTOS: Final[dict[str, tuple[float, float]]] = {
    "astronaut": (0.45, 0.3),
    "cat": (0.5, 0.45),
    "coffee": (0.5, 0.5),
    "motorcycle": (0.5, 0.5),
}
"""The photos of the demo, and the point that the contact sheet's cells are cut around."""

LARGEST_SIDE: Final = 384
"""Photos are reduced to this many pixels a side, so that the demo takes under a minute on two cores."""

MIXTURES: Final = (("blur", "noise"), ("haze", "low-light"))
FILES: Final = ("contact.png", "before-after.png", "table.md", "results.json")


def run_demo(
    restorer: Restorer,
    synthesizers: Mapping[str, Synthesizer],
    out: Path,
    *,
    photos: Mapping[str, NDArray[np.uint8]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> QualityReport:
    """Damage `photos` (default: `PHOTOS`) by every synthesiser and by two mixtures, restore them blind, write `FILES`.

    `out` is made; files of the same names in it are replaced. Another `seed` gives other damage.

    Raises:
        MissingExtraError: scikit-image, which brings the photos and SSIM, is not installed.
        ImageError: there is nothing to damage or no synthesiser to do it, or `out` cannot be written.
    """
    if not synthesizers:
        raise ImageError("demo: found no usable degradation; install a plugin, for example pip install abair-noise")
    if photos is None:
        everything = sample_photos()
        photos = {name: everything[name] for name in PHOTOS}
    reduced = {name: _reduced(photo) for name, photo in photos.items()}
    if not reduced:
        raise ImageError("demo: found no photos, expected at least one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{out}: cannot be made ({error.strerror or error}); choose another --out") from None
    chains: list[tuple[str, ...]] = [(name,) for name in synthesizers]
    chains += [pair for pair in MIXTURES if set(pair) <= set(synthesizers)]
    sets = [_set(chain, synthesizers, reduced, seed, restorer.labels) for chain in chains]
    # the sheet has one row a degradation and goes through the photos in turn
    wanted = {found.key: tuple(reduced)[index % len(reduced)] for index, found in enumerate(sets)}
    rows: list[SheetRow] = []

    def keep(
        found: EvaluationSet, item: Item, result: ImageResult, pictures: Mapping[Policy, NDArray[np.float32]]
    ) -> None:
        if wanted[found.key] == item.name:
            focus = PHOTOS.get(item.name, (0.5, 0.5))
            rows.append(SheetRow(found.title, item.name, item.clean, pictures, result, found.labels, focus))

    report = evaluate(restorer, sets, progress=progress, pictures=keep)
    _save(contact_sheet(rows, restorer.labels), out / "contact.png")
    halves = [Half(row.title, row.pictures["input"], row.pictures["SW"], row.focus) for row in _telling(rows)]
    _save(before_after(halves), out / "before-after.png")
    report.write(out, "\n" + photo_table(report))
    return report


def photo_table(report: QualityReport) -> str:
    """Every photo and degradation in a Markdown table of its own."""
    lines = ["Every photo (PSNR in dB / SSIM)", "", "| photo | degradation | " + " | ".join(HEADINGS.values()) + " |"]
    lines.append("|---|---|" + "---:|" * len(POLICIES))
    for found in report.sets:
        for image in found.images:
            cells = " | ".join(score_text(image.scores.get(policy)) for policy in POLICIES)
            lines.append(f"| {image.name} | {found.title} | {cells} |")
    return "\n".join(lines) + "\n"


def _set(
    chain: tuple[str, ...],
    synthesizers: Mapping[str, Synthesizer],
    photos: Mapping[str, NDArray[np.float32]],
    seed: int,
    known: Sequence[str],
) -> EvaluationSet:
    key, title = "+".join(chain), " + ".join(chain)

    def load(name: str) -> Item:
        generator = picture_seed("demo", str(seed), key, name)
        return Item(name, degrade(photos[name], [synthesizers[label] for label in chain], generator), photos[name])

    note = f"the synthesiser{'s' * (len(chain) > 1)} of {' then '.join(chain)}, seed {seed}, rounded to 8 bits"
    if not set(chain) <= set(known):
        title += " (not added)"  # installed, but the deployment does not know it
    return EvaluationSet(key, title, chain, note, tuple(photos), load)


def _reduced(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    image = Image.fromarray(photo)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _telling(rows: Sequence[SheetRow], count: int = 4) -> list[SheetRow]:
    """Rows for the before/after picture: of single degradations that are known, those that gained the most dB first.

    Each photo comes once, and then those again that are needed to have enough.
    """
    gained = sorted(rows, key=lambda row: row.result.scores["input"].psnr - row.result.scores["SW"].psnr)
    known = [row for row in gained if len(row.truth) == 1 and "Oracle" in row.result.scores]
    chosen = list({row.subtitle: row for row in reversed(known)}.values())[::-1]
    titles = {row.title for row in chosen}
    chosen += [row for row in known if row.title not in titles]
    return chosen[:count] or list(rows[:count])


def _save(picture: Image.Image, path: Path) -> None:
    try:
        with atomic_write(path) as aside:
            picture.save(aside, optimize=True)
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from None
