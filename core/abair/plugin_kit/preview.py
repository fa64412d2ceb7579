"""A contact sheet of what a synthesiser does: photos beside degraded versions, mild to strong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from abair.discovery import Found
from abair.errors import MissingExtraError, PluginError
from abair.metrics import psnr, to_8_bit
from abair.text import describe_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from abair.data.synthesizers import Synthesizer

CELL: Final = (256, 192)
"""Width and height of a picture in pixels. Photos are reduced to it before they are degraded, so
that the sheet shows noise and blur at their own scale."""
DRAWS: Final = 4
"""Samples made for each one shown: severity is drawn at random, so a range of it must be searched
for."""
FEWEST: Final = 64
"""Least number of samples made in all, so that the quartiles are meaningful."""

_DPI: Final = 100
_MARGIN, _GAP, _LABEL, _HEAD = 20, 8, 24, 152
_INK, _FAINT, _BAR = "#1c1e22", "#787d85", "#2e6eb4"

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A degraded photo (H, W, 3) in [0, 1], its seed, and its PSNR to the clean photo in dB."""

    seed: int
    psnr: float
    pixels: Pixels


@dataclass(frozen=True)
class Row:
    """A photo (H, W, 3) in [0, 1], its samples shown, mild ones first, and the PSNR of all."""

    name: str
    clean: Pixels
    samples: tuple[Sample, ...]
    all_psnr: tuple[float, ...]


def preview(
    found: Found,
    synthesizer: Synthesizer,
    photos: Mapping[str, NDArray[np.uint8]],
    count: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> NDArray[np.uint8]:
    """Return the sheet (H, W, 3): one row a photo, with `count` samples.

    `photos` are (H, W, 3) uint8 by name.

    Raises:
        PluginError: the synthesiser raises, or returns no finite tensor of the photo's shape.
        MissingExtraError: matplotlib is not installed.
        ValueError: no photos, or `count` is less than 2.
    """
    if not photos or count < 2:
        raise ValueError(f"sheet: found {len(photos)} photos and {count} samples, expected at least 1 and 2")
    figure_class = _figure_class()  # before the work
    draws = max(DRAWS * count, -(-FEWEST // len(photos)))
    rows = []
    for done, (name, photo) in enumerate(photos.items()):
        clean = np.asarray(ImageOps.fit(Image.fromarray(photo), CELL), np.float32) / np.float32(255)
        seeds = range(done * draws, (done + 1) * draws)  # others for each photo: the quartiles then say more
        samples = [make_sample(found, synthesizer, clean, seed, name) for seed in seeds]
        rows.append(Row(name, clean, select_evenly(samples, count), tuple(sample.psnr for sample in samples)))
        if progress is not None:
            progress(done + 1, len(photos), name)
    return _draw_sheet(figure_class, found, rows)


def make_sample(found: Found, synthesizer: Synthesizer, clean: Pixels, seed: int, name: str) -> Sample:
    """Degrade the photo `clean` (H, W, 3), rounded to 8 bits; errors name the photo by `name`.

    Raises:
        PluginError: the synthesiser raises, or returns something other than a finite tensor (3, H,
            W).
    """
    photo = torch.from_numpy(clean.transpose(2, 0, 1).copy())  # (3, H, W)
    generator = torch.Generator().manual_seed(seed)
    degradation = found.degradation
    about = f"plugin {degradation.name} (distribution {found.distribution}): {degradation.synthesizer}"
    mend = f"mend it; its contract tests say more (photo {name}, seed {seed})"
    try:
        result: Any = synthesizer(photo.clone(), generator)  # whatever a plugin returns
    except (Exception, SystemExit) as error:
        raise PluginError(f"{about} failed: {describe_error(error)}; {mend}") from error
    if not isinstance(result, torch.Tensor) or result.shape != photo.shape or not bool(result.isfinite().all()):
        form = f"shape {tuple(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
        raise PluginError(f"{about} returned {form}, expected finite values of shape {tuple(photo.shape)}; {mend}")
    pixels = to_8_bit(result.detach().cpu().to(torch.float32).numpy().transpose(1, 2, 0))
    return Sample(seed, psnr(pixels, clean), pixels)


def select_evenly(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Select `count` samples spread evenly over the range of PSNR; return the mildest first."""
    left = sorted(samples, key=lambda sample: -sample.psnr)
    chosen = []
    for wanted in np.linspace(left[0].psnr, left[-1].psnr, count):
        nearest = min(left, key=lambda sample: abs(sample.psnr - wanted))
        left.remove(nearest)
        chosen.append(nearest)
    return tuple(sorted(chosen, key=lambda sample: -sample.psnr))


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("preview: matplotlib is not installed; pip install 'abair[bench]'") from None
    return Figure


def _draw_sheet(figure_class: type[Figure], found: Found, rows: Sequence[Row]) -> NDArray[np.uint8]:
    """Draw the rows as one picture (H, W, 3); a photo's pixel is a pixel of the sheet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    columns = 1 + len(rows[0].samples)
    width = 2 * _MARGIN + columns * (CELL[0] + _GAP) - _GAP
    height = _MARGIN + _HEAD + len(rows) * (CELL[1] + _LABEL)
    figure = figure_class(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def write(x: float, y: float, text: str, size: float = 10, colour: str = _INK, align: str = "left") -> None:
        at = (x / width, 1 - y / height)
        figure.text(*at, text, size=size, color=colour, ha=align, va="center", parse_math=False)

    degradation = found.degradation
    values = [value for row in rows for value in row.all_psnr]
    low, middle, high = np.percentile(values, [25, 50, 75])
    title = f"{degradation.title} ({degradation.name}), {found.distribution} {found.version}"
    write(_MARGIN, 28, title, min(16, 1.2 * width / len(title)))  # long names in smaller letters
    write(_MARGIN, 64, f"PSNR of {len(values)} damaged samples: median {middle:.1f} dB,", 10, _FAINT)
    write(_MARGIN, 84, f"half of them {low:.1f} to {high:.1f}, all {min(values):.1f} to {max(values):.1f}", 10, _FAINT)
    _draw_histogram(figure, values, (width - _MARGIN - CELL[0], 46, CELL[0], 54), (width, height))
    last = _MARGIN + (columns - 1) * (CELL[0] + _GAP) + CELL[0]
    write(_MARGIN, _HEAD - 12, "clean")
    write(_MARGIN + CELL[0] + _GAP, _HEAD - 12, "mild")
    write(last, _HEAD - 12, "strong", align="right")
    for number, row in enumerate(rows):
        top = _HEAD + number * (CELL[1] + _LABEL)
        captions = [_shorten(row.name), *(f"seed {sample.seed}: {sample.psnr:.1f} dB" for sample in row.samples)]
        pictures = [row.clean, *(sample.pixels for sample in row.samples)]
        for column, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            x = _MARGIN + column * (CELL[0] + _GAP)
            figure.figimage(picture, x, height - top - CELL[1], origin="upper")
            write(x, top + CELL[1] + _LABEL / 2 - 1, caption, 9, _FAINT)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _draw_histogram(
    figure: Figure, values: Sequence[float], box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    """Draw a histogram of the PSNRs into a box (left, top, width, height) of a sheet, in pixels."""
    left, top, width, height = box
    shares = (left / size[0], 1 - (top + height) / size[1], width / size[0], height / size[1])
    axes: Any = figure.add_axes(shares)
    axes.hist(values, bins=24, color=_BAR)
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=_FAINT)
    axes.xaxis.set_major_formatter("{x:g} dB")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.invert_xaxis()  # mild on the left, as in the rows


def _shorten(name: str) -> str:
    """Return the end of a photo's name that fits below its picture."""
    return name if len(name) <= 34 else f"...{name[-31:]}"
