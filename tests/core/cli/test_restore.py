"""`abair restore`: which file goes where, what is printed, which options reach the restorer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo, pixels, write_manifest

from abair.cli import app, inputs


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_handed_over_in_their_own_depth(abair: Abair, restorer: FakeRestorer, dtype: type) -> None:
    from abair import images

    values = np.arange(4 * 3 * 3).reshape(4, 3, 3).astype(dtype) * 7
    like = images.Photo(values, None, False, "PNG", None, None)
    images.write(Path("in.png"), like, values)
    assert abair("restore", "in.png", "-o", "out.png").code == 0
    assert restorer.calls[0]["pixels"].dtype == dtype
    assert (images.read(Path("out.png")).pixels == np.iinfo(dtype).max - values).all()


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


def test_the_json_lines_of_restore_hold_exactly_what_is_promised(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png", size=(50, 20))
    Path("b.png").write_text("no photo")
    done = abair("restore", "a.png", "b.png", "-o", "fixed", "--json")
    assert done.code == 1
    failed, restored = done.records
    assert restored == {
        "input": "a.png",
        "output": os.path.join("fixed", "a.png"),
        "weights": {"noise": 0.75, "blur": 0.25, "clean": 0.0},
        "policy": "soft",
        "quality": "standard",
        "strength": 1.0,
        "seconds": 0.5,
        "megapixels": 0.001,
        "deployment": "fake-1",
        "unchanged": False,
        "warnings": [],
        "confidence": 0.98,
        "unknown": 0.4,
        "further_looks": [{"noise": 0.9, "blur": 0.0, "clean": 0.1}],
    }
    assert set(failed) == {"input", "error"}
    assert failed["input"] == "b.png"
    assert done.err == [f"abair: {failed['error']}"]


def test_restoring_says_nothing_on_stdout_and_nothing_without_a_terminal(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "-o", "b.png")
    assert (done.code, done.out, done.err) == (0, [], [])


def test_a_warning_of_the_log_is_one_line_on_stderr(abair: Abair, restorer: FakeRestorer) -> None:
    from abair import images

    values = np.zeros((4, 3, 3), np.uint16)
    images.write(Path("a.png"), images.Photo(values, None, False, "PNG", None, None), values)
    done = abair("restore", "a.png", "-o", "b.jpg", "--json")
    assert done.code == 0
    assert len(done.records) == len(done.err) == 1
    assert [f"abair: warning: a.png: {text}" for text in done.records[0]["warnings"]] == done.err


def test_each_photo_has_its_own_warnings(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    photo("b.png")
    Image.new("RGB", (4, 4)).save("c.jpg", comment="kept in the cellar")
    Path("broken.jpg").write_bytes(b"no photo")
    done = abair("restore", "c.jpg", "a.png", "b.png", "-o", "fixed", "--json")
    assert [len(record["warnings"]) for record in done.records] == [0, 0, 0]
    done = abair("restore", "c.jpg", "-o", "c.webp", "--json")
    assert ["comment" in text for text in done.records[0]["warnings"]] == [True]


def test_a_photo_is_restored_by_what_is_visible(abair: Abair, restorer: FakeRestorer) -> None:
    pixels_ = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    pixels_[..., 3] = 255
    pixels_[:2, :, 3] = 0
    Image.fromarray(pixels_).save("a.png")
    assert abair("restore", "a.png", "-o", "b.png").code == 0
    mean = pixels_[2:, :, :3].mean(axis=(0, 1)).astype(np.uint8)
    assert (restorer.calls[0]["pixels"][:2] == mean).all()
    written = np.asarray(Image.open("b.png"))
    assert np.array_equal(written[:2], pixels_[:2])
    assert np.array_equal(written[2:, :, :3], 255 - pixels_[2:, :, :3])


def test_a_photo_that_needs_nothing_keeps_its_bytes(abair: Abair, restorer: FakeRestorer) -> None:
    restorer.invert = False
    Image.new("RGB", (40, 30), (200, 100, 50)).save("a.jpg", quality=31, comment="as it was")
    done = abair("restore", "a.jpg", "-o", "b.jpg", "--json")
    assert (done.records[0]["unchanged"], done.records[0]["warnings"]) == (True, [])
    assert Path("b.jpg").read_bytes() == Path("a.jpg").read_bytes()
    done = abair("restore", "a.jpg", "-o", "c.png", "--json")
    assert done.records[0]["unchanged"] is False
    assert Image.open("c.png").format == "PNG"


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


def test_a_dry_run_says_what_would_be_done_and_does_nothing(abair: Abair, restorer: FakeRestorer) -> None:
    photo("in/a.png")
    photo("out/b.png")
    photo("in/b.png")
    done = abair("restore", "in", "-o", "new/deep", "--dry-run", "--json")
    target = os.path.join("new", "deep", "a.png")
    weights = {"noise": 0.75, "blur": 0.25, "clean": 0.0}
    assert done.records[0] == {
        "input": os.path.join("in", "a.png"),
        "output": target,
        "weights": weights,
        "confidence": 0.98,
        "unknown": 0.4,
    }
    assert not Path("new").exists()
    assert not restorer.calls
    shown = abair("restore", "in", "-o", "out", "--dry-run")
    assert shown.code == 1
    assert "b.png" in shown.err[0], "what would be refused is refused"
    assert shown.out[0] == f"{os.path.join('in', 'a.png')} -> {os.path.join('out', 'a.png')}"
    assert files("out") == ["b.png"]
    for wrong in ("nowhere/y.png", "in/a.png/x/"):
        told = abair("restore", "in/a.png", "-o", wrong, "--dry-run")
        real = abair("restore", "in/a.png", "-o", wrong)
        assert told.code == real.code == 1
        assert not told.out
    assert not Path("nowhere").exists()


def test_the_number_of_looks_is_handed_on(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "-o", "b.png", "--looks", "1", "--json")
    assert (restorer.calls[0]["looks"], done.records[0]["further_looks"]) == (1, [])
    abair("restore", "a.png", "-o", "c.png")
    assert restorer.calls[1]["looks"] is None
    for other in (["--weights", "noise=1"], ["--policy", "one-hot"]):
        assert abair("restore", "a.png", "-o", "d.png", "--looks", "2", *other).code == 2
    assert abair("restore", "a.png", "-o", "d.png", "--looks", "2", "--policy", "soft").code == 0


def test_the_strength_is_handed_on(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "-o", "b.png", "--strength", "0.5", "--json")
    assert (restorer.calls[0]["strength"], done.records[0]["strength"]) == (0.5, 0.5)
    for wrong in ("-0.1", "1.5", "nan", "half"):
        assert abair("restore", "a.png", "-o", "c.png", "--strength", wrong).code == 2
    assert not Path("c.png").exists()


def test_pages_are_never_lost(abair: Abair, restorer: FakeRestorer) -> None:
    pages = [Image.new("L", (40, 30), value) for value in (0, 100, 200)]
    pages[0].save("scan.tif", save_all=True, append_images=pages[1:])
    before = Path("scan.tif").read_bytes()
    done = abair("restore", "scan.tif", "-o", "scan.tif", "--overwrite", "--json")
    assert done.code == 1
    assert "a TIFF of 3 pages" in done.records[0]["error"]
    assert Path("scan.tif").read_bytes() == before


def test_weights_are_given_to_the_restorer_instead_of_a_policy(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    given = ["--weights", "noise=0.7, blur=.2", "--deployment", write_manifest("d")]
    done = abair("restore", "a.png", "-o", "b.png", *given, "--tile", "256", "--json")
    assert done.code == 0
    assert restorer.calls[0]["weights"] == {"noise": 0.7, "blur": 0.2}
    assert restorer.calls[0]["tile"] == 256
    assert done.records[0]["policy"] == "given"


def test_one_hot_device_quality_and_precision_reach_the_restorer(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    options = [
        "--policy",
        "one-hot",
        "--quality",
        "best",
        "--device",
        "cuda:1",
        "--precision",
        "bfloat16",
        "--deployment",
        "d",
    ]
    assert abair("restore", "a.png", "-o", "b.png", *options).code == 0
    assert restorer.loaded == [("d", "cuda:1", "bfloat16")]
    assert restorer.calls[0]["policy"] == "one-hot"
    assert restorer.calls[0]["quality"] == "best"


def test_the_precision_is_chosen_for_the_machine_unless_it_is_named(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    assert abair("restore", "a.png", "-o", "b.png").code == 0
    assert restorer.loaded == [(None, "cpu", "auto")]


def test_weights_are_parsed_as_they_are_written() -> None:
    assert inputs.parse_weights("noise=0.7,blur=.3") == {"noise": 0.7, "blur": 0.3}


def test_the_smallest_tile_is_the_tiling_s() -> None:
    from abair.inference import tiling

    assert app.SMALLEST_TILE == tiling.SMALLEST_PANEL


def test_a_jpeg_can_be_made_smaller(abair: Abair, restorer: FakeRestorer) -> None:
    photo("in.png", size=(90, 80))
    for quality in ("40", "95"):
        assert abair("restore", "in.png", "-o", f"{quality}.jpg", "--jpeg-quality", quality).code == 0
    assert abair("restore", "in.png", "-o", "default.jpg").code == 0
    small, large, default = (Path(f"{name}.jpg").stat().st_size for name in ("40", "95", "default"))
    assert small < 0.6 * large
    assert large == default
    for wrong in ("0", "101", "best"):
        done = abair("restore", "in.png", "-o", "x.jpg", "--jpeg-quality", wrong)
        assert (done.code, Path("x.jpg").exists()) == (2, False)
