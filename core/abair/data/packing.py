"""Clean photos as one file: to carry them to another machine, such as one with a GPU."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from abair.data.photos import Pixels, find_photos, load_photos
from abair.errors import TrainingError
from abair.files import atomic_write

LONGEST: Final = 768
"""Longest side of a packed photo in pixels: training crops are much smaller."""
QUALITIES: Final = (95, 92, 89, 86, 83, 80, 75, 70)
"""WebP qualities to try, best first; below the last one training would learn the artifacts."""


@dataclass(frozen=True)
class Packed:
    """What a file of photos holds: their count, its size in bytes, and their WebP quality."""

    photos: int
    size: int
    quality: int


def pack_photos(folder: Path, out: Path, limit: int) -> Packed:
    """Write all photos below a folder to one ZIP file of at most `limit` bytes.

    They are reduced to `LONGEST` and stored as WebP, as good as the limit allows. Names stay, so
    the same photos are held out as of the folder.

    Raises:
        TrainingError: `out` is a folder, or the limit is too small; `folder` does not exist or
            holds no photos, or one of them cannot be read.
        OSError: the file cannot be written.
    """
    if out.is_dir():
        raise TrainingError(f"{out}: found a folder, expected a file to write, such as {out / 'photos.zip'}")
    paths = find_photos(folder)
    names = [str(path.relative_to(folder)) for path in paths]
    photos = [_reduce(photo) for photo in load_photos(paths)]
    for quality in QUALITIES:
        archive = _archive(names, [_encode(photo, quality) for photo in photos])
        if len(archive) <= limit:
            with atomic_write(out) as aside:
                aside.write_bytes(archive)
            return Packed(len(photos), len(archive), quality)
    raise TrainingError(
        f"{out}: {len(photos)} photos take {len(archive) / 2**20:.1f} MiB at the lowest quality, expected at most "
        f"{limit / 2**20:.1f}; raise --limit or pack fewer photos"
    )


def _reduce(photo: Pixels) -> Image.Image:
    image = Image.fromarray(photo)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return image


def _encode(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=quality, method=2)
    return file.getvalue()


def _archive(names: Sequence[str], files: Sequence[bytes]) -> bytes:
    """Return a ZIP file; a name keeps its suffix, because it decides what is held out."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for name, content in zip(names, files, strict=True):
            opened.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
    return archive.getvalue()
