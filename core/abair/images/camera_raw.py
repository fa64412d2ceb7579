"""Develop camera raw files, by LibRaw through rawpy, which the extra `formats` brings.

A raw file holds the readings of a sensor. It becomes a photo by the camera's white balance,
LibRaw's demosaicing and brightness, in sRGB with 16 bits a channel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from PIL import JpegImagePlugin

from abair.errors import ImageError
from abair.images import exif
from abair.images.photo import Photo, display_name
from abair.text import error_text

if TYPE_CHECKING:
    import rawpy

_TURNED: Final = frozenset({5, 6})
"""Values of LibRaw's `flip` that exchange width and height."""


class RawFile:
    """An open camera raw file, for the reader: its header has been read, its pixels have not."""

    format = "RAW"
    is_animation = False
    unsupported_kind = ""
    orientation = 1
    """LibRaw turns photos upright."""

    def __init__(self, path: Path, file: BinaryIO, raw: rawpy.RawPy) -> None:
        self.name = display_name(path)
        self._file, self._raw = file, raw

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) of the developed photo in pixels."""
        sizes = self._raw.sizes
        size = (sizes.iwidth, sizes.iheight)
        return size[::-1] if sizes.flip in _TURNED else size

    def decode(self) -> Photo:
        """Develop the photo; call it once.

        Raises:
            rawpy.LibRawError: the readings are damaged.
        """
        warnings: list[str] = []
        pixels = self._raw.postprocess(use_camera_wb=True, output_bps=16)
        height, width = pixels.shape[:2]
        block = exif.exif_from_raw(self._file) or self._exif_of_preview()
        if block is None:
            warnings.append("its EXIF cannot be read and is left out")
        return Photo(
            pixels=np.ascontiguousarray(pixels),
            alpha=None,
            grey=False,
            format=self.format,
            exif=exif.adapt_exif(block, width, height, warnings.append),
            icc_profile=None,
            warnings=tuple(warnings),
        )

    def _exif_of_preview(self) -> bytes | None:
        """Return the EXIF block of the JPEG that cameras put into raw files, if there is one."""
        try:
            preview = self._raw.extract_thumb().data
            with JpegImagePlugin.JpegImageFile(io.BytesIO(bytes(preview))) as image:
                return exif.raw_exif(image)
        except Exception:  # LibRaw and Pillow raise many kinds
            return None


@contextmanager
def open_raw(path: Path, file: BinaryIO, maker: str = "") -> Iterator[RawFile]:
    """Open a camera raw file; `maker` is who made the camera, if that is known.

    Raises:
        ImageError: rawpy is not installed; the file is damaged, or of a camera that LibRaw does not
            know.
    """
    found = f"a camera raw file{f' ({maker})' if maker else ''}"
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(
            f"{display_name(path)}: found {found}, which needs rawpy; install it with: pip install 'abair[formats]', "
            "or develop it first and export a TIFF or JPEG"
        ) from error
    file.seek(0)
    try:
        raw = rawpy.imread(file)
    except (rawpy.LibRawError, OSError) as error:
        raise ImageError(
            f"{display_name(path)}: found {found} that cannot be read ({error_text(error)}), expected one that LibRaw "
            "knows; copy it again from its source, or develop it first and export a TIFF or JPEG"
        ) from error
    with raw:
        yield RawFile(path, file, raw)
