"""A decoded photo, and the formats that files of photos may have."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from abair.images.annotations import Annotations
from abair.images.pixels import fill_hidden
from abair.images.storage import JpegCompression

FORMATS: Final = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".dib": "BMP",
}
"""Lower-case suffixes, and Pillow's names of the formats that they stand for."""

SUFFIXES: Final = frozenset(FORMATS)
"""Lower-case suffixes of the files that are read and written."""

_RAW: Final = (
    ".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 .srf .srw .x3f"
)
_OUTPUT_FORMATS: Final = {"AVIF": ".jpg", "HEIF": ".jpg", "JPEG2000": ".png", "JXL": ".png", "RAW": ".tif"}
"""Formats that are read and not written: what is usually stored with loss becomes a JPEG; camera
raw files, with their 16 bits, a TIFF."""
OUTPUT_SUFFIXES: Final = {
    **dict.fromkeys([".avif"], _OUTPUT_FORMATS["AVIF"]),
    **dict.fromkeys([".heic", ".heif", ".hif"], _OUTPUT_FORMATS["HEIF"]),
    **dict.fromkeys([".j2k", ".jp2", ".jpf", ".jpx"], _OUTPUT_FORMATS["JPEG2000"]),
    **dict.fromkeys([".jxl"], _OUTPUT_FORMATS["JXL"]),
    **dict.fromkeys(_RAW.split(), _OUTPUT_FORMATS["RAW"]),
}
"""Lower-case suffixes of files that are read and not written, and those of their outputs."""


def output_suffix(kind: str) -> str:
    """Return the suffix of the output for a photo of a format, by Pillow's name of it."""
    return next((suffix for suffix, name in FORMATS.items() if name == kind), "") or _OUTPUT_FORMATS[kind]


@dataclass(frozen=True)
class Photo:
    """A decoded image, ready for restoration."""

    pixels: np.ndarray
    """(H, W, 3) uint8 or uint16, full range, as stored (no profile conversion), upright."""
    alpha: np.ndarray | None
    """(H, W) of the same dtype, or None."""
    grey: bool
    """True if the file was grey; it is written back grey."""
    format: str
    """Pillow's name of the file's format, such as JPEG; RAW for a camera raw file."""
    exif: bytes | None
    """The EXIF block with its orientation reset to 1."""
    icc_profile: bytes | None
    """The colour profile of `pixels`. A CMYK profile has been applied and is not kept."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution in pixels per inch, or None if the file does not state
    it."""
    lossless: bool = True
    """True if the file was stored without loss; decides between lossless and lossy WebP."""
    jpeg: JpegCompression | None = None
    """How the file was compressed, if it is a JPEG; a restored JPEG is compressed alike."""
    annotations: Annotations = field(default_factory=Annotations)
    """XMP, IPTC, comments, and what else the file says."""
    warnings: tuple[str, ...] = ()
    """What could not be read, and what no restored photo can keep."""

    @property
    def visible(self) -> np.ndarray:
        """The pixels, with the mean of the visible ones where alpha hides them."""
        return fill_hidden(self.pixels, self.alpha)


def display_name(path: Path) -> str:
    """Return a path as text on one line; unprintable characters are escaped."""
    return str(path) if str(path).isprintable() else repr(str(path))
