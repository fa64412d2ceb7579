"""Formats that are read and not written: AVIF, HEIF, JPEG 2000 and JPEG XL.

Pillow reads AVIF and JPEG 2000; the extra `formats` brings Pillow's plugins for the other two, and
imagecodecs, which decodes more than 8 bits a channel where Pillow does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import BinaryIO, Final

import numpy as np
from PIL import AvifImagePlugin, ImageFile, Jpeg2KImagePlugin

from abair.errors import MissingExtraError
from abair.images import boxes, jpeg_stream
from abair.images.pixels import divide_by_alpha, to_whole_numbers, widen

_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIF: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""Brands of ISO base media files: ISO/IEC 23008-12, annex B, and the AV1 Image File Format."""
_JPEG_2000: Final = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_JPEG_XL: Final = (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a")
_SIZ: Final = 42
"""Place of the depth in a JPEG 2000 codestream: ISO/IEC 15444-1, section A.5.1."""


def find_reader(head: bytes) -> type[ImageFile.ImageFile] | None:
    """Return Pillow's class for a file with these first bytes; None if it is of another format.

    Raises:
        MissingExtraError: a plugin is needed that is not installed; the text names the kind of file
            and the command that installs it.
    """
    if head.startswith(_JPEG_2000):
        return Jpeg2KImagePlugin.Jpeg2KImageFile
    if head.startswith(_JPEG_XL):
        return _import_jpeg_xl()
    if head[4:8] != b"ftyp":
        return None
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, len(head), 4))}
    if brands & _AVIF:
        return AvifImagePlugin.AvifImageFile
    return _import_heif() if brands & _HEIF else None


def add_info(image: ImageFile.ImageFile, file: BinaryIO) -> None:
    """Add to the `info` of an image that was opened on `file` what Pillow does not hand out."""
    if image.format in {"AVIF", "HEIF", "JPEG2000"}:
        boxes.add_info(image, file)
    if image.format == "JPEG2000":
        file.seek(0)
        head = file.read(_SIZ + 1)
        if head.startswith(_JPEG_2000[1]) and len(head) > _SIZ:
            image.info["bits"] = (head[_SIZ] & 0x7F) + 1


def decode_deep(
    name: str, image: ImageFile.ImageFile, file: BinaryIO, warn: Callable[[str], None]
) -> np.ndarray | None:
    """Return the samples of a file of more than 8 bits a channel, (H, W, C) uint16.

    `image` was opened on `file`; C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA). It is None
    for files of 8 bits, for other formats, and where imagecodecs is missing. `warn` gets one line
    if the end of a JPEG is missing.

    Raises:
        ImageError: floating-point samples are outside [0, 1].
        Exception: whatever a damaged file leads the decoders to.
    """
    bits = stored_bits(image)
    is_float = image.format == "JXL" and bits == 32
    if not (8 < bits <= 16 or is_float) or (image.format != "HEIF" and not has_imagecodecs()):
        return None  # pylibjxl alone has 8 bits (findings/pylibjxl_16_bit.sh)
    if image.format == "JXL":
        image.load()  # for its metadata
    file.seek(0)
    if image.format == "HEIF":
        samples, bits = _decode_heif(image, file), 16
    else:
        import imagecodecs

        decoders: dict[str | None, Callable[[bytes], np.ndarray]] = {
            "AVIF": imagecodecs.avif_decode,
            "JPEG": lambda data: jpeg_stream.decode_12_bit(data, warn),
            "JPEG2000": imagecodecs.jpeg2k_decode,
            "JXL": imagecodecs.jpegxl_decode,
        }
        samples = decoders[image.format](file.read())
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.dtype.kind == "f":
        return to_whole_numbers(name, samples)
    return widen(samples, bits)


def stored_bits(image: ImageFile.ImageFile) -> int:
    """Return the bits a channel that a file states; 8 where Pillow decodes all there are."""
    if image.format in {"HEIF", "JPEG"}:
        return int(image.info.get("bit_depth", 8))
    if image.format == "JXL":
        return int(image.info.get("bits_per_sample", 8))
    if image.format == "AVIF" or (image.format == "JPEG2000" and not image.mode.startswith("I")):
        return int(image.info.get("bits", 8))
    return 8


@lru_cache
def has_imagecodecs() -> bool:
    """Return whether imagecodecs is installed and can be used."""
    try:
        import imagecodecs  # noqa: F401
    except (ImportError, OSError):  # a library that it needs may be missing
        return False
    return True


def _decode_heif(image: ImageFile.ImageFile, file: BinaryIO) -> np.ndarray:
    """Return samples of 16 bits, which pi-heif shifts to the left."""
    import pi_heif

    opened = pi_heif.open_heif(file, convert_hdr_to_8bit=False, remove_stride=True)
    samples = np.asarray(opened[image.tell()])
    samples = samples | samples >> image.info["bit_depth"]  # white shall be 65535
    return divide_by_alpha(samples) if opened.mode.startswith("RGBa") else samples


def left_out(image: ImageFile.ImageFile) -> list[str]:
    """Return what else a HEIF file holds that no other file can: depth maps, gain maps."""
    kinds = [str(kind).rpartition(":")[2] for kind in image.info.get("aux", {})]
    return (["its depth map"] if image.info.get("depth_images") else []) + [f"its {kind}" for kind in kinds]


def _import_heif() -> type[ImageFile.ImageFile]:
    try:
        from pi_heif import HeifImageFile
    except ImportError as error:
        raise _missing("a HEIC file", "pi-heif") from error
    reader: type[ImageFile.ImageFile] = HeifImageFile
    return reader


def _import_jpeg_xl() -> type[ImageFile.ImageFile]:
    try:
        from pylibjxl.pillow_plugin import JxlImageFile
    except ImportError as error:
        raise _missing("a JPEG XL file", "pylibjxl") from error
    reader: type[ImageFile.ImageFile] = JxlImageFile  # None in its types, where Pillow is missing
    return reader


def _missing(kind: str, package: str) -> MissingExtraError:
    return MissingExtraError(
        f"found {kind}, which needs {package}; install it with: pip install 'abair[formats]', or convert it first"
    )
