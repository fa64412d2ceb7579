"""Develop camera raw files, by LibRaw through rawpy, which the extra `formats` brings.

A raw file holds the readings of a sensor. It becomes a photo by the camera's white balance,
LibRaw's demosaicing and brightness, in sRGB with 16 bits a channel.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
from PIL import JpegImagePlugin, TiffImagePlugin

from abair.errors import ImageError
from abair.images import exif
from abair.images.annotations import Annotations, read_tiff
from abair.images.photo import Photo, display_name
from abair.images.stderr import without_messages
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
            ImageError: the readings are damaged.
        """
        import rawpy

        warnings: list[str] = []
        try:
            with without_messages():
                pixels = self._raw.postprocess(use_camera_wb=True, output_bps=16)
        except rawpy.LibRawError as error:
            raise ImageError(
                f"{self.name}: found a damaged camera raw file ({_reason(error)}); copy it again from its source"
            ) from error
        height, width, channels = pixels.shape
        block = exif.exif_from_raw(self._file) or self._exif_of_preview()
        if block is None:
            warnings.append("its EXIF cannot be read and is left out")
        return Photo(
            pixels=np.repeat(pixels, 3, axis=2) if channels == 1 else np.ascontiguousarray(pixels),
            alpha=None,
            grey=channels == 1,
            format=self.format,
            exif=exif.adapt_exif(block, width, height, warnings.append),
            icc_profile=None,
            annotations=self._annotations((width, height), warnings.append),
            warnings=tuple(warnings),
        )

    def _annotations(self, size: tuple[int, int], warn: Callable[[str], None]) -> Annotations:
        """Return XMP, IPTC and rights of a file that is a TIFF."""
        self._file.seek(0)
        try:
            directory = TiffImagePlugin.ImageFileDirectory_v2(self._file.read(8))
            self._file.seek(directory.next)
            directory.load(self._file)
            return read_tiff(directory, size, warn)
        except Exception:  # Pillow raises many kinds on what is no TIFF, or a broken one
            return Annotations()

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
    except (ImportError, OSError) as error:  # a library that it needs may be missing
        raise ImageError(
            f"{display_name(path)}: found {found}, which needs rawpy; install it with: pip install 'abair[formats]', "
            "or develop it first and export a TIFF or JPEG"
        ) from error
    file.seek(0)
    try:
        with without_messages():
            raw = rawpy.imread(file)
    except (rawpy.LibRawError, OSError) as error:
        raise ImageError(
            f"{display_name(path)}: found {found} that cannot be read ({_reason(error)}), expected one that LibRaw "
            "knows; copy it again from its source, or develop it first and export a TIFF or JPEG"
        ) from error
    with raw:
        yield RawFile(path, file, raw)


def _reason(error: Exception) -> str:
    """Return the text of LibRaw's error, which rawpy hands out as bytes."""
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else error_text(error)
