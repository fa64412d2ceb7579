"""What a file of each format holds beside the pixels, and one warning that names the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from abair.images.photo import Photo
from abair.text import one_line

KEPT: Final[dict[str, frozenset[str]]] = {
    "JPEG": frozenset({"EXIF", "colour profile", "resolution", "XMP", "IPTC", "comment", "rights"}),
    "PNG": frozenset({"EXIF", "colour profile", "resolution", "XMP", "IPTC", "comment", "texts", "colour chunks"}),
    "WEBP": frozenset({"EXIF", "colour profile", "XMP"}),
    "TIFF": frozenset({"EXIF", "colour profile", "resolution", "XMP", "IPTC", "rights"}),
    "BMP": frozenset({"resolution"}),
}
"""By Pillow's name of the format. A PNG keeps a comment as a text."""
LONGEST: Final = {"EXIF": 65_000, "XMP": 65_000, "IPTC": 65_000, "rights": 400, "comment": 65_533}
"""Bytes in a JPEG, which keeps each in one segment of 65,533 bytes with its name, and rights in
that of IPTC."""


def reduce_to_format(kind: str, photo: Photo) -> tuple[Photo, list[str]]:
    """Return the photo without what a file of format `kind` cannot hold, and the names of that.

    Resolution is not named: most files state one that nobody chose.
    """
    held = {
        "EXIF": photo.exif,
        "colour profile": photo.icc_profile,
        "XMP": photo.annotations.xmp,
        "IPTC": photo.annotations.iptc,
        "comment": photo.annotations.comment,
        "texts": photo.annotations.text,
        "colour chunks": photo.annotations.colour,
        "rights": photo.annotations.rights,
    }
    lost = {}
    for name, value in held.items():
        if value and name not in KEPT[kind]:
            lost[name] = name
        elif kind == "JPEG" and _length(value) > LONGEST.get(name, _length(value)):
            lost[name] = f"{name}, which is too long"
    if "texts" in lost:
        lost["texts"] += f" ({', '.join(one_line(keyword) for keyword, _ in photo.annotations.text)})"
    annotations = replace(
        photo.annotations,
        xmp=None if "XMP" in lost else photo.annotations.xmp,
        iptc=None if "IPTC" in lost else photo.annotations.iptc,
        comment=None if "comment" in lost else photo.annotations.comment,
        text=() if "texts" in lost else photo.annotations.text,
        colour=() if "colour chunks" in lost else photo.annotations.colour,
        rights=() if "rights" in lost else photo.annotations.rights,
    )
    reduced = replace(
        photo,
        exif=None if "EXIF" in lost else photo.exif,
        icc_profile=None if "colour profile" in lost else photo.icc_profile,
        annotations=annotations,
    )
    if not photo.annotations.tells_colours:  # they say sRGB, which is meant where nothing is said
        lost.pop("colour chunks", None)
    return reduced, list(lost.values())


def _length(value: bytes | tuple[tuple[object, bytes | str], ...] | None) -> int:
    """Return how long a value is, or the contents that it has."""
    return len(value or b"") if not isinstance(value, tuple) else sum(len(content) for _, content in value)
