"""Pillow's reader of TIFFs, without what it refuses, prints and limits on its own."""

from __future__ import annotations

from typing import Final

from PIL import Image, TiffImagePlugin

from abair.images import codecs, libtiff, tiff_layout

_ORIENTATION: Final = 274


class TiffImageFile(TiffImagePlugin.TiffImageFile):
    """A TIFF as Pillow reads it.

    The header of one that Pillow cannot decode is read, too, if `tiff_samples` can decode it.
    """

    def _setup(self) -> None:
        try:
            super()._setup()
        except Exception:  # Pillow raises many kinds for what it cannot decode
            if not tiff_layout.beyond_pillow(self.tag_v2):
                raise
            # enough for those who decode it: without tiles nothing is loaded
            self._mode, self.tile = "RGB", []
            width, height = (self.tag_v2[tag] for tag in (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH))
            self._size = (height, width) if self.tag_v2.get(_ORIENTATION) in {5, 6, 7, 8} else (width, height)
            if profile := self.tag_v2.get(TiffImagePlugin.ICCPROFILE):
                self.info["icc_profile"] = profile
            factor = {2: 1.0, 3: 2.54}.get(self.tag_v2.get(TiffImagePlugin.RESOLUTION_UNIT, 2), 0.0)
            resolution = [
                self.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.X_RESOLUTION, TiffImagePlugin.Y_RESOLUTION)
            ]
            self.info["dpi"] = tuple(factor * float(value) for value in resolution)

    def load_prepare(self) -> None:
        """Prepare for decoding what is in the bands, and nothing else."""
        libtiff.silence()
        # Pillow checks its own pixel limit, a global, here again; ours has been checked already.
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        self.tile = codecs.without_extra_planes(self)
        super().load_prepare()
