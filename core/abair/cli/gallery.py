"""A gallery of photos before and after: one HTML file that needs no other."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from abair.cli.console import Reporter
from abair.files import atomic_write
from abair.serving import STATIC
from abair.text import one_line

if TYPE_CHECKING:
    import numpy as np

    from abair.images import Photo

TEMPLATES: Final = Path(__file__).parent / "templates"
LONGEST_SIDE: Final = 1200
"""In pixels: larger photos are reduced on the page."""
JPEG_QUALITY: Final = 92
"""High, because the page must not add artifacts of its own."""
SMALLEST_SHOWN_WEIGHT: Final = 0.005


class Gallery:
    """A page that is written photo by photo and keeps none of them in memory."""

    def __init__(self, render_photo: Callable[..., str], write: Callable[[str], object]) -> None:
        self._render_photo = render_photo
        self._write = write

    def add(self, name: str, photo: Photo, restored: np.ndarray, weights: Mapping[str, float]) -> None:
        """Add a photo with its restored pixels and the weights that restored it.

        Raises:
            OSError: the page cannot be written.
        """
        largest = sorted(((w, label) for label, w in weights.items() if w >= SMALLEST_SHOWN_WEIGHT), reverse=True)
        self._write(
            self._render_photo(
                name=one_line(name),
                before=_jpeg(photo.pixels, photo.icc_profile),
                after=_jpeg(restored, photo.icc_profile),
                weights=[(label, weight) for weight, label in largest],
                scale=min(1.0, LONGEST_SIDE / max(restored.shape)),
            )
        )


@contextmanager
def open_gallery(path: Path) -> Iterator[Gallery]:
    """Yield a page to add photos to; it gets its name when it is complete.

    Raises:
        OSError: the page cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    template: Any = environment.get_template("gallery.html.jinja").module
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.write(template.head((STATIC / "compare.js").read_text(encoding="utf-8")))
        yield Gallery(template.photo, file.write)
        file.write(template.foot())


def say_that_none_is_written(path: Path | None, reporter: Reporter) -> None:
    """Say that there is nothing to show on the page that was asked for, if one was."""
    if path is not None:
        reporter.log(f"nothing is restored, so {path} is not written")


def check_page(path: Path | None, out: str | None, *, overwrite: bool, dry_run: bool) -> None:
    """Check that the page, if there is one, can be written, before any photo is restored.

    Raises:
        typer.BadParameter: the name does not end in .html, the file exists, its folder is not
            writable, or it is a dry run.
    """
    if path is None:
        return
    problem = ""
    if dry_run:
        problem = "cannot be used with --dry-run, which restores nothing to show"
    elif path.suffix.lower() not in {".html", ".htm"}:
        problem = f"found {path}, expected a name that ends in .html"
    elif out is not None and os.path.abspath(path) == os.path.abspath(out):
        problem = f"found {path}, which is also the output of the photos (-o); expected another name"
    elif path.is_dir():
        problem = f"found the folder {path}, expected the name of a file"
    elif path.exists() and not overwrite:
        problem = f"{path} exists; choose another name, or use --overwrite to replace it"
    else:
        # the output's folder may not exist yet; it is made
        folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            problem = f"{path}: {folder} cannot be written to; choose another folder"
    if problem:
        raise typer.BadParameter(problem, param_hint="--page")


def _jpeg(pixels: np.ndarray, profile: bytes | None) -> str:
    """Return pixels (H, W) or (H, W, 3), 8 or 16 bits, as a JPEG file in Base64."""
    from PIL import Image

    picture: Any = Image.fromarray(pixels if pixels.dtype.itemsize == 1 else (pixels >> 8).astype("uint8"))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=JPEG_QUALITY, subsampling="4:4:4", icc_profile=profile)
    return base64.b64encode(file.getvalue()).decode("ascii")
