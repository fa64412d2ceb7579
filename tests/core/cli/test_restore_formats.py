"""What `abair restore` makes of files in formats that are read and not written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo
from tests.support.image_files import smooth

from abair.images import OUTPUT_SUFFIXES, SUFFIXES


def save(image: Image.Image, path: str) -> None:
    image.save(path, quality=95)


def test_what_is_not_written_becomes_what_is(abair: Abair, restorer: FakeRestorer) -> None:
    save(Image.fromarray(smooth()), "a.avif")
    save(Image.fromarray(smooth()), "b.jp2")
    assert abair("restore", "a.avif", "b.jp2").code == 0
    assert files(".") == ["a.avif", "a.restored.jpg", "b.jp2", "b.restored.png"]
    assert Image.open("a.restored.jpg").format == "JPEG"
    assert abair("restore", "a.avif", "b.jp2", "-o", "fixed").code == 0
    assert files("fixed") == ["a.jpg", "b.png"]
    assert abair("restore", "a.avif", "-o", "kept.tif").code == 0
    assert abair("restore", "a.avif", "--name", "{stem}-fixed.webp").code == 0
    assert {"kept.tif", "a-fixed.webp"} < set(files("."))


def test_a_folder_gives_them_too(abair: Abair, restorer: FakeRestorer) -> None:
    photo("photos/a.png")
    save(Image.fromarray(smooth()), "photos/b.AVIF")
    assert abair("restore", "photos", "-o", "fixed").code == 0
    assert files("fixed") == ["a.png", "b.jpg"]


def test_one_whose_output_would_be_anothers_gets_a_longer_name(abair: Abair, restorer: FakeRestorer) -> None:
    for name in ("a.jpg", "b.avif"):
        photo(f"photos/{name}")
    save(Image.fromarray(smooth()), "photos/a.avif")
    assert abair("restore", "photos", "-o", "fixed").code == 0
    assert files("fixed") == ["a.avif.jpg", "a.jpg", "b.jpg"]
    assert abair("restore", "photos/a.avif", "photos/a.jpg").code == 0
    assert files("photos") == ["a.avif", "a.avif.restored.jpg", "a.jpg", "a.restored.jpg", "b.avif"]


def test_a_format_that_is_not_written_is_refused_as_the_output(abair: Abair, restorer: FakeRestorer) -> None:
    photo("in.png")
    done = abair("restore", "in.png", "-o", "out.heic")
    assert done.code == 1
    assert "out.heic: found the suffix '.heic', expected one of " in done.err[0]


def test_what_lacks_its_reader_costs_one_line(
    abair: Abair, restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo("photos/a.png")
    Path("photos/b.jxl").write_bytes(b"\xff\x0a" + bytes(30))
    monkeypatch.setitem(sys.modules, "pylibjxl.pillow_plugin", None)
    done = abair("restore", "photos", "-o", "fixed")
    assert (done.code, files("fixed")) == (1, ["a.png"])
    assert done.err == [
        "abair: photos/b.jxl: found a JPEG XL file, which needs pylibjxl; install it with: pip install "
        "'abair[formats]', or convert it first"
    ]


def test_every_output_can_be_written_and_no_suffix_is_both() -> None:
    assert set(OUTPUT_SUFFIXES.values()) <= SUFFIXES
    assert not SUFFIXES & OUTPUT_SUFFIXES.keys()
