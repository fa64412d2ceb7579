"""An open image file: its header, and the decode of its pixels and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image, ImageFile

from abair.errors import ImageError, MissingExtraError
from abair.images import codecs, exif, further_formats, jpeg_stream, storage, tiff_directory, tiff_samples, tiff_tags
from abair.images.annotations import read_annotations
from abair.images.photo import Photo, display_name
from abair.images.pixels import add_colour_key, to_samples, turn_upright

_ORIENTATION: Final = 274


class PhotoFile:
    """An open image file: its header has been read, its pixels have not."""

    def __init__(
        self, path: Path, file: BinaryIO, image: ImageFile.ImageFile, page: int = 0, warnings: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.page = page
        self.warnings = list(warnings)
        self.name = display_name(path)
        self.format = str(image.format)
        self._file = file
        self._image = image

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels, before the orientation is applied."""
        return self._image.size

    @property
    def is_animation(self) -> bool:
        """True if it has several frames, each to be shown in place of the one before."""
        return self.format != "TIFF" and bool(getattr(self._image, "is_animated", False))

    @property
    def unsupported_kind(self) -> str:
        """What an intact file is that cannot be decoded, such as "a lossless JPEG", or nothing."""
        is_read = self._image.info.get("bit_depth") == 12
        return "" if is_read else jpeg_stream.unsupported_kind(self._file)

    @property
    def orientation(self) -> int:
        """1 to 8, as EXIF counts; a PNG may state it behind its pixels, known after `decode`."""
        return exif.orientation(self._image)

    def decode(self) -> Photo:
        """Decode pixels and metadata; call it once.

        Raises:
            ImageError: the pixels are of a kind whose range is not known.
            Exception: whatever a damaged file leads Pillow to.
        """
        dpi = storage.resolution(self._image)
        lossless = storage.is_lossless(self._image, self._file)
        if lost := further_formats.left_out(self._image):
            self.warnings.append(f"left out: {', '.join(lost)}")
        if self.format == "TIFF" and (names := tiff_tags.left_out(self._image.tag_v2)):  # type: ignore[attr-defined]
            self.warnings.append(f"left out of its tags: {names}")
        # A TIFF's tags can be read only before its pixels; a PNG may carry EXIF behind them.
        block = exif.exif_from_tiff(self._image, self.warnings.append) if self.format == "TIFF" else None
        samples = self._decode_samples()
        turn = self.orientation
        if self.format != "TIFF":
            block = exif.raw_exif(self._image)
        samples = turn_upright(samples, turn)
        height, width = samples.shape[:2]
        grey = samples.shape[2] < 3
        return Photo(
            pixels=np.repeat(samples[..., :1], 3, axis=2) if grey else np.ascontiguousarray(samples[..., :3]),
            alpha=np.ascontiguousarray(samples[..., -1]) if samples.shape[2] in {2, 4} else None,
            grey=grey,
            format=self.format,
            exif=exif.adapt_exif(block, width, height, self.warnings.append),
            icc_profile=None if self._image.mode == "CMYK" else self._image.info.get("icc_profile"),
            dpi=dpi,
            lossless=lossless,
            jpeg=storage.read_compression(self._image),
            annotations=read_annotations(self._image, self._file, (width, height), self.warnings.append),
            warnings=tuple(self.warnings),
        )

    def _decode_samples(self) -> np.ndarray:
        """Return the samples as stored, (H, W, C) uint8 or uint16; C as in `to_samples`."""
        if self.format == "TIFF" and not self._image.tile:
            try:
                samples = self._decode_by_tifffile()
            except MissingExtraError as error:
                kind = tiff_directory.describe(self._image.tag_v2)  # type: ignore[attr-defined]
                raise ImageError(
                    f"{self.name}: found a TIFF of {kind}, but {error}, or convert it to 8 or 16 bits with LZW "
                    "compression"
                ) from error
        elif (
            deep := further_formats.decode_deep(self.name, self._image, self._file, self.warnings.append)
        ) is not None:
            samples = deep
        else:
            samples = self._decode_by_pillow()
        if self.format == "TIFF":
            has_alpha = samples.shape[2] in {2, 4}
            if lost := tiff_directory.left_out_channels(self._image.tag_v2, has_alpha=has_alpha):  # type: ignore[attr-defined]
                channels = "a channel" if lost == 1 else f"{lost} channels"
                self.warnings.append(f"left out: {channels} beside colours and transparency")
        return samples

    def _decode_by_tifffile(self) -> np.ndarray:
        tags = self._image.tag_v2  # type: ignore[attr-defined]
        samples = tiff_samples.decode(self.name, self._file, self.page, tags)
        return turn_upright(samples, tags.get(_ORIENTATION, 1))

    def _decode_by_pillow(self) -> np.ndarray:
        if (bits := further_formats.stored_bits(self._image)) > 8:
            self.warnings.append(f"its {bits} bits a channel cannot be read; going on with 8")
        reduced = codecs.is_reduced(self._image)
        if reduced and codecs.can_decode_16_bit(self._image):
            return add_colour_key(codecs.decode_16_bit(self._image, self._file), self._image)
        if reduced and self._image.mode != "CMYK":
            try:
                return self._decode_by_tifffile()
            except MissingExtraError as error:
                self.warnings.append(f"its 16 bits cannot be read ({error}); going on with 8")
        elif reduced:
            self.warnings.append("its 16 bits cannot be read in this layout; going on with 8")
        return to_samples(self.name, self._load(), self.warnings.append)

    def _load(self) -> Image.Image:
        """Load the image; a JPEG may lack its end marker."""
        try:
            self._image.load()
        except OSError:
            if self.format != "JPEG":
                raise
            self._file.seek(0)
            complete = jpeg_stream.decode_without_end(self._file.read(), jpeg_stream.load)
            if complete is None:
                raise
            self.warnings.append(jpeg_stream.MISSING_END)
            return complete
        return self._image
