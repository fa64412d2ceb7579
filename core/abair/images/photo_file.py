"""Read and write image files: the only place that knows value range, layout and colour profile.

A photo comes back in the format, depth and colours it had: 16 bit, grey, alpha, ICC profile, EXIF and resolution
are kept, the EXIF orientation is applied once. Only JPEG, PNG, WebP, TIFF and BMP are ever decoded, the size is
checked on the header first, and a file appears at its final name only when it is complete.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from abair.errors import ImageError
from abair.images import codecs, metadata
from abair.images.pixels import flattened, samples_of, to_8_bit, to_numpy, with_colour_key
from abair.text import error_text

log = logging.getLogger("abair")

# Pillow reports broken tags as Python warnings, two lines each; what matters of them is logged below, in one. A filter
# for the length of a call would not be safe in threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

_FORMATS = {
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
SUFFIXES: frozenset[str] = frozenset(_FORMATS)
_EXPECTED = "expected a JPEG, PNG, WebP, TIFF or BMP photo"
_LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
_WITH_ALPHA = {"PNG", "WEBP", "TIFF"}
_WITH_16_BIT = {"PNG", "TIFF"}

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
_KNOWN_OTHERS = {b"GIF8": "a GIF", b"%PDF": "a PDF", b"PK\x03\x04": "a ZIP archive", b"<svg": "an SVG", b"<?xm": "XML"}


@dataclass(frozen=True)
class Photo:
    """A decoded image ready for restoration."""

    pixels: np.ndarray
    """(H, W, 3) uint8 or uint16, full range, as stored (no profile conversion), upright."""
    alpha: np.ndarray | None
    """(H, W) of the same dtype, or None."""
    grey: bool
    """The file was grey, and is written back grey."""
    format: str
    """Pillow's name of the file's format: JPEG, PNG, WEBP, TIFF or BMP."""
    exif: bytes | None
    """The EXIF block with its orientation reset to 1."""
    icc_profile: bytes | None
    """The profile that `pixels` are in; a CMYK profile has been applied and is gone."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution in pixels an inch, where the file says it."""
    lossless: bool = True
    """The file was stored without loss; decides between lossless and lossy WebP."""


class _Tiff(TiffImagePlugin.TiffImageFile):
    def load_prepare(self) -> None:
        # Pillow's own pixel limit, a global, is checked again here; ours has been checked already.
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        super().load_prepare()


# The allow-list. These classes are called directly, because `Image.open` applies Pillow's global pixel limit (a warning
# from 89 megapixels on, an error from 179) in place of ours. A phone's MPO is a JPEG with previews behind it.
_READERS: tuple[tuple[Callable[[bytes], bool | str], type[ImageFile.ImageFile]], ...] = (
    (lambda head: head.startswith(b"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", WebPImagePlugin.WebPImageFile),
    (lambda head: head[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}, _Tiff),
    (lambda head: head.startswith(b"BM"), BmpImagePlugin.BmpImageFile),
)


def probe(path: Path) -> tuple[int, int]:
    """(width, height) of the upright photo, from the header only. Raises `ImageError`."""
    with _open(path) as image:
        width, height = image.size
        if metadata.orientation(image) in {5, 6, 7, 8}:
            width, height = height, width
    return width, height


def read(path: Path, *, max_megapixels: float = 100.0) -> Photo:
    """Decode a photo.

    Palettes come back as colours, CMYK as sRGB, 1-bit as 8-bit grey. Of a TIFF with several pages the first is read and
    the log says so; an animation is refused, because restoring one frame would lose the others.

    Raises `ImageError`: missing, unreadable, empty, damaged, not a photo, larger than `max_megapixels`, or with
    pixels whose range is not known (floating point, 32-bit).
    """
    with _open(path) as image:
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise ImageError(
                f"{_name(path)}: found {width} x {height} pixels ({width * height / 1e6:.1f} megapixels), "
                f"expected at most {max_megapixels:g} megapixels; use --max-megapixels if you trust the file"
            )
        if getattr(image, "is_animated", False):
            if image.format != "TIFF":
                raise ImageError(f"{_name(path)}: found an animation, expected a still photo; export the frames first")
            log.warning("%s: has several pages; only the first is read", _name(path))
        try:
            return _decode(path, image)
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError(f"{_name(path)}: not enough memory for {width} x {height} pixels; free some") from error
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise _damaged(path, error) from error


def write(path: Path, photo: Photo, pixels: np.ndarray, *, overwrite: bool = False, keep_format: bool = False) -> None:
    """Write `pixels`, (H, W, 3) of the dtype and size of `photo.pixels`, with all that `photo` carries besides.

    The suffix of `path` names the format: JPEG (quality 95, 4:4:4), PNG, WebP (lossless where the source was, else
    quality 95), TIFF (deflate) or BMP; with `keep_format` it is the format that was read, whatever the suffix says.
    What the format cannot hold is reduced, and the log says so: 16 bit to 8, alpha flattened on white. The file is
    written aside and then takes its name: at every moment there is the whole new file, or what was there before.
    Without `overwrite` an existing file is never replaced.

    Raises `ImageError`; then nothing has changed and nothing is left behind.
    """
    if pixels.shape != photo.pixels.shape or pixels.dtype != photo.pixels.dtype:
        raise ImageError(
            f"{_name(path)}: found pixels {pixels.shape} {pixels.dtype}, expected {photo.pixels.shape} "
            f"{photo.pixels.dtype}; pass pixels of the photo's size and type"
        )
    check_output(path, overwrite=overwrite)
    kind = photo.format if keep_format and photo.format in _FORMATS.values() else _FORMATS[path.suffix.lower()]
    height, width = pixels.shape[:2]
    if max(height, width) > _LARGEST_SIDE.get(kind, max(height, width)):
        raise ImageError(
            f"{_name(path)}: found {width} x {height} pixels, expected sides of at most {_LARGEST_SIDE[kind]} in a "
            f"{kind} file; choose .png or .tiff"
        )
    try:
        data = _encode(path, kind, photo, pixels)
    except MemoryError as error:
        raise ImageError(f"{_name(path)}: not enough memory to write {width} x {height} pixels; free some") from error
    except Exception as error:  # encoders raise many kinds
        raise ImageError(
            f"{_name(path)}: cannot be written as {kind} ({error_text(error)}); choose another format"
        ) from error
    try:
        _place(path, data, overwrite=overwrite)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise ImageError(
            f"{_name(path)}: cannot be written ({error.strerror or error_text(error)}), expected a writable folder "
            f"with room for {len(data) / 1e6:.1f} MB; free space or choose another folder"
        ) from error


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise `ImageError` if `write` could not succeed: better before the restoring than after it."""
    if path.suffix.lower() not in SUFFIXES:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise ImageError(
            f"{_name(path)}: found {found}, expected one of {' '.join(sorted(SUFFIXES))}; rename the output"
        )
    folder = path.parent
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ImageError(f"{_name(path)}: found {found} at {_name(folder)}, expected a folder; create it first")
    if path.is_dir():
        raise ImageError(f"{_name(path)}: found a folder, expected a file name; give the output another name")
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise _exists(path)
        if path.exists() and not path.is_file():
            raise ImageError(f"{_name(path)}: found a device or pipe, expected a file; choose another output")
        if path.exists() and not os.access(path, os.W_OK):
            raise ImageError(f"{_name(path)}: found a read-only file, expected a writable one; choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"{_name(path)}: folder {_name(folder)} is read-only, expected a writable one; choose another")


def _open(path: Path) -> ImageFile.ImageFile:
    """The file, opened by the one allowed reader that its first bytes name; nothing is decoded yet."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(f"{_name(path)}: found a folder, {_EXPECTED}; name its files or use -r")
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{_name(path)}: found a device or pipe, {_EXPECTED}; save it as a file first")
        with path.open("rb") as file:
            head = file.read(32)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{_name(path)}: found no such file, {_EXPECTED}; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error_text(error)
        raise ImageError(f"{_name(path)}: cannot be opened ({reason}), {_EXPECTED}; check its permissions") from error
    if not head:
        raise ImageError(f"{_name(path)}: found an empty file, {_EXPECTED}; copy it again from its source")
    for accepts, reader in _READERS:
        if accepts(head):
            try:
                return reader(str(path))
            except Exception as error:  # readers raise whatever a damaged header leads them to
                raise _damaged(path, error) from error
    raise ImageError(f"{_name(path)}: found {_guess(head)}, {_EXPECTED}; convert it first")


def _decode(path: Path, image: ImageFile.ImageFile) -> Photo:
    kind = str(image.format)
    dpi = metadata.resolution(image)
    lossless = metadata.is_lossless(path, image)
    exif = metadata.tiff_exif(_name(path), image) if kind == "TIFF" else None  # while the file is open

    def noting(loaded: Image.Image) -> np.ndarray:
        image.info.update(loaded.info)  # a PNG may carry EXIF behind its pixels
        return to_numpy(loaded)

    if codecs.is_reduced(image) and codecs.can_read(image):
        samples = with_colour_key(codecs.read_16_bit(lambda: _open(path), noting), image)
    else:
        if codecs.is_reduced(image):
            log.warning("%s: its 16 bits cannot be read in this layout; going on with 8", _name(path))
        image.load()
        samples = samples_of(_name(path), image)
    turn = metadata.orientation(image)
    if kind != "TIFF":
        exif = metadata.upright_exif(_name(path), metadata.raw_exif(image), turned=turn != 1)
    if turn in _UPRIGHT:
        samples = np.ascontiguousarray(_UPRIGHT[turn](samples))
    grey = samples.shape[2] < 3
    alpha = np.ascontiguousarray(samples[..., -1]) if samples.shape[2] in {2, 4} else None
    pixels = np.repeat(samples[..., :1], 3, axis=2) if grey else np.ascontiguousarray(samples[..., :3])
    icc = None if image.mode == "CMYK" else image.info.get("icc_profile")
    return Photo(pixels, alpha, grey, kind, exif, icc, dpi, lossless)


def _encode(path: Path, kind: str, photo: Photo, pixels: np.ndarray) -> bytes | memoryview:
    samples, alpha, icc = pixels, photo.alpha, photo.icc_profile
    if photo.grey:
        samples = ((pixels.sum(axis=2, keepdims=True, dtype=np.uint32) + 1) // 3).astype(pixels.dtype)
    if alpha is not None and kind not in _WITH_ALPHA:
        samples, alpha = flattened(_name(path), kind, samples, alpha), None
    if samples.dtype == np.uint16 and kind not in _WITH_16_BIT:
        log.warning("%s: %s holds 8 bits a channel; 16 bits are reduced to 8 (use .png or .tiff)", _name(path), kind)
        samples = to_8_bit(samples)
        alpha = None if alpha is None else to_8_bit(alpha)
    if alpha is not None:
        if samples.shape[2] == 1 and (kind == "WEBP" or (kind == "TIFF" and samples.dtype == np.uint16)):
            samples = np.repeat(samples, 3, axis=2)  # no grey with alpha there that others can read
        samples = np.concatenate([samples, alpha[..., None]], axis=2)

    if photo.grey and (kind == "WEBP" or samples.shape[2] >= 3):
        icc = None  # a grey profile says nothing of colours
    if kind == "TIFF":
        tags = metadata.tiff_tags(_name(path), photo.exif, photo.dpi)
        return codecs.tiff(samples, tags, icc_profile=icc)
    if samples.dtype == np.uint16:
        return codecs.png_16_bit(samples, icc_profile=icc, exif=photo.exif, dpi=photo.dpi)

    image = Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))
    options: dict[str, object] = {}
    if icc and kind != "BMP":
        options["icc_profile"] = icc
    if photo.dpi and kind != "WEBP":
        options["dpi"] = photo.dpi
    if photo.exif and kind in {"PNG", "WEBP"}:
        options["exif"] = photo.exif
    if kind == "PNG":
        options["compress_level"] = codecs.COMPRESSION_LEVEL
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
        if photo.exif and len(photo.exif) > 65000:
            log.warning("%s: its EXIF is too long for a JPEG and is left out", _name(path))
        elif photo.exif:
            options["exif"] = photo.exif
    elif kind == "WEBP":
        options |= {"lossless": True, "exact": True} if photo.lossless else {"quality": 95}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getbuffer()


def _place(path: Path, data: bytes | memoryview, *, overwrite: bool) -> None:
    """Put a complete file at `path`, or raise `OSError` and leave the folder as it was."""
    aside = path.with_name(f".abair-{secrets.token_hex(8)}.tmp")
    try:
        with open(
            os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb"
        ) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            if path.exists():
                aside.chmod(stat.S_IMODE(path.stat().st_mode))
            os.replace(aside, path)
        else:
            _take_free_name(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _take_free_name(aside: Path, path: Path) -> None:
    """Give `aside` the name `path` unless that exists: `FileExistsError`. No other process can slip in between."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except (
        OSError,
        AttributeError,
        NotImplementedError,
    ):  # no hard links there: claim the name, then fill it
        path.open("xb").close()
        try:
            os.replace(aside, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _name(path: Path) -> str:
    """The path on one line, whatever it holds."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _exists(path: Path) -> ImageError:
    return ImageError(f"{_name(path)}: found an existing file, expected a free name; use --overwrite to replace it")


def _damaged(path: Path, error: BaseException) -> ImageError:
    # what Pillow says of pixels that no mode of its own can hold, such as colours in floating point
    unknown = "unknown pixel mode" in str(error)
    advice = "convert it to 8 or 16 bits a channel first" if unknown else "copy it again from its source"
    return ImageError(
        f"{_name(path)}: found a damaged or unsupported file ({error_text(error)}), {_EXPECTED}; {advice}"
    )


def _guess(head: bytes) -> str:
    for start, found in _KNOWN_OTHERS.items():
        if head.startswith(start):
            return found
    if head[4:8] == b"ftyp":
        return "an HEIC, AVIF or video file"
    return "text" if all(9 <= byte < 127 for byte in head) else "no known image format"
