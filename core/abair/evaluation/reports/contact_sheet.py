"""Pictures of results: the contact sheet, and before/after halves. Drawn with Pillow and its own font alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from abair.evaluation.policies import ImageResult, Policy

CELL: Final = (288, 216)
"""Width and height of a cell in pixels. Cells are cut out at the picture's own scale: reducing hides noise and blur."""

_COLUMNS: Final[tuple[tuple[str, Policy | None], ...]] = (
    ("clean", None),
    ("input", "input"),
    ("bare backbone", "backbone"),
    ("restored, soft weights", "SW"),
    ("restored, oracle", "Oracle"),
)
_PAPER, _INK, _FAINT, _RAIL, _BEST = (255, 255, 255), (28, 30, 34), (120, 125, 133), (232, 234, 238), (17, 122, 75)
_PALETTE: Final = (
    (46, 110, 180),
    (228, 130, 40),
    (60, 150, 95),
    (196, 62, 72),
    (130, 92, 178),
    (140, 100, 80),
    (205, 110, 165),
)
_CLEAN: Final = (150, 155, 163)
_MARGIN, _GAP, _LEFT, _TOP = 16, 6, 178, 30

Pixels = NDArray[np.float32]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class SheetRow:
    """One row of the contact sheet: a picture's versions (H, W, 3) in [0, 1], its result, and what to write beside it.

    `truth` are the true labels, whose bars are inked; the cells are cut around `focus`, (x, y) in [0, 1].
    """

    title: str
    subtitle: str
    clean: Pixels
    pictures: Mapping[Policy, Pixels]
    result: ImageResult
    truth: tuple[str, ...] = ()
    focus: tuple[float, float] = (0.5, 0.5)


def contact_sheet(rows: Sequence[SheetRow], labels: Sequence[str], *, cell: tuple[int, int] = CELL) -> Image.Image:
    """A sheet with one row a picture: clean, input, bare backbone, soft weights, Oracle, each with its PSNR.

    On the left stand the damage, the photo, and the estimator's weights as bars over `labels`. The best PSNR of
    the restored versions is green.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("contact sheet: found no rows, expected at least one")
    width = 2 * _MARGIN + _LEFT + len(_COLUMNS) * (cell[0] + _GAP) - _GAP
    height = 2 * _MARGIN + _TOP + len(rows) * (cell[1] + _GAP) - _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (heading, _) in enumerate(_COLUMNS):
        x = _MARGIN + _LEFT + column * (cell[0] + _GAP)
        draw.text((x + 1, _MARGIN + 2), heading, fill=_INK, font=_font(16))
    colours = _colours(labels)
    for index, row in enumerate(rows):
        y = _MARGIN + _TOP + index * (cell[1] + _GAP)
        _row_head(draw, row, colours, y, cell[1])
        restored = {policy: row.result.scores[policy].psnr for policy in ("backbone", "SW", "Oracle")
                    if policy in row.result.scores}  # fmt: skip
        best = max(restored.values(), default=0.0)
        for column, (_, policy) in enumerate(_COLUMNS):
            box = (_MARGIN + _LEFT + column * (cell[0] + _GAP), y)
            if policy is not None and policy not in row.pictures:
                draw.rectangle((*box, box[0] + cell[0] - 1, box[1] + cell[1] - 1), fill=_RAIL)
                _centred(draw, "no adapter", (box[0] + cell[0] // 2, box[1] + cell[1] // 2), _FAINT)
                continue
            sheet.paste(_cell(row.clean if policy is None else row.pictures[policy], cell, row.focus), box)
            if policy is not None:
                score = row.result.scores[policy].psnr
                chip = _BEST if policy != "input" and round(score, 1) == round(best, 1) else _INK
                _chip(draw, f"{score:.1f} dB", (box[0] + cell[0] - 6, box[1] + cell[1] - 6), chip)
    return sheet


@dataclass(frozen=True)
class Half:
    """A picture before and after (H, W, 3) in [0, 1], with a caption."""

    caption: str
    before: Pixels
    after: Pixels
    focus: tuple[float, float] = (0.5, 0.5)


def before_after(halves: Sequence[Half], *, panel: tuple[int, int] = (300, 300), columns: int = 4) -> Image.Image:
    """Panels side by side, each cut by a slanting line: on the left as it came in, on the right restored.

    Raises:
        ValueError: no panels.
    """
    if not halves:
        raise ValueError("before/after picture: found no panels, expected at least one")
    across = min(columns, len(halves))
    down = -(-len(halves) // across)
    foot = 26
    size = (across * (panel[0] + _GAP) - _GAP, down * (panel[1] + foot + _GAP) - _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    mask, line = _slant(panel)
    for index, half in enumerate(halves):
        x = index % across * (panel[0] + _GAP)
        y = index // across * (panel[1] + foot + _GAP)
        picture = Image.composite(_cell(half.before, panel, half.focus), _cell(half.after, panel, half.focus), mask)
        picture.paste(_PAPER, (0, 0), line)
        sheet.paste(picture, (x, y))
        _chip(draw, "before", (x + 8, y + 8), _INK, corner="lt")
        _chip(draw, "after", (x + panel[0] - 8, y + panel[1] - 8), _INK)
        draw.text((x + 1, y + panel[1] + 5), half.caption, fill=_INK, font=_font(15))
    return sheet


def _row_head(
    draw: ImageDraw.ImageDraw, row: SheetRow, colours: Mapping[str, tuple[int, int, int]], y: int, room: int
) -> None:
    """Title, photo, and one bar a label; the estimator's most likely labels if there is no room for all."""
    width = _LEFT - 18
    title = _fitted(row.title, 17, width)
    draw.text((_MARGIN, y - 2), row.title, fill=_INK, font=title)
    draw.text((_MARGIN, y + 21), row.subtitle, fill=_FAINT, font=_fitted(row.subtitle, 13, width))
    step = 21
    most = max(1, (room - 58) // step)
    shown = [label for label in colours if label in row.result.weights]
    if len(shown) > most:
        kept = sorted(shown, key=lambda label: -row.result.weights[label])[:most]
        shown = [label for label in shown if label in kept]
    draw.text((_MARGIN, y + 48), "estimated weights", fill=_FAINT, font=_font(11))
    bar_left, bar_right = _MARGIN + 68, _MARGIN + width - 30
    for index, label in enumerate(shown):
        top = y + 66 + index * step
        weight = row.result.weights[label]
        ink = _INK if label in row.truth else _FAINT
        draw.text((_MARGIN, top - 2), label, fill=ink, font=_fitted(label, 13, 64))
        draw.rounded_rectangle((bar_left, top + 1, bar_right, top + 11), 3, fill=_RAIL)
        length = round(weight * (bar_right - bar_left))
        if length >= 2:
            bar = (bar_left, top + 1, bar_left + length, top + 11)
            draw.rounded_rectangle(bar, min(3, length // 2), fill=colours[label])
        draw.text((bar_right + 5, top - 1), f"{weight:.2f}", fill=ink, font=_font(12))


def _cell(picture: Pixels, cell: tuple[int, int], focus: tuple[float, float]) -> Image.Image:
    """Cut a cell out around the focus at the picture's own scale; a smaller picture is enlarged until it fills it."""
    image = Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))
    factor = max(cell[0] / image.width, cell[1] / image.height)
    if factor > 1:
        size = (max(cell[0], round(image.width * factor)), max(cell[1], round(image.height * factor)))
        image = image.resize(size, Image.Resampling.BICUBIC)
    left = round(min(max(focus[0] * image.width - cell[0] / 2, 0), image.width - cell[0]))
    top = round(min(max(focus[1] * image.height - cell[1] / 2, 0), image.height - cell[1]))
    return image.crop((left, top, left + cell[0], top + cell[1]))


def _slant(panel: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Masks of the left part and of the line, drawn four times as large so that their edges are soft."""
    scale = 4
    width, height = panel[0] * scale, panel[1] * scale
    top, bottom = (0.62 * width, 0), (0.38 * width, height)
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).polygon([(0, 0), top, bottom, (0, height)], fill=255)
    line = Image.new("L", (width, height), 0)
    ImageDraw.Draw(line).line([top, bottom], fill=255, width=3 * scale)
    return mask.resize(panel, Image.Resampling.BOX), line.resize(panel, Image.Resampling.BOX)


def _chip(
    draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], colour: tuple[int, int, int], corner: str = "rb"
) -> None:
    """White text on a rounded plate whose right bottom (`rb`) or left top (`lt`) corner is `at`."""
    font = _font(14)
    _, top, width, bottom = draw.textbbox((0, 0), text, font=font)
    plate = (round(width) + 12, round(bottom - top) + 10)
    x, y = at if corner == "lt" else (at[0] - plate[0], at[1] - plate[1])
    draw.rounded_rectangle((x, y, x + plate[0], y + plate[1]), 5, fill=colour)
    draw.text((x + 6, y + 5 - top), text, fill=_PAPER, font=font)


def _centred(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    font = _font(14)
    draw.text((at[0] - draw.textlength(text, font=font) / 2, at[1] - 8), text, fill=colour, font=font)


def _colours(labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    degradations = [label for label in labels if label != "clean"]
    colours = {label: _PALETTE[i % len(_PALETTE)] for i, label in enumerate(degradations)}
    return {label: colours.get(label, _CLEAN) for label in labels}


def _fitted(text: str, size: int, width: float) -> Font:
    """The font at `size`, or as much smaller as the text needs to fit into `width` pixels."""
    while size > 8 and _font(size).getlength(text) > width:
        size -= 1
    return _font(size)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
