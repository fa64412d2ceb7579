"""The demo: sample photos are damaged, restored blind, measured and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from abair.data.sample_photos import sample_photos
from abair.errors import ImageError
from abair.evaluation.benchmark import Progress, evaluate
from abair.evaluation.datasets.items import EvaluationSet, Item, degrade, picture_generator
from abair.evaluation.policies import ImageResult, Policy
from abair.evaluation.reports.contact_sheet import Comparison, SheetRow, before_after, contact_sheet
from abair.evaluation.reports.drawing import require_matplotlib
from abair.evaluation.reports.markdown import photo_table
from abair.evaluation.reports.write import write_results
from abair.evaluation.results import QualityReport
from abair.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from abair.data.synthesizers import Synthesizer
    from abair.inference.restorer import Restorer

PHOTOS: Final[dict[str, tuple[float, float]]] = {
    "astronaut": (0.45, 0.3),
    "cat": (0.5, 0.45),
    "coffee": (0.5, 0.5),
    "motorcycle": (0.5, 0.5),
}
"""The photos of the demo, and the centre (x, y) in [0, 1] of their crops on the contact sheet."""

LONGEST_SIDE: Final = 384
"""In pixels: photos are reduced, so that the demo takes under a minute on two cores."""

MIXTURES: Final = (("blur", "noise"), ("haze", "low-light"))
FILES: Final = ("contact.png", "before-after.png", "table.md", "results.json")


def run_demo(
    restorer: Restorer,
    synthesizers: Mapping[str, Synthesizer],
    out: Path,
    *,
    photos: Mapping[str, NDArray[np.uint8]] | None = None,
    seed: int = 0,
    weights_sha256: str | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Damage photos by each synthesiser and by two mixtures, restore them blind, write `FILES`.

    `photos` (H, W, 3) are the sample photos of `PHOTOS` by default. Another `seed` gives other
    damage. `weights_sha256` is recorded in the report. Makes the folder `out`; files of the same
    names in it are replaced.

    Raises:
        MissingExtraError: matplotlib, scikit-image or another package with photos is missing.
        ImageError: there are no photos or no synthesisers, or `out` cannot be written.
    """
    if not synthesizers:
        raise ImageError(
            "demo: found no usable degradation; install a plugin, as from a checkout: pip install ./plugins/abair-noise"
        )
    require_matplotlib("demo")
    if photos is None:
        samples = sample_photos()
        photos = {name: samples[name] for name in PHOTOS}
    reduced = {name: _reduce(photo) for name, photo in photos.items()}
    if not reduced:
        raise ImageError("demo: found no photos, expected at least one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{out}: cannot be made ({error.strerror or error}); choose another --out") from None
    chains: list[tuple[str, ...]] = [(name,) for name in synthesizers]
    chains += [mixture for mixture in MIXTURES if set(mixture) <= set(synthesizers)]
    sets = [_make_set(chain, synthesizers, reduced, seed, restorer.labels) for chain in chains]
    # the contact sheet has one row per degradation and goes through the photos in turn
    photo_of = {one.key: tuple(reduced)[index % len(reduced)] for index, one in enumerate(sets)}
    rows: list[SheetRow] = []

    def keep_row(
        one: EvaluationSet, item: Item, result: ImageResult, pictures: Mapping[Policy, NDArray[np.float32]]
    ) -> None:
        if photo_of[one.key] == item.name:
            focus = PHOTOS.get(item.name, (0.5, 0.5))
            rows.append(SheetRow(one.title, item.name, item.clean, pictures, result, one.labels, focus))

    report = evaluate(restorer, sets, weights_sha256=weights_sha256, progress=progress, on_picture=keep_row)
    comparisons = [
        Comparison(row.title, row.pictures["input"], row.pictures["SW"], row.focus) for row in choose_rows(rows)
    ]
    _save(contact_sheet(rows, restorer.labels), out / "contact.png")
    _save(before_after(comparisons), out / "before-after.png")
    write_results(report, out, "\n" + photo_table(report))
    return report


def choose_rows(rows: Sequence[SheetRow], count: int = 4) -> list[SheetRow]:
    """Choose rows for the before/after picture: known single degradations with the largest gains.

    Each photo comes once before any comes again. If there is no such row, the first `count` rows.
    """
    by_gain = sorted(rows, key=lambda row: row.result.scores["input"].psnr - row.result.scores["SW"].psnr)
    known = [row for row in by_gain if len(row.truth) == 1 and "Oracle" in row.result.scores]
    best_of_photo = list({row.subtitle: row for row in reversed(known)}.values())[::-1]
    titles = {row.title for row in best_of_photo}
    chosen = best_of_photo + [row for row in known if row.title not in titles]
    return chosen[:count] or list(rows[:count])


def _make_set(
    chain: tuple[str, ...],
    synthesizers: Mapping[str, Synthesizer],
    photos: Mapping[str, NDArray[np.float32]],
    seed: int,
    known: Sequence[str],
) -> EvaluationSet:
    key, title = "+".join(chain), " + ".join(chain)

    def load(name: str) -> Item:
        generator = picture_generator("demo", str(seed), key, name)
        return Item(name, degrade(photos[name], [synthesizers[label] for label in chain], generator), photos[name])

    note = f"the synthesiser{'s' * (len(chain) > 1)} of {' then '.join(chain)}, seed {seed}, rounded to 8 bits"
    if not set(chain) <= set(known):
        title += " (not added)"  # installed, but no part of the deployment
    return EvaluationSet(key, title, chain, note, tuple(photos), load)


def _reduce(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    image = Image.fromarray(photo)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _save(figure: Figure, path: Path) -> None:
    try:
        with atomic_write(path) as aside:
            figure.savefig(aside, dpi="figure", pil_kwargs={"optimize": True})
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from None
