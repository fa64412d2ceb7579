"""Pillow's reader of TIFFs, without what it refuses, prints and limits on its own."""

from __future__ import annotations

from typing import BinaryIO, Final

from PIL import Image, TiffImagePlugin

from abair.images import codecs, libtiff, tiff_layout
from abair.images.tiff_directory import BIG_ENDIAN_BIG, is_misread_by_pillow, number

_ORIENTATION: Final = 274


class TiffImageFile(TiffImagePlugin.TiffImageFile):
    """A TIFF as Pillow reads it.

    The header of one that Pillow cannot decode is read, too, for `tiff_samples`; it has no tiles.
    """

    def _setup(self) -> None:
        sides = [number(self.tag_v2, tag, 0) for tag in (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH)]
        try:
            super()._setup()
            if not is_misread_by_pillow(self.tag_v2):
                return
        except Exception:  # Pillow raises many kinds for what it cannot decode
            if not all(sides):
                raise
        self._mode, self.tile = "RGB", []
        width, height = sides
        self._size = (height, width) if self.tag_v2.get(_ORIENTATION) in {5, 6, 7, 8} else (width, height)
        compression = number(self.tag_v2, TiffImagePlugin.COMPRESSION, 1)
        self.info["compression"] = TiffImagePlugin.COMPRESSION_INFO.get(compression)
        if profile := self.tag_v2.get(TiffImagePlugin.ICCPROFILE):
            self.info["icc_profile"] = profile
        factor = {2: 1.0, 3: 2.54}.get(self.tag_v2.get(TiffImagePlugin.RESOLUTION_UNIT, 2), 0.0)
        resolution = [self.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.X_RESOLUTION, TiffImagePlugin.Y_RESOLUTION)]
        self.info["dpi"] = tuple(factor * float(value) for value in resolution)

    def load_prepare(self) -> None:
        """Prepare for decoding what is in the bands, and nothing else."""
        libtiff.silence()
        # Pillow checks its own pixel limit, a global, here again; ours has been checked already.
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        self.tile = codecs.without_extra_planes(self)
        super().load_prepare()


def open_page(file: BinaryIO, page: int) -> TiffImageFile:
    """Open a page of a TIFF; of a big-endian BigTIFF, which Pillow does not know, the header."""
    file.seek(0)
    if file.read(len(BIG_ENDIAN_BIG)) == BIG_ENDIAN_BIG:
        header = TiffImageFile(tiff_layout.copy_directory(file, page))
        header.tile = []
        return header
    file.seek(0)
    image = TiffImageFile(file)
    if page:
        image.seek(page)
    return image
