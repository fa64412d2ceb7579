"""Outputs of `abair restore` go where they are named, and nothing that is there is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo, pixels


def test_one_photo_goes_to_the_file_that_is_named(abair: Abair, restorer: FakeRestorer) -> None:
    source = photo("in.png")
    assert abair("restore", "in.png", "-o", "out.tiff").code == 0
    assert (pixels("out.tiff") == 255 - pixels(source)).all()
    assert Image.open("out.tiff").format == "TIFF"


@pytest.mark.parametrize("out", ["fixed/", "fixed", "new/fixed/"])
def test_a_name_without_an_ending_is_a_folder_and_is_made(abair: Abair, restorer: FakeRestorer, out: str) -> None:
    photo("in.png")
    assert abair("restore", "in.png", "-o", out).code == 0
    assert files(out) == ["in.png"]


def test_several_photos_keep_their_names_and_formats_in_a_folder(abair: Abair, restorer: FakeRestorer) -> None:
    for name in ("a.png", "deep/b.bmp", "c.tif"):
        photo(name)
    assert abair("restore", "a.png", "deep/b.bmp", "c.tif", "-o", "fixed").code == 0
    assert files("fixed") == ["a.png", "b.bmp", "c.tif"]
    assert Image.open("fixed/b.bmp").format == "BMP"


def test_a_folder_gives_its_photos_and_with_r_those_below_in_their_sub_folders(
    abair: Abair, restorer: FakeRestorer
) -> None:
    for name in ("photos/a.png", "photos/x/a.png", "photos/x/y/b.PNG", "photos/.hidden/c.png", "photos/._a.png"):
        photo(name)
    Path("photos/notes.txt").write_text("no photo")
    assert abair("restore", "photos", "-o", "flat").code == 0
    assert files("flat") == ["a.png"]
    assert abair("restore", "photos", "-r", "-o", "tree").code == 0
    assert files("tree") == ["a.png", "x/a.png", "x/y/b.PNG"]


def test_an_output_folder_inside_the_input_folder_is_no_input(abair: Abair, restorer: FakeRestorer) -> None:
    photo("photos/a.png")
    for _ in range(2):
        assert abair("restore", "photos", "-r", "-o", "photos/fixed", "--overwrite").code == 0
    assert files("photos") == ["a.png", "fixed/a.png"]


def test_the_same_photo_named_twice_is_restored_once(abair: Abair, restorer: FakeRestorer) -> None:
    photo("photos/a.png")
    assert abair("restore", "photos/a.png", "./photos/a.png", "photos", "-o", "fixed").code == 0
    assert len(restorer.calls) == 1


def test_an_existing_output_is_replaced_only_with_overwrite(abair: Abair, restorer: FakeRestorer) -> None:
    photo("in.png")
    before = photo("out.png", seed=1).read_bytes()
    refused = abair("restore", "in.png", "-o", "out.png")
    assert refused.code == 1
    assert len(refused.err) == 1
    assert "--overwrite" in refused.err[0]
    assert Path("out.png").read_bytes() == before
    assert restorer.loaded == [], "nothing to do, so the network is not loaded"
    assert abair("restore", "in.png", "-o", "out.png", "--overwrite").code == 0
    assert Path("out.png").read_bytes() != before


def test_the_input_itself_is_no_output_without_overwrite(abair: Abair, restorer: FakeRestorer) -> None:
    before = photo("photos/in.png").read_bytes()
    for out in ("photos/in.png", "photos", "photos/../photos/"):
        refused = abair("restore", "photos/in.png", "-o", out)
        assert refused.code == 1
        assert "the input itself" in refused.err[0]
    assert Path("photos/in.png").read_bytes() == before
    assert abair("restore", "photos/in.png", "-o", "photos", "--overwrite").code == 0
    assert Path("photos/in.png").read_bytes() != before


def test_no_folder_is_left_behind_where_nothing_can_be_written(abair: Abair, restorer: FakeRestorer) -> None:
    Path("text.jpg").write_text("no photo")
    photo("sub/good.png")
    assert abair("restore", "text.jpg", "-o", "new").code == 1
    assert not Path("new").exists()
    Path("sub/deep").mkdir()
    Path("sub/deep/bad.png").write_text("no photo")
    assert abair("restore", "sub", "-r", "-o", "new").code == 1
    assert files("new") == ["good.png"]
    assert not Path("new/deep").exists()


def test_without_an_output_the_result_lies_beside_the_photo(abair: Abair, restorer: FakeRestorer) -> None:
    photo("in/a.png")
    before = photo("in/b.tiff").read_bytes()
    assert abair("restore", "in").code == 0
    assert files("in") == ["a.png", "a.restored.png", "b.restored.tiff", "b.tiff"]
    assert Path("in/b.tiff").read_bytes() == before
    again = abair("restore", "in")
    assert again.code == 1
    assert len(again.err) == 2, "results are no photos to restore"
    assert abair("restore", "in", "--overwrite").code == 0
    assert abair("restore", "in/a.restored.png").code == 0
    assert files("in") == ["a.png", "a.restored.png", "a.restored.restored.png", "b.restored.tiff", "b.tiff"]


def test_outputs_are_named_by_a_pattern(abair: Abair, restorer: FakeRestorer) -> None:
    photo("in/a.png")
    photo("in/b.tiff")
    assert abair("restore", "in", "-o", "out", "--name", "{stem}_fixed{suffix}").code == 0
    assert files("out") == ["a_fixed.png", "b_fixed.tiff"]
    assert abair("restore", "in", "--name", "new-{stem}.webp").code == 0
    assert files("in") == ["a.png", "b.tiff", "new-a.webp", "new-b.webp"]
    assert Image.open("in/new-b.webp").format == "WEBP"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "{}",
        "{name}",
        "{stem",
        "a/{stem}",
        "..",
        "{stem.x}",
        "{0}",
        "{stem[0]}.jpg",
        "{stem:/>5}.jpg",
        "{stem!r}.jpg",
    ],
)
def test_a_pattern_that_makes_no_name_is_refused(abair: Abair, restorer: FakeRestorer, name: str) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "--name", name)
    assert done.code == 2
    assert len(done.err) == 1
    assert "{stem}_fixed{suffix}" in done.err[0]


def test_a_pattern_fits_no_named_file_and_no_single_name_fits_several(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    photo("b.png")
    assert abair("restore", "a.png", "-o", "c.png", "--name", "{stem}.png").code == 2
    done = abair("restore", "a.png", "b.png", "--name", "same.png")
    assert done.code == 2
    assert "same.png" in done.err[0]
    assert files(".") == ["a.png", "b.png"]


def test_no_photo_is_replaced_before_it_is_read(abair: Abair, restorer: FakeRestorer) -> None:
    for name in ("a.png", "a_f.png"):
        photo(name, seed=len(name))
    before = Path("a_f.png").read_bytes()
    done = abair("restore", "a.png", "a_f.png", "--name", "{stem}_f{suffix}", "--overwrite")
    assert done.code == 2
    assert "a_f.png, which is to be restored itself" in done.err[0]
    assert Path("a_f.png").read_bytes() == before
    assert abair("restore", ".", "--name", "{stem}_f{suffix}", "--overwrite").code == 0
    assert files(".") == ["a.png", "a_f.png"], "in a folder the second one is a result of the first"


def test_a_folder_of_results_alone_is_told(abair: Abair, restorer: FakeRestorer) -> None:
    photo("in/a.restored.png")
    done = abair("restore", "in")
    assert (done.code, len(done.err)) == (0, 1)
    assert "results of earlier runs" in done.err[0]


def test_what_is_done_and_as_new_is_skipped(abair: Abair, restorer: FakeRestorer) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo(name)
        os.utime(name, (1000, 1000))
    assert abair("restore", "a.png", "b.png", "-o", "out").code == 0
    os.utime("b.png", (4e9, 4e9))
    done = abair("restore", "a.png", "b.png", "c.png", "-o", "out", "--skip-existing", "--overwrite", "--json")
    assert done.code == 0
    skipped, *restored = done.records
    assert skipped == {"input": "a.png", "output": os.path.join("out", "a.png"), "skipped": True}
    assert [record["input"] for record in restored] == ["b.png", "c.png"]
    refused = abair("restore", "b.png", "-o", "out", "--skip-existing")
    assert refused.code == 1
    assert "--overwrite" in refused.err[0]
    in_place = abair("restore", "a.png", "-o", "a.png", "--skip-existing", "--overwrite", "--json")
    assert "skipped" not in in_place.records[0]


def test_times_are_kept_if_asked_for(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    os.utime("a.png", ns=(10**18 + 5, 10**18 + 5))
    assert abair("restore", "a.png", "-o", "b.png", "--keep-times").code == 0
    assert Path("b.png").stat().st_mtime_ns == Path("a.png").stat().st_mtime_ns
    assert abair("restore", "a.png", "-o", "a.png", "--overwrite", "--keep-times").code == 0
    assert Path("a.png").stat().st_mtime_ns == 10**18 + 5
    assert abair("restore", "a.png", "-o", "c.png").code == 0
    assert Path("c.png").stat().st_mtime_ns > Path("a.png").stat().st_mtime_ns
