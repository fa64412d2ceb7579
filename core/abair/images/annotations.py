"""What a file says beside its pixels, EXIF and colour profile: read, and laid out for each format.

JPEG keeps XMP, IPTC and comments in segments, PNG keeps them in chunks of text and states colours
in chunks of their own, TIFF has tags.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final

from PIL import ImageFile, PngImagePlugin, TiffImagePlugin

from abair.images import jpeg_stream
from abair.images.xmp import adapt_xmp, behind_the_photo

_PHOTOSHOP_NAME: Final = b"Photoshop 3.0\0"
_RESOURCE: Final = b"8BIM"
_IPTC_RESOURCE: Final = 0x0404
"""Adobe Photoshop file formats specification: image resource of the IPTC-NAA record."""
_RIGHTS: Final = (0x040A, 0x040B)
"""And of the flag that a photo is copyrighted, and of the URL beside it."""
_PATHS: Final = range(2000, 2999)
"""And of clipping paths, whose places in a photo change when it is turned."""
_IPTC_MARK: Final = b"\x1c"
"""The first byte of each IPTC record."""
_XMP_TAG, _IPTC_TAG, _RESOURCES_TAG = 700, 33723, 34377  # of TIFF
_XMP_KEYWORD: Final = "XML:com.adobe.xmp"
RAW_PROFILE: Final = "Raw profile type "
"""Begins the keywords of texts in which ImageMagick keeps a PNG's metadata, as hexadecimals."""
_TEXT_CHUNKS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_COLOUR_CHUNKS: Final = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP"})
"""W3C PNG, section 11.3.2; a profile is read by Pillow."""
CICP: Final = b"cICP"
_SRGB_NUMBERS: Final = (frozenset({1, 2}), frozenset({1, 2, 6, 13, 14, 15}))
"""Primaries and transfers that are shown as sRGB, or not stated: ITU-T H.273, section 8."""
_SRGB_CHUNKS: Final = {
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    b"cICP": bytes((1, 13, 0, 1)),
}
"""What the chunks hold where they say no more than that colours are sRGB."""


@dataclass(frozen=True)
class Annotations:
    """What a file says beside its pixels, EXIF, colour profile and resolution."""

    xmp: bytes | None = None
    """The XMP packet."""
    iptc: bytes | None = None
    """The records of IPTC-IIM: captions, keywords, credits."""
    comment: bytes | None = None
    """The comment of a JPEG."""
    text: tuple[tuple[str, str], ...] = ()
    """Keywords and texts of a PNG."""
    colour: tuple[tuple[bytes, bytes], ...] = ()
    """Names and contents of the chunks in which a PNG states its colours."""
    rights: tuple[tuple[int, bytes], ...] = ()
    """Photoshop's resources on rights in a JPEG or TIFF: numbers and contents."""

    @property
    def tells_colours(self) -> bool:
        """True if `colour` says that colours are other than sRGB."""
        return any(_SRGB_CHUNKS.get(name, data) != data for name, data in self.colour)


def srgb_by_numbers(primaries: int, transfer: int) -> bool:
    """Return whether colours that are declared by these numbers of H.273 are shown as sRGB."""
    return primaries in _SRGB_NUMBERS[0] and transfer in _SRGB_NUMBERS[1]


def read_annotations(
    image: ImageFile.ImageFile, file: BinaryIO, size: tuple[int, int], warn: Callable[[str], None]
) -> Annotations:
    """Return the annotations of a loaded image that was opened on `file`.

    `size` is that of the upright photo, (width, height). `warn` gets what cannot be kept.
    """
    info = image.info
    if image.format == "TIFF":
        return read_tiff(image.tag_v2, size, warn)  # type: ignore[attr-defined]
    if image.format == "PNG":
        found = _read_png(image, file)
    else:
        resources = info["photoshop"] if isinstance(info.get("photoshop"), dict) else {}
        iptc, rights = _read_known(resources, warn)
        comments = [data for name, data in getattr(image, "applist", ()) if name == "COM"]
        colour = ((CICP, info["cicp"]),) if "cicp" in info and "icc_profile" not in info else ()
        found = Annotations(info.get("xmp"), iptc, b"\n".join(comments) or None, colour=colour, rights=rights)
    behind = jpeg_stream.behind_the_end(file) if image.format == "JPEG" else ""
    for name in behind_the_photo(found.xmp or b"", behind or ("its second image" if "mp" in info else "")):
        warn(f"{name} is left out; it would not fit the restored photo")
    return replace(found, xmp=adapt_xmp(found.xmp, *size)) if found.xmp else found


def read_tiff(
    tags: TiffImagePlugin.ImageFileDirectory_v2, size: tuple[int, int], warn: Callable[[str], None]
) -> Annotations:
    """Return the annotations in a TIFF's directory, for an upright photo of (width, height).

    `warn` gets what cannot be kept.
    """
    xmp = _tag_bytes(tags, _XMP_TAG)
    iptc, rights = _read_known(_read_resources(_tag_bytes(tags, _RESOURCES_TAG) or b""), warn)
    return Annotations(adapt_xmp(xmp, *size) if xmp else None, _tag_bytes(tags, _IPTC_TAG) or iptc, rights=rights)


def jpeg_options(annotations: Annotations) -> dict[str, Any]:
    """Return Pillow's options for a JPEG."""
    options: dict[str, Any] = {"comment": annotations.comment or b""}  # or it takes that of the image
    if annotations.xmp:
        options["xmp"] = annotations.xmp
    resources = list(annotations.rights)
    if annotations.iptc:
        resources.append((_IPTC_RESOURCE, annotations.iptc))
    if resources:
        content = _PHOTOSHOP_NAME + b"".join(_resource(number, data) for number, data in resources)
        options["extra"] = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    return options


def png_chunks(annotations: Annotations) -> PngImagePlugin.PngInfo:
    """Return the chunks of a PNG; a comment becomes a text."""
    chunks = PngImagePlugin.PngInfo()
    for name, data in annotations.colour:
        chunks.add(name, data)
    for keyword, value in annotations.text:
        chunks.add_text(keyword, value)
    if annotations.comment:
        chunks.add_text("Comment", _decode_comment(annotations.comment))
    if annotations.xmp:
        chunks.add_itxt(_XMP_KEYWORD, annotations.xmp.decode("utf-8", "replace").replace("\0", ""))
    if annotations.iptc:
        content = _resource(_IPTC_RESOURCE, annotations.iptc).hex()
        lines = [content[start : start + 72] for start in range(0, len(content), 72)]
        chunks.add_text(f"{RAW_PROFILE}iptc", "\n".join(["", "iptc", f"{len(content) // 2:8}", *lines, ""]), zip=True)
    return chunks


def tiff_tags(annotations: Annotations) -> dict[int, bytes]:
    """Return the tags of a TIFF."""
    resources = b"".join(_resource(number, data) for number, data in annotations.rights)
    tags = {_XMP_TAG: annotations.xmp, _IPTC_TAG: annotations.iptc, _RESOURCES_TAG: resources}
    return {tag: data for tag, data in tags.items() if data}


def _read_png(image: ImageFile.ImageFile, file: BinaryIO) -> Annotations:
    texts: dict[str, str] = image.text  # type: ignore[attr-defined]
    xmp = texts.get(_XMP_KEYWORD)
    raw = {kind: texts.get(RAW_PROFILE + kind, "") for kind in ("exif", "iptc", "xmp")}  # EXIF is read by others
    elsewhere = {_XMP_KEYWORD, *(RAW_PROFILE + kind for kind in raw)}
    text = tuple(pair for pair in _read_texts(file) if pair[0] not in elsewhere)
    iptc = _iptc_from_resources(decode_raw_profile(raw["iptc"]))
    packet = xmp.encode() if xmp else decode_raw_profile(raw["xmp"])
    return Annotations(xmp=packet or None, iptc=iptc or None, text=text, colour=_colour_chunks(file))


def _read_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Yield keywords and texts in their order; a keyword may come twice, which Pillow forgets."""
    for name, data in _read_chunks(file, _TEXT_CHUNKS):
        stream = PngImagePlugin.PngStream(io.BytesIO(data))
        getattr(stream, f"chunk_{name.decode()}")(0, len(data))
        yield from stream.im_text.items()


def _colour_chunks(file: BinaryIO) -> tuple[tuple[bytes, bytes], ...]:
    """Return the chunks before the pixels that state colours."""
    found: dict[bytes, bytes] = {}
    for name, data in _read_chunks(file, _COLOUR_CHUNKS | {b"IDAT"}):
        if name == b"IDAT":
            break
        if len(data) <= 32:
            found.setdefault(name, data)
    return tuple(found.items())


def _read_chunks(file: BinaryIO, names: Collection[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield names and contents of a PNG's chunks of these names; those of IDAT are not read."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, following = int.from_bytes(head[:4], "big"), file.tell() + int.from_bytes(head[:4], "big") + 4
        if head[4:] in names:
            yield head[4:], file.read(length) if head[4:] != b"IDAT" else b""
        file.seek(following)


def _decode_comment(comment: bytes) -> str:
    """Return a JPEG's comment as text; the format names no encoding."""
    try:
        text = comment.decode("utf-8")
    except UnicodeDecodeError:
        text = comment.decode("latin-1")
    return text.replace("\0", " ")


def decode_raw_profile(text: str) -> bytes:
    """Return what such a text holds: three lines, then hexadecimals; nothing if it is broken."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def _read_known(
    resources: Mapping[int, bytes], warn: Callable[[str], None]
) -> tuple[bytes | None, tuple[tuple[int, bytes], ...]]:
    """Return the IPTC records among Photoshop's image resources, and those on rights."""
    if any(number in _PATHS for number in resources):
        warn("its clipping paths are left out")
    rights = tuple((number, resources[number]) for number in _RIGHTS if number in resources)
    return resources.get(_IPTC_RESOURCE) or None, rights


def _iptc_from_resources(data: bytes) -> bytes:
    """Return the IPTC records in Photoshop's image resources, or the data if they are bare."""
    data = data.removeprefix(_PHOTOSHOP_NAME)
    return _read_resources(data).get(_IPTC_RESOURCE, b"") if data.startswith(_RESOURCE) else data


def _read_resources(data: bytes) -> dict[int, bytes]:
    """Return the numbers and contents of Photoshop's image resources."""
    place, found = 0, dict[int, bytes]()
    while data[place : place + 4] == _RESOURCE:
        kind = int.from_bytes(data[place + 4 : place + 6], "big")
        name = 1 + data[place + 6] if place + 6 < len(data) else 1
        start = place + 6 + name + name % 2 + 4
        length = int.from_bytes(data[start - 4 : start], "big")
        found.setdefault(kind, data[start : start + length])
        place = start + length + length % 2
    return found


def _resource(number: int, data: bytes) -> bytes:
    """Return one of Photoshop's image resources, without a name."""
    return _RESOURCE + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)


def _tag_bytes(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> bytes | None:
    """Return the bytes of a TIFF's tag, which some writers call numbers of 32 bits."""
    data = tags._tagdata.get(tag) or b""  # of several numbers Pillow's own answer has the first
    if data[:1] != _IPTC_MARK and data[3:4] == _IPTC_MARK and len(data) % 4 == 0:  # swapped once too often
        data = struct.pack(f"<{len(data) // 4}I", *struct.unpack(f">{len(data) // 4}I", data))
    return data or None
