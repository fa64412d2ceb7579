"""XMP, IPTC, comments, texts and stated colours are kept, or one warning names what is not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin
from tests.support.image_files import exif_block, noise, profile, same_again, save, smooth

from abair import images
from abair.images.annotations import Annotations
from abair.images.xmp import adapt_xmp

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/></rdf:RDF></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x19\x00\x05beach\x1c\x02\x78\x00\x0aAt the sea"
RESOURCES = (
    b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16) + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0"
)
TEXT = (("Author", "Ada"), ("Title", "Am Meer \u2014 caf\u00e9"))
LINEAR = (struct.pack(">I", 100000), struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600))
COLOUR = ((b"gAMA", LINEAR[0]), (b"cHRM", LINEAR[1]))


def jpeg(path: Path) -> Path:
    content = b"Photoshop 3.0\0" + RESOURCES
    segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    return save(path, smooth(), xmp=XMP, comment=b"box 12", extra=segment)


def png(path: Path, *, bits: int = 8, colour: bool = True) -> Path:
    chunks = PngImagePlugin.PngInfo()
    for name, data in COLOUR if colour else ():
        chunks.add(name, data)
    for keyword, value in TEXT:
        chunks.add_text(keyword, value)
    chunks.add_itxt("XML:com.adobe.xmp", XMP.decode())
    chunks.add_text("Raw profile type iptc", f"\niptc\n{len(RESOURCES):8}\n{RESOURCES.hex()}\n")
    if bits == 16:
        return save(path, Image.fromarray(noise(20, 30, 1, np.uint16)), pnginfo=chunks)
    return save(path, smooth(), pnginfo=chunks)


def tiff(path: Path, *, long: bool = False) -> Path:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700], tags[33723] = XMP, IPTC
    path = save(path, Image.fromarray(smooth()), tiffinfo=tags)
    if long:  # the kind that libtiff and ExifTool give it
        data = bytearray(path.read_bytes())
        entry = data.index(struct.pack("<H", 33723))
        padded = IPTC + bytes(-len(IPTC) % 4)
        data[entry : entry + 12] = struct.pack("<HHII", 33723, 4, len(padded) // 4, len(data))
        path.write_bytes(data + padded)
    return path


def webp(path: Path) -> Path:
    return save(path, smooth(), xmp=XMP)


SOURCES: dict[str, tuple[Callable[..., Path], Annotations]] = {
    "a.jpg": (jpeg, Annotations(XMP, IPTC, b"box 12")),
    "a.png": (png, Annotations(XMP, IPTC, None, TEXT, COLOUR)),
    "a.tif": (tiff, Annotations(XMP, IPTC)),
    "a.webp": (webp, Annotations(XMP)),
}
NAMES = {"iptc": "IPTC", "comment": "comment", "text": "texts (Author, Title)", "colour": "colour chunks"}
PLACES = {
    "b.jpg": {"xmp", "iptc", "comment"},
    "b.png": {"xmp", "iptc", "text", "colour"},  # a comment becomes a text
    "b.tif": {"xmp", "iptc"},
    "b.webp": {"xmp"},
    "b.bmp": set(),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", PLACES)
def test_from_every_format_to_every_other_all_is_kept_or_named(tmp_path: Path, source: str, target: str) -> None:
    make, held = SOURCES[source]
    path = make(tmp_path / source)
    assert images.read(path).annotations == held
    photo = same_again(path, tmp_path / target)
    again = photo.annotations
    for kind in ("xmp", "iptc", "comment", "text", "colour"):
        value = getattr(held, kind)
        if kind in PLACES[target]:
            assert getattr(again, kind) == value or (kind == "text" and dict(value).items() <= dict(again.text).items())
        elif value and (kind, target) != ("comment", "b.png"):
            assert not getattr(again, kind)
            assert NAMES.get(kind, "XMP") in photo.warnings[0]
    if target == "b.png" and held.comment:
        assert dict(again.text)["Comment"] == held.comment.decode()
    assert len(photo.warnings) <= 1


def test_what_is_written_is_found_by_others(tmp_path: Path) -> None:
    same_again(jpeg(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.info["xmp"] == XMP
        assert written.info["photoshop"] == {0x0404: IPTC}
        assert written.info["comment"] == b"box 12"
    same_again(png(tmp_path / "a.png"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as written:
        assert written.info["gamma"] == 1.0
        assert written.info["chromaticity"][2:4] == (0.708, 0.292)
        assert isinstance(written, PngImagePlugin.PngImageFile)
        assert written.text["Title"] == TEXT[1][1]
        assert bytes.fromhex("".join(written.text["Raw profile type iptc"].split("\n")[3:])).endswith(IPTC + b"\0")
    same_again(tiff(tmp_path / "a.tif"), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as written:
        assert written.tag_v2[700] == XMP  # type: ignore[attr-defined]
        assert written.tag_v2[33723] == IPTC  # type: ignore[attr-defined]


def test_a_16_bit_png_keeps_them_too(tmp_path: Path) -> None:
    photo = same_again(png(tmp_path / "a.png", bits=16), tmp_path / "b.png")
    assert photo.pixels.dtype == np.uint16
    assert photo.annotations == Annotations(XMP, IPTC, None, TEXT, COLOUR)


def test_iptc_that_a_tiff_calls_numbers_is_read_whole(tmp_path: Path) -> None:
    found = images.read(tiff(tmp_path / "a.tif", long=True)).annotations.iptc
    assert found is not None
    assert found.rstrip(b"\0") == IPTC


def test_srgb_by_another_name_is_no_loss(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", b"\0")
    chunks.add(b"gAMA", struct.pack(">I", 45455))
    chunks.add(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    assert same_again(save(tmp_path / "a.png", smooth(), pnginfo=chunks), tmp_path / "b.jpg").warnings == ()


def test_cicp_is_kept(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"cICP", bytes((9, 16, 0, 1)))
    source = save(tmp_path / "a.png", smooth(), pnginfo=chunks)
    assert same_again(source, tmp_path / "b.png").annotations.colour == ((b"cICP", bytes((9, 16, 0, 1))),)
    assert "colour chunks" in same_again(source, tmp_path / "b.webp").warnings[0]


def test_a_bitmap_names_all_that_it_cannot_hold(tmp_path: Path) -> None:
    source = save(tmp_path / "a.jpg", smooth(), exif=exif_block(), icc_profile=profile())
    assert "BMP has no place for it: EXIF; colour profile" in same_again(source, tmp_path / "b.bmp").warnings[0]


def test_xmp_too_long_for_a_jpeg_costs_a_warning(tmp_path: Path) -> None:
    long = XMP.replace(b"</x:xmpmeta>", b" " * 70_000 + b"</x:xmpmeta>")
    source = save(tmp_path / "a.webp", smooth(), xmp=long)
    photo = same_again(source, tmp_path / "b.jpg")
    assert photo.annotations.xmp is None
    assert "XMP, which is too long" in photo.warnings[0]
    assert same_again(source, tmp_path / "b.tif").annotations.xmp == long


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
@pytest.mark.parametrize(
    "form", ['<r:D tiff:Orientation="6" {0}/>', "<r:D><tiff:Orientation>6</tiff:Orientation>{1}</r:D>"]
)
def test_xmps_own_orientation_and_size_are_those_of_the_upright_photo(tmp_path: Path, name: str, form: str) -> None:
    sizes = {"tiff:ImageWidth": 40, "tiff:ImageLength": 24, "exif:PixelXDimension": 40, "exif:PixelYDimension": 24}
    attributes = " ".join(f'{key}="{value}"' for key, value in sizes.items())
    elements = "".join(f"<{key}>{value}</{key}>" for key, value in sizes.items())
    packet = form.format(attributes, elements).encode()
    exif = exif_block(6)
    options: dict[str, Any] = {"exif": exif, "xmp": packet}
    written = same_again(save(tmp_path / name, smooth(24, 40), **options), tmp_path / f"b{name}").annotations.xmp
    sizes = {"tiff:ImageWidth": 24, "tiff:ImageLength": 40, "exif:PixelXDimension": 24, "exif:PixelYDimension": 40}
    attributes = " ".join(f'{key}="{value}"' for key, value in sizes.items())
    elements = "".join(f"<{key}>{value}</{key}>" for key, value in sizes.items())
    assert written == form.replace("6", "1").format(attributes, elements).encode()


def test_what_lies_behind_the_photo_is_named_and_no_longer_described(tmp_path: Path) -> None:
    packet = XMP.replace(b"/></rdf:RDF>", b' hdrgm:Version="1.0"><Container:Directory><rdf:Seq/></Container:Directory>'
                         b"<hdrgm:Gamma>1</hdrgm:Gamma></rdf:Description></rdf:RDF>")  # fmt: skip
    photo = same_again(save(tmp_path / "a.jpg", smooth(), xmp=packet), tmp_path / "b.jpg")
    assert photo.annotations.xmp == XMP.replace(b"/></rdf:RDF>", b"></rdf:Description></rdf:RDF>")
    assert photo.warnings[0].startswith("its HDR gain map is left out")
    video = XMP.replace(b"/></rdf:RDF>", b' GCamera:MotionPhoto="1"/></rdf:RDF>')
    photo = same_again(save(tmp_path / "c.jpg", smooth(), xmp=video), tmp_path / "d.jpg")
    assert photo.annotations.xmp == XMP
    assert photo.warnings[0].startswith("its video is left out")


@pytest.mark.parametrize(
    "packet",
    [
        b"\xff\xfe<\0x\0",
        b"<",
        b"<<<>>",
        b"\0" * 40,
        b"<xmp:Thumbnails>" * 3000,
        b"<hdrgm:a" * 6000,
        b" " * 60_000,
        b"<x:xmpmeta <Container:" + b"a-" * 30_000,
    ],
)
def test_strange_packets_hurt_nobody(tmp_path: Path, packet: bytes) -> None:
    source = save(tmp_path / "a.webp", smooth(), xmp=packet)
    for target in PLACES:
        same_again(source, tmp_path / target)


def test_no_packet_takes_long(tmp_path: Path) -> None:
    """The time is proportional to the length: these took minutes when it was its square."""
    for start, part in (
        (b"<Container:", b"a-"),
        (b"", b"<hdrgm:a"),
        (b" ", b" hdrgm:a='"),
        (b"", b"<hdrgm:a>"),
        (b"", b" "),
    ):
        packet = start + part * (2_000_000 // len(part))
        assert len(adapt_xmp(packet, 10, 10)) <= len(packet) + 10


@pytest.mark.parametrize("property_", ['GCamera:MotionPhoto="0"', 'dc:title="MotionPhoto"', 'dc:title="MicroVideo 1"'])
def test_no_video_is_missed_where_there_is_none(tmp_path: Path, property_: str) -> None:
    packet = XMP.replace(b"/></rdf:RDF>", f" {property_}/></rdf:RDF>".encode())
    assert images.read(save(tmp_path / "a.jpg", smooth(), xmp=packet)).warnings == ()


def test_a_second_packet_is_named(tmp_path: Path) -> None:
    packet = XMP.replace(b"/></rdf:RDF>", b' xmpNote:HasExtendedXMP="0123"/></rdf:RDF>')
    photo = images.read(save(tmp_path / "a.jpg", smooth(), xmp=packet))
    assert photo.annotations.xmp == XMP
    assert photo.warnings[0].startswith("its second XMP packet is left out")


def test_comments_are_kept_whatever_their_number_and_encoding(tmp_path: Path) -> None:
    source = save(tmp_path / "a.jpg", smooth(), comment="Gr\u00fc\u00dfe".encode("latin-1"))
    assert dict(same_again(source, tmp_path / "b.png").annotations.text)["Comment"] == "Gr\u00fc\u00dfe"
    data = source.read_bytes()
    source.write_bytes(data[:2] + b"\xff\xfe\x00\x07first" + data[2:])
    assert images.read(source).annotations.comment == b"first\nGr\xfc\xdfe"


def test_texts_that_only_others_understand_are_kept(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Raw profile type 8bim", "\n8bim\n 2\nabcd\n")
    found = same_again(save(tmp_path / "a.png", smooth(), pnginfo=chunks), tmp_path / "b.png").annotations.text
    assert found == (("Raw profile type 8bim", "\n8bim\n 2\nabcd\n"),)


def test_a_tiff_keeps_titles_and_names_no_directory_that_is_not_there(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[269], exif[40091] = "page 7", "Titel".encode("utf-16-le")
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    same_again(save(tmp_path / "a.jpg", smooth(), exif=exif.tobytes()), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as written:
        found = written.getexif()
        assert found[269] == "page 7"
        assert bytes(found[40091]) == "Titel".encode("utf-16-le")
        assert 0xA005 not in found.get_ifd(0x8769)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_keyword_may_come_twice(tmp_path: Path, bits: int) -> None:
    chunks = PngImagePlugin.PngInfo()
    texts = (("Author", "Ada"), ("Author", "Grace"), ("Title", "Am Meer \u2014"), ("Author", "Ada"))
    for keyword, value in texts:
        chunks.add_text(keyword, value, zip=value == "Grace")
    picture = smooth() if bits == 8 else noise(20, 30, 1, np.uint16)
    photo = same_again(save(tmp_path / "a.png", Image.fromarray(picture), pnginfo=chunks), tmp_path / "b.png")
    assert photo.annotations.text == texts


def test_rights_stay_in_a_jpeg_and_clipping_paths_are_named(tmp_path: Path) -> None:
    def resource(number: int, data: bytes) -> bytes:
        return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)

    url = b"https://example.org/x"
    content = b"Photoshop 3.0\0" + resource(0x040A, b"\1") + resource(0x040B, url) + resource(2000, bytes(26))
    content += resource(0x0404, IPTC) + resource(1036, bytes(100))
    segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    path = save(tmp_path / "a.jpg", smooth(), extra=segment)
    again = same_again(path, tmp_path / "b.jpg")
    assert again.annotations == Annotations(iptc=IPTC, rights=((0x040A, b"\1"), (0x040B, url)))
    assert again.warnings == ("its clipping paths are left out",)
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.info["photoshop"].keys() == {0x040A, 0x040B, 0x0404}
    assert "left out, because PNG has no place for it: rights" in same_again(path, tmp_path / "b.png").warnings
