"""Read image files: one open file, one header, one decode.

Only known formats are ever decoded, and the size is checked on the header first. A photo keeps its
depth, grey, alpha, ICC profile, EXIF, resolution and annotations; its EXIF orientation is applied
once.
"""

from __future__ import annotations

import logging
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from PIL import (
    BmpImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from abair.errors import ImageError, MissingExtraError
from abair.images import (
    camera_raw,
    further_formats,
    jpeg_stream,
    tiff_layout,
)
from abair.images.photo import Photo, display_name
from abair.images.photo_file import PhotoFile
from abair.images.tiff_image import TiffImageFile, open_page
from abair.text import error_text

# Pillow reports broken tags as Python warnings of two lines each. What matters of them becomes a
# warning of the photo, of one line. A filter for the length of a call would not be safe in threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
# Without a handler, Python prints its errors to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_EXPECTED: Final = "expected a JPEG, PNG, WebP, TIFF or BMP photo"
_HEAD_BYTES: Final = 64

_SIGNATURES: Final = {
    b"GIF8": "a GIF",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"<svg": "an SVG",
    b"<?xm": "XML",
    b"8BPS": "a Photoshop file",
    b"gimp xcf": "a GIMP file",
}
"""First bytes of files that people take for photos."""

_RAW: Final = (b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILM", b"FOVb", b"\0MRM")
"""First bytes of camera raw files that are no plain TIFFs."""
_RAW_BRAND: Final = b"ftypcrx "
"""Bytes 4 to 12 of Canon's CR3."""
_TIFF: Final = frozenset({b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"})


# The allow-list. These classes are called directly, because `Image.open` applies Pillow's global
# pixel limit (a warning from 89 megapixels on, an error from 179) in place of ours. A phone's MPO
# is a JPEG with previews behind it.
_PILLOW_READERS: Final[tuple[tuple[Callable[[bytes], bool], type[ImageFile.ImageFile]], ...]] = (
    (lambda head: head.startswith(b"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", WebPImagePlugin.WebPImageFile),
    (lambda head: head[:4] in _TIFF, TiffImageFile),
    (lambda head: head.startswith(b"BM"), BmpImagePlugin.BmpImageFile),
)


@contextmanager
def open_photo(path: Path) -> Iterator[PhotoFile | camera_raw.RawFile]:
    """Open a file with the one allowed reader that its first bytes name. Nothing is decoded yet.

    Raises:
        ImageError: the file is missing, unreadable, empty, no photo, its header is damaged, or its
            reader is not installed.
    """
    with _open_regular_file(path) as file:
        head = file.read(_HEAD_BYTES)
        if not head:
            raise ImageError(f"{display_name(path)}: found an empty file, {_EXPECTED}; copy it again from its source")
        maker = tiff_layout.find_raw_maker(file) if head[:4] in _TIFF else None
        if maker is not None or head.startswith(_RAW) or head[4:12] == _RAW_BRAND:
            with camera_raw.open_raw(path, file, maker or "") as raw:
                yield raw
            return
        reader = _find_reader(path, head)
        warnings: list[str] = []
        page = tiff_layout.find_page(display_name(path), file, warnings.append) if reader is TiffImageFile else 0
        file.seek(0)
        try:
            image = open_page(file, page) if reader is TiffImageFile else reader(file)
        except Exception as error:  # readers raise whatever a damaged header leads them to
            image = _open_12_bit(path, file, error)
        with image:
            further_formats.add_info(image, file)
            yield PhotoFile(path, file, image, page, warnings)


def _open_12_bit(path: Path, file: BinaryIO, error: Exception) -> ImageFile.ImageFile:
    """Open what Pillow did not for this error, if it is a 12-bit JPEG.

    Raises:
        ImageError: it is something else or damaged, or imagecodecs is missing.
    """
    kind = jpeg_stream.unsupported_kind(file)
    if kind == jpeg_stream.TWELVE_BIT and further_formats.has_imagecodecs():
        try:
            return jpeg_stream.open_12_bit(file)
        except Exception as damage:  # as for others
            raise _damaged(path, damage) from damage
    if kind == jpeg_stream.TWELVE_BIT:
        raise ImageError(
            f"{display_name(path)}: found {kind}, which needs imagecodecs; install it with: pip install "
            "'abair[formats]', or convert it first"
        ) from error
    raise _damaged(path, error, kind) from error


def _find_reader(path: Path, head: bytes) -> type[ImageFile.ImageFile]:
    """Return Pillow's class for a file with these first bytes.

    Raises:
        ImageError: there is none, or it is not installed.
    """
    for accepts, reader in _PILLOW_READERS:
        if accepts(head):
            return reader
    try:
        further = further_formats.find_reader(head)
    except MissingExtraError as error:
        raise ImageError(f"{display_name(path)}: {error}") from error
    if further is None:
        raise ImageError(f"{display_name(path)}: found {_guess_kind(head)}, {_EXPECTED}; convert it first")
    return further


def probe(path: Path) -> tuple[int, int]:
    """Return (width, height) of the upright photo in pixels, from the header only.

    Raises:
        ImageError: as `open_photo`.
    """
    with open_photo(path) as file:
        width, height = file.stored_size
        return (height, width) if file.orientation in {5, 6, 7, 8} else (width, height)


def probe_format(path: Path) -> str:
    """Return Pillow's name of a file's format, or RAW for a camera raw file.

    Raises:
        ImageError: as `open_photo`.
    """
    with open_photo(path) as file:
        return file.format


def read(path: Path, *, max_megapixels: float = 100.0) -> Photo:
    """Decode a photo.

    Palettes become colours, CMYK becomes sRGB, 1-bit becomes 8-bit grey. An animation and a TIFF of
    several pages are refused, because restoring one of them would lose the others.

    Raises:
        ImageError: the file is missing, unreadable, empty, damaged, no photo, larger than
            `max_megapixels`, its reader is not installed, or its pixels have no known range
            (floating point, 32 bit).
    """
    with open_photo(path) as file:
        width, height = file.stored_size
        if width * height > max_megapixels * 1e6:
            raise ImageError(
                f"{file.name}: found {width} x {height} pixels ({width * height / 1e6:.1f} megapixels), "
                f"expected at most {max_megapixels:g} megapixels; use --max-megapixels if you trust the file"
            )
        if file.is_animation:
            raise ImageError(
                f"{file.name}: found an animation or several images, expected a still photo; export them one by one "
                "first"
            )
        try:
            return file.decode()
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError(f"{file.name}: not enough memory for {width} x {height} pixels; free some") from error
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise _damaged(path, error, file.unsupported_kind) from error


def _open_regular_file(path: Path) -> BinaryIO:
    name = display_name(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name}: found a folder, {_EXPECTED}; name its files or use -r")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for somebody to write to it
            raise ImageError(f"{name}: found a device or pipe, {_EXPECTED}; save it as a file first")
        return path.open("rb")
    except ImageError:
        raise
    except FileNotFoundError as error:
        found = "no such file" if path.suffix else "no such file or folder"
        raise ImageError(f"{name}: found {found}, {_EXPECTED}; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error_text(error)
        raise ImageError(f"{name}: cannot be opened ({reason}), {_EXPECTED}; check its permissions") from error


def _damaged(path: Path, error: BaseException, kind: str = "") -> ImageError:
    if kind:
        return ImageError(f"{display_name(path)}: found {kind}, {_EXPECTED} of 8 or 16 bits; convert it first")
    return ImageError(
        f"{display_name(path)}: found a damaged or unsupported file ({error_text(error)}), {_EXPECTED}; copy it again "
        "from its source"
    )


def _guess_kind(head: bytes) -> str:
    for start, kind in _SIGNATURES.items():
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        return "a video"
    return "text" if all(9 <= byte < 127 for byte in head) else "no known image format"
