"""Write image files: encode in memory, then put the complete file at its name."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from abair.errors import ImageError
from abair.files import atomic_write
from abair.images import codecs, exif
from abair.images.annotations import jpeg_options, png_chunks, tiff_tags
from abair.images.kept import reduce_to_format
from abair.images.photo import FORMATS, SUFFIXES, Photo, display_name
from abair.images.pixels import flatten_on_white, reduce_to_8_bit, strips
from abair.images.storage import compress_like
from abair.text import error_text

_LARGEST_SIDE: Final = {"JPEG": 65500, "WEBP": 16383}
_WITH_ALPHA: Final = frozenset({"PNG", "WEBP", "TIFF"})
_WITH_16_BIT: Final = frozenset({"PNG", "TIFF"})


class Written(NamedTuple):
    """What was written.

    `warnings` are those of the photo, and one each for what the format cannot hold; there are none
    if the file is `unchanged`, byte for byte.
    """

    warnings: tuple[str, ...]
    unchanged: bool


@dataclass(frozen=True)
class Finished:
    """New pixels (H, W, 3), and of the photo all but its own pixels, which may be freed.

    Attributes:
        photo: with pixels of size 0.
        pixels: with what the photo's alpha hides, as it was.
        unchanged: whether they are the photo's own.
    """

    photo: Photo
    pixels: np.ndarray
    unchanged: bool


def finish(photo: Photo, pixels: np.ndarray) -> Finished:
    """Return what is to be written: `pixels` with the alpha and the metadata of `photo`.

    `pixels` are (H, W, 3), of the dtype and size of `photo.pixels`; what alpha hides stays as it
    was. The result holds no reference to `photo.pixels`, which take as much memory again.

    Raises:
        ImageError: the pixels do not fit the photo.
    """
    if pixels.shape != photo.pixels.shape or pixels.dtype != photo.pixels.dtype:
        raise ImageError(
            f"pixels: found {pixels.shape} {pixels.dtype}, expected {photo.pixels.shape} {photo.pixels.dtype}; "
            "pass pixels of the photo's size and type"
        )
    if photo.alpha is not None:
        pixels = np.where(photo.alpha[..., None] == 0, photo.pixels, pixels)
    unchanged = all(np.array_equal(pixels[rows], photo.pixels[rows]) for rows in strips(*pixels.shape[:2]))
    return Finished(replace(photo, pixels=np.empty((0, 0, 3), pixels.dtype)), pixels, unchanged)


def write(
    path: Path,
    finished: Finished,
    *,
    overwrite: bool = False,
    keep_format: bool = False,
    source: Path | None = None,
    jpeg_quality: int | None = None,
) -> Written:
    """Write a finished photo.

    The suffix of `path` names the format: JPEG (compressed as the source was, but not more than at
    quality 90; at quality 95 and 4:4:4 if the source was none; with `jpeg_quality` at libjpeg's
    quality of 1 to 100), PNG, WebP (lossless where the source was, else quality 95), TIFF (deflate)
    or BMP. With `keep_format` the format is the one that was read, whatever the suffix. At every
    moment the path holds the complete new file, or what it held before. Without `overwrite` an
    existing file is never replaced.

    What the format cannot hold is reduced, with a warning: 16 bits to 8, alpha to white;
    annotations are left out. If nothing has to change, neither pixels nor format, the file
    `source`, which the photo was read from, is copied byte for byte.

    Raises:
        ImageError: the pixels do not fit the format, or the file cannot be written. Nothing has
            changed then, and nothing is left behind.
    """
    name, photo, pixels = display_name(path), finished.photo, finished.pixels
    check_output(path, overwrite=overwrite)
    kind = photo.format if keep_format and photo.format in FORMATS.values() else FORMATS[path.suffix.lower()]
    if source is not None and kind == photo.format and finished.unchanged:
        _put(path, source.read_bytes, overwrite=overwrite)
        return Written((), unchanged=True)
    height, width = pixels.shape[:2]
    if max(height, width) > _LARGEST_SIDE.get(kind, max(height, width)):
        raise ImageError(
            f"{name}: found {width} x {height} pixels, expected sides of at most {_LARGEST_SIDE[kind]} in a "
            f"{kind} file; choose .png or .tiff"
        )
    try:
        warnings = list(photo.warnings)
        data = _encode(kind, photo, pixels, warnings.append, jpeg_quality)
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to write {width} x {height} pixels; free some") from error
    except Exception as error:  # encoders raise many kinds
        raise ImageError(f"{name}: cannot be written as {kind} ({error_text(error)}); choose another format") from error
    _put(path, lambda: data, overwrite=overwrite)
    return Written(tuple(warnings), unchanged=False)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check that `write` can succeed, so that a refusal comes before the restoration.

    Raises:
        ImageError: the suffix is unknown, the folder is missing or read-only, the path is a folder,
            device or read-only file, or it exists and `overwrite` is False.
    """
    name, folder = display_name(path), path.parent
    if path.suffix.lower() not in SUFFIXES:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise ImageError(
            f"{name}: found {found}, expected one of {' '.join(sorted(SUFFIXES))}; give the output a name that ends so"
        )
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ImageError(f"{name}: found {found} at {display_name(folder)}, expected a folder; create it first")
    if path.is_dir():
        raise ImageError(f"{name}: found a folder, expected a file name; give the output another name")
    if path.exists() or path.is_symlink():
        if not overwrite:
            raise _exists(path)
        if path.exists() and not path.is_file():
            raise ImageError(f"{name}: found a device or pipe, expected a file; choose another output")
        if path.exists() and not os.access(path, os.W_OK):
            raise ImageError(f"{name}: found a read-only file, expected a writable one; choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ImageError(f"{name}: folder {display_name(folder)} is read-only, expected a writable one; choose another")


def _put(path: Path, read: Callable[[], bytes | memoryview], *, overwrite: bool) -> None:
    """Put what `read` returns at the path, completely or not at all."""
    name, size = display_name(path), 0
    try:
        data = read()
        size = len(data)
        with atomic_write(path, replace=overwrite) as aside:
            aside.write_bytes(data)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise ImageError(
            f"{name}: cannot be written ({error.strerror or error_text(error)}), expected a writable folder "
            f"with room for {size / 1e6:.1f} MB; free space or choose another folder"
        ) from error


def _encode(
    kind: str, photo: Photo, pixels: np.ndarray, warn: Callable[[str], None], jpeg_quality: int | None
) -> bytes | memoryview:
    """Return the bytes of a file of format `kind`."""
    samples = _arrange_channels(kind, photo, pixels, warn)
    photo, lost = reduce_to_format(kind, photo)
    if lost:
        warn(f"left out, because {kind} has no place for it: {'; '.join(lost)}")
    icc = photo.icc_profile
    if icc and photo.grey and (kind == "WEBP" or samples.shape[2] >= 3):
        warn(f"left out: its colour profile, which is for grey; {kind} stores it as colours here")
        icc = None
    if kind == "TIFF":
        tags = exif.tiff_tags(photo.exif, photo.dpi, warn) | tiff_tags(photo.annotations)
        return codecs.encode_tiff(samples, tags, icc_profile=icc)
    options: dict[str, Any] = {"icc_profile": icc, "dpi": photo.dpi, "exif": photo.exif}
    options = {option: value for option, value in options.items() if value}
    if kind == "PNG":
        chunks = png_chunks(photo.annotations)
        if samples.dtype == np.uint16:
            return codecs.encode_png_16_bit(
                samples, icc_profile=icc, exif=photo.exif, dpi=photo.dpi, annotations=chunks.chunks
            )
        options |= {"compress_level": codecs.COMPRESSION_LEVEL, "pnginfo": chunks}
    elif kind == "JPEG":
        options |= compress_like(photo.jpeg, jpeg_quality)
        options |= jpeg_options(photo.annotations)
    elif kind == "WEBP":
        options |= {"lossless": True, "exact": True} if photo.lossless else {"quality": 95}
        options |= {"xmp": photo.annotations.xmp} if photo.annotations.xmp else {}
    image = Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getbuffer()


def _arrange_channels(kind: str, photo: Photo, pixels: np.ndarray, warn: Callable[[str], None]) -> np.ndarray:
    """Return the samples (H, W, C) that a file of format `kind` can hold; C as in `to_samples`."""
    samples, alpha = pixels, photo.alpha
    if photo.grey:
        samples = ((pixels.sum(axis=2, keepdims=True, dtype=np.uint32) + 1) // 3).astype(pixels.dtype)
    if alpha is not None and kind not in _WITH_ALPHA:
        if (alpha != np.iinfo(alpha.dtype).max).any():
            warn(f"{kind} holds no transparency; it is flattened on white (use .png, .webp or .tiff)")
            samples = flatten_on_white(samples, alpha)
        alpha = None
    if samples.dtype == np.uint16 and kind not in _WITH_16_BIT:
        warn(f"{kind} holds 8 bits a channel; 16 bits are reduced to 8 (use .png or .tiff)")
        samples = reduce_to_8_bit(samples)
        alpha = None if alpha is None else reduce_to_8_bit(alpha)
    if alpha is None:
        return samples
    if samples.shape[2] == 1 and (kind == "WEBP" or (kind == "TIFF" and samples.dtype == np.uint16)):
        samples = np.repeat(samples, 3, axis=2)  # these have no grey with alpha that others can read
    return np.concatenate([samples, alpha[..., None]], axis=2)


def _exists(path: Path) -> ImageError:
    return ImageError(
        f"{display_name(path)}: found an existing file, expected a free name; use --overwrite to replace it"
    )
