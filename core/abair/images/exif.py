"""EXIF: where a photo states its orientation, camera, dates and size.

EXIF blocks are changed in place rather than parsed and rebuilt, so that maker notes and unknown
tags survive.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final, cast

from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, TiffTags

from abair.images.annotations import RAW_PROFILE, decode_raw_profile
from abair.text import error_text

_EXIF_HEADER: Final = b"Exif\0\0"
_EXIF_AS_TEXT: Final = f"{RAW_PROFILE}exif"
_ORIENTATION: Final = 0x0112
_DETAILS: Final = 0x8769  # the EXIF directory
_INTEROPERABILITY: Final = 0xA005  # in that directory, too: a third one
_WIDTH, _HEIGHT = 0xA002, 0xA003  # in that directory: PixelXDimension, PixelYDimension
_THUMBNAIL: Final = (0x0201, 0x0202)  # where it starts, and its length
_NUMBERS: Final = {3: "H", 4: "I"}
"""EXIF's kinds of whole numbers, and `struct`'s letters for them."""
DESCRIPTIVE: Final = frozenset(
    {
        *range(269, 273), 282, 283, 285, 296, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432, *range(40091, 40096),
        34665, 34853,
    }
)  # fmt: skip
"""Tags of a TIFF directory that describe the photo, not its storage. The last two are the EXIF and
GPS directories."""

_TURNED_BY_READERS: Final = frozenset({"TIFF", "HEIF", "JXL"})


def ignore(_warning: str) -> None:
    """Take a warning that nobody has to hear."""


def orientation(image: ImageFile.ImageFile) -> int:
    """Return the orientation, 1 to 8 as EXIF counts.

    It is 1 for broken EXIF, and for a TIFF, HEIF or JPEG XL file, whose reader turns it upright.
    """
    exif = raw_exif(image) if image.format not in _TURNED_BY_READERS else None
    try:
        value = _ExifBlock(exif).get(_ORIENTATION, 1) if exif else 1
    except (struct.error, ValueError):
        return 1
    return value if 1 <= value <= 8 else 1


def raw_exif(image: Image.Image) -> bytes | None:
    """Return the EXIF block as the file holds it, unchecked, or None."""
    exif = image.info.get("exif")
    if exif is None and _EXIF_AS_TEXT in image.info:
        exif = decode_raw_profile(str(image.info[_EXIF_AS_TEXT])) or b"broken"
    return exif or None


class _ExifBlock:
    """An EXIF block that is changed in place: nothing moves, so maker notes stay valid.

    EXIF 2.3, section 4.6.

    Raises:
        ValueError: the block has no TIFF header.
        struct.error: the block is cut off.
    """

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif.removeprefix(_EXIF_HEADER))
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(self.data[:4]))
        if order is None:
            raise ValueError("no TIFF header")
        self._order = order
        self._entries, self._link = self._read_directory(self._unpack("I", 4))

    def get(self, tag: int, default: int) -> int:
        """Return the number of a tag in the first directory."""
        return self._number(self._entries, tag, default)

    def set_upright(self, width: int, height: int) -> None:
        """Set the orientation to 1 and EXIF's own size, where they are stated."""
        self._set(self._entries, _ORIENTATION, 1)
        if details := self._number(self._entries, _DETAILS, 0):
            with contextlib.suppress(struct.error):  # the rest of the block is worth keeping
                entries, _ = self._read_directory(details)
                self._set(entries, _WIDTH, width)
                self._set(entries, _HEIGHT, height)

    def drop_thumbnail(self) -> None:
        """Unlink the second directory, which shows the photo as it was, and blank its picture."""
        if second := self._unpack("I", self._link):
            with contextlib.suppress(struct.error):
                entries, link = self._read_directory(second)
                start, length = (self._number(entries, tag, 0) for tag in _THUMBNAIL)
                if link < start < start + length <= len(self.data):  # or it would not be a picture's place
                    self.data[start : start + length] = bytes(length)
            struct.pack_into(self._order + "I", self.data, self._link, 0)

    def _read_directory(self, start: int) -> tuple[dict[int, tuple[int, int]], int]:
        """Return each tag's kind and the place of its value, and the place of the link behind."""
        count = self._unpack("H", start)
        link = start + 2 + 12 * count
        self._unpack("I", link)  # the directory must fit
        entries = {}
        for entry in range(start + 2, link, 12):
            tag, kind = struct.unpack_from(self._order + "HH", self.data, entry)
            entries[tag] = (kind, entry + 8)
        return entries, link

    def _number(self, entries: Mapping[int, tuple[int, int]], tag: int, default: int) -> int:
        kind, place = entries.get(tag, (0, 0))
        return self._unpack(_NUMBERS[kind], place) if kind in _NUMBERS else default

    def _set(self, entries: Mapping[int, tuple[int, int]], tag: int, value: int) -> None:
        kind, place = entries.get(tag, (0, 0))
        if kind in _NUMBERS and value < 1 << 8 * struct.calcsize(self._order + _NUMBERS[kind]):
            struct.pack_into(self._order + _NUMBERS[kind], self.data, place, value)

    def _unpack(self, form: str, place: int) -> int:
        return int(struct.unpack_from(self._order + form, self.data, place)[0])


def adapt_exif(exif: bytes | None, width: int, height: int, warn: Callable[[str], None]) -> bytes | None:
    """Return the EXIF block of a restored, upright photo of this size, without its thumbnail.

    It is None, and `warn` gets one line, if the block is broken.
    """
    if exif is None:
        return None
    try:
        block = _ExifBlock(exif)
        block.drop_thumbnail()
        block.set_upright(width, height)
    except (struct.error, ValueError) as error:
        warn(f"its EXIF is broken ({error}) and is left out")
        return None
    return _EXIF_HEADER + bytes(block.data)


def turn_upright(image: Image.Image, warn: Callable[[str], None] = ignore) -> Image.Image:
    """Turn a PIL image as its EXIF says.

    One whose EXIF is broken stays as it lies, without it, and `warn` gets one line.
    """
    try:
        if image.format == "TIFF":
            block = exif_from_tiff(cast("ImageFile.ImageFile", image), warn)
            upright = ImageOps.exif_transpose(image)
            upright.info |= {"exif": block} if block else {}
            return upright
        if block := raw_exif(image):
            _ExifBlock(block)
        if image.format in _TURNED_BY_READERS:
            return image
        return ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow raises many kinds on broken EXIF
        warn(f"its EXIF is broken ({error_text(error)}) and is left out")
        plain = image.copy()
        for key in ("exif", _EXIF_AS_TEXT):
            plain.info.pop(key, None)
        return plain


def exif_of(image: Image.Image) -> bytes | None:
    """Return the EXIF block of an upright PIL image, for a restored one of its size, or None."""
    return adapt_exif(raw_exif(image), *image.size, ignore)


def exif_from_tiff(image: ImageFile.ImageFile, warn: Callable[[str], None]) -> bytes | None:
    """Return the descriptive tags of a TIFF's directory as an EXIF block.

    The image must not be loaded yet. `adapt_exif` sets the size that it states. It is None, and
    `warn` gets one line, if a tag is broken.
    """
    try:
        return _describe(image.getexif())
    except Exception as error:  # Pillow raises many kinds on broken tags; the photo matters more
        warn(f"its EXIF is broken ({error_text(error)}) and is left out")
        return None


def exif_from_raw(file: BinaryIO) -> bytes | None:
    """Return the descriptive tags of a camera raw file as an EXIF block; None if it is no TIFF."""
    found = Image.Exif()
    try:
        file.seek(0)
        found.load_from_fp(file)
        return _describe(found)
    except Exception:  # as above
        return None


def _describe(found: Image.Exif) -> bytes | None:
    """Return the descriptive tags as a block, or None if there are none."""
    kept = Image.Exif()
    for tag in DESCRIPTIVE & set(found):
        kept[tag] = _describing(found, tag)
    return kept.tobytes() if len(kept) else None


def tiff_tags(exif: bytes | None, dpi: tuple[float, float] | None, warn: Callable[[str], None]) -> dict[int, object]:
    """Return the descriptive tags of an EXIF block for a TIFF's directory, with the resolution.

    Tags of storage are left out: they would contradict the pixels. `warn` gets one line if the
    others cannot be stored.
    """
    tags: dict[int, object] = {}
    if exif:
        try:
            block = Image.Exif()
            block.load(exif)
            for tag in sorted(DESCRIPTIVE & set(block)):
                tags[tag] = _describing(block, tag)
            _check_tags(tags)
        except Exception as error:  # as above
            warn(f"its EXIF cannot be stored in a TIFF ({error_text(error)}) and is left out")
            tags = {}
    if dpi:
        tags |= {TiffImagePlugin.RESOLUTION_UNIT: 2}
        tags |= {TiffImagePlugin.X_RESOLUTION: dpi[0], TiffImagePlugin.Y_RESOLUTION: dpi[1]}
    return tags


def _describing(block: Image.Exif, tag: int) -> object:
    """Return the value of a tag.

    The EXIF or GPS directory comes without links to others, which do not come along.
    """
    if tag not in TiffTags.TAGS_V2_GROUPS:
        return exact(block[tag])
    return exact({inner: value for inner, value in block.get_ifd(tag).items() if inner != _INTEROPERABILITY})


class _Text(str):
    """Text that is written as the bytes that it was; Pillow writes `?` for what is beyond ASCII."""

    __slots__ = ()

    def encode(self, *_: str, **__: str) -> bytes:
        """Return the bytes from which Pillow decoded it, whatever encoding is asked for."""
        return super().encode("latin-1")


def exact(value: object) -> object:
    """Return a tag's value such that Pillow writes text as the bytes from which it was read."""
    if isinstance(value, dict):
        return {tag: exact(inner) for tag, inner in value.items()}
    return _Text(value) if isinstance(value, str) else value


def _check_tags(tags: dict[int, object]) -> None:
    """Encode tags once, so that those which Pillow cannot encode raise here."""
    trial = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in tags.items():
        trial[tag] = value
    trial.tobytes(8)
