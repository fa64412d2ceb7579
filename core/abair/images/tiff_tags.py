"""Name the tags of a TIFF that carry something of the user's and that no restored photo keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from PIL import ExifTags, TiffTags

from abair.images.exif import DESCRIPTIVE

_READ_ELSEWHERE: Final = frozenset({274, 282, 283, 296, 700, 33723, 34377, 34675})
"""Orientation, resolution, XMP, IPTC, Photoshop's resources and the colour profile."""
_STORAGE: Final = frozenset(
    {
        *range(254, 269), 273, *range(277, 282), 284, *range(288, 294), 297, 300, 317, *range(320, 329), 330,
        *range(332, 335), 336, *range(338, 343), 346, 347, 351, *range(400, 406), *range(433, 437), *range(512, 522),
        *range(529, 533), 559, *range(32995, 32999), *range(34908, 34911), 37439, 50674, 59932, 59933,
    }
)  # fmt: skip
"""Tags that only say how pixels are stored, among them numbers of pages, fax options and padding:
TIFF 6.0, its supplements, RFC 2301, libtiff and Microsoft."""
_NAMES: Final = {
    **dict.fromkeys((33550, 33922, 34264, 34735, 34736, 34737), "GeoTIFF"),
    37724: "Photoshop's layers",
    42112: "GDAL",
    42113: "GDAL",
}
"""Names that Pillow does not have, or that are plainer than Pillow's."""
_MOST_NAMES: Final = 10


def left_out(tags: Iterable[int]) -> str:
    """Name what is not kept of these tags of a directory; nothing if all that counts is kept."""
    lost = sorted(set(tags) - DESCRIPTIVE - _READ_ELSEWHERE - _STORAGE)
    names = list(dict.fromkeys(_NAMES.get(tag) or _name(tag) for tag in lost))
    more = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join(names[:_MOST_NAMES] + more)


def _name(tag: int) -> str:
    name = TiffTags.lookup(tag).name
    return ExifTags.TAGS.get(tag, f"tag {tag}") if name == "unknown" else name
