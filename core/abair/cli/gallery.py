"""A page of photos before and after, to look at critically: one HTML file that needs no other."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import typer

from abair.files import atomic_write
from abair.text import one_line

if TYPE_CHECKING:
    import numpy as np

    from abair.images import Photo

LONGEST: Final = 1200
"""Longest side of a picture on the page in pixels; larger photos are reduced."""
QUALITY: Final = 92
"""Of its JPEG: the page shall not add what one looks for."""
LEAST: Final = 0.005
"""Weights below it are not told."""

_HEAD: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ABAIR: before and after</title>
<style>
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif; color: #1c1e22 }
figure { margin: 0 0 3rem; width: fit-content; max-width: 100%; --at: 50% }
.pair { display: grid; overflow: hidden }
.pair img { grid-area: 1 / 1; max-width: 100%; display: block }
.pair img + img { clip-path: inset(0 0 0 var(--at)) }
.pair::after { content: ""; grid-area: 1 / 1; width: 2px; margin-left: var(--at) }
.pair::after { background: #fff; mix-blend-mode: difference }
input { width: 100%; margin: .6rem 0 }
figcaption { color: #555c66 } b { color: #1c1e22 }
</style></head><body>
<h1>Before and after</h1>
<p>Left of the line the photo as it came, right of it restored. Move the slider.</p>
"""
_FIGURE: Final = """<figure><div class="pair">
<img alt="before" src="data:image/jpeg;base64,{before}">
<img alt="after" src="data:image/jpeg;base64,{after}">
</div><input type="range" aria-label="where the line is" value="50"
oninput="this.parentElement.style.setProperty('--at', this.value + '%')">
<figcaption><b>{name}</b>: {told}</figcaption></figure>
"""


class Page:
    """The page while it is written: a photo after the other, none of which is kept in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, name: str, photo: Photo, after: np.ndarray, weights: Mapping[str, float]) -> None:
        """A photo, its pixels restored, and by which weights. Raises OSError."""
        largest = sorted(((weight, label) for label, weight in weights.items() if weight >= LEAST), reverse=True)
        told = [", ".join(f"{label} {weight:.2f}" for weight, label in largest) or "no adapter"]
        if max(after.shape) > LONGEST:
            told.append(f"shown at {LONGEST / max(after.shape):.0%} of its size")
        pictures = {"before": _jpeg(photo.pixels, photo.icc_profile), "after": _jpeg(after, photo.icc_profile)}
        self._file.write(_FIGURE.format(**pictures, name=escape(one_line(name)), told=escape("; ".join(told))))


@contextmanager
def opened(path: Path) -> Iterator[Page]:
    """A page that takes its name when it is whole. Raises OSError."""
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.write(_HEAD)
        yield Page(file)
        file.write("</body></html>\n")


def check(path: Path, out: str, *, overwrite: bool) -> None:
    """Whether the page can be written, asked before the photos are restored.

    Raises:
        typer.BadParameter: it is no HTML file by its name, is there already, or its folder cannot be written to.
    """
    problem = ""
    if path.suffix.lower() not in (".html", ".htm"):
        problem = f"found {path}, expected a name that ends in .html"
    elif os.path.abspath(path) == os.path.abspath(out):
        problem = f"found {path} for the photos, too, expected another name"
    elif path.is_dir():
        problem = f"found the folder {path}, expected a file's name"
    elif path.exists() and not overwrite:
        problem = f"{path} exists; choose another name, or use --overwrite to replace it"
    else:
        # the output's folder may not be there yet, and then is made
        folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            problem = f"{path}: {folder} cannot be written to; choose another folder"
    if problem:
        raise typer.BadParameter(problem, param_hint="--page")


def _jpeg(pixels: np.ndarray, profile: bytes | None) -> str:
    from PIL import Image

    picture: Any = Image.fromarray(pixels if pixels.dtype.itemsize == 1 else (pixels >> 8).astype("uint8"))
    picture.thumbnail((LONGEST, LONGEST))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY, subsampling="4:4:4", icc_profile=profile)
    return base64.b64encode(file.getvalue()).decode("ascii")
