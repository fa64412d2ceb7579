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
    assert files(".") == ["a.avif", "a.avif.restored.jpg", "b.jp2", "b.jp2.restored.png"]
    assert Image.open("a.avif.restored.jpg").format == "JPEG"
    assert abair("restore", "a.avif", "b.jp2", "-o", "fixed").code == 0
    assert files("fixed") == ["a.avif.jpg", "b.jp2.png"]
    assert abair("restore", "a.avif", "-o", "kept.tif").code == 0
    assert abair("restore", "a.avif", "--name", "{stem}-fixed.webp").code == 0
    assert {"kept.tif", "a.avif-fixed.webp"} < set(files("."))


def test_a_folder_gives_them_too(abair: Abair, restorer: FakeRestorer) -> None:
    photo("photos/a.png")
    save(Image.fromarray(smooth()), "photos/b.AVIF")
    assert abair("restore", "photos", "-o", "fixed").code == 0
    assert files("fixed") == ["a.png", "b.AVIF.jpg"]


@pytest.mark.parametrize("options", [["-o", "fixed"], [], ["--name", "{stem}_fixed{suffix}"]])
def test_names_do_not_depend_on_what_else_is_there(abair: Abair, restorer: FakeRestorer, options: list[str]) -> None:
    photo("photos/b.jpg")
    save(Image.fromarray(smooth()), "photos/a.avif")
    assert abair("restore", "photos", *options).code == 0
    photo("photos/a.jpg")
    before = {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    done = abair("restore", "photos", *options, "--skip-existing", "--json")
    assert [record["input"] for record in done.records if not record.get("skipped")] == ["photos/a.jpg"]
    assert (done.code, len(restorer.calls)) == (0, 3)
    assert {path: path.read_bytes() for path in before} == before
    again = abair("restore", "photos", *options, "--skip-existing", "--json")
    assert (again.code, len(restorer.calls)) == (0, 3)


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
