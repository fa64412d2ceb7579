"""`abair restore` hands on what it is told, and says what it has done."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo, pixels, write_manifest

from abair.cli import app, inputs
from abair.errors import ImageError


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_handed_over_in_their_own_depth(abair: Abair, restorer: FakeRestorer, dtype: type) -> None:
    from abair import images

    values = np.arange(4 * 3 * 3).reshape(4, 3, 3).astype(dtype) * 7
    like = images.Photo(values, None, False, "PNG", None, None)
    images.write(Path("in.png"), images.finish(like, values))
    assert abair("restore", "in.png", "-o", "out.png").code == 0
    assert restorer.calls[0]["pixels"].dtype == dtype
    assert (images.read(Path("out.png")).pixels == np.iinfo(dtype).max - values).all()


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


def test_an_output_named_as_cp_takes_it_is_refused_before_anything_is_written(
    abair: Abair, restorer: FakeRestorer
) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "b.jpg")
    assert (done.code, files(".")) == (2, ["a.png"])
    (told,) = done.err
    assert "b.jpg: found no such file; to name the output: abair restore a.png -o b.jpg" in told
    assert abair("restore", "a.png", "b").code == 1, "that may be a folder that was mistyped"
    photo("b.jpg")
    assert abair("restore", "a.png", "b.jpg", "-o", "fixed").code == 0


def test_restoring_says_nothing_on_stdout_and_nothing_without_a_terminal(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "-o", "b.png")
    assert (done.code, done.out, done.err) == (0, [], [])


def test_a_warning_of_the_log_is_one_line_on_stderr(abair: Abair, restorer: FakeRestorer) -> None:
    from abair import images

    values = np.zeros((4, 3, 3), np.uint16)
    images.write(Path("a.png"), images.finish(images.Photo(values, None, False, "PNG", None, None), values))
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


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_many_photos_are_restored_side_by_side_and_told_in_order(abair: Abair, restorer: FakeRestorer) -> None:
    names = [photo(f"{index}.png", seed=index, size=(6, 5 + index)).name for index in range(8)]
    threads = set()

    def wait(image: np.ndarray) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.04 if len(image) % 2 else 0.0)
        if len(image) == 5 + 3:
            raise ImageError("3.png: damaged")

    restorer.before = wait
    done = abair("restore", *names, "-o", "fixed", "--json")
    assert threading.main_thread().ident not in threads
    assert [record["input"] for record in done.records] == names
    assert [name for name, record in zip(names, done.records, strict=True) if "error" in record] == ["3.png"]
    assert done.err == ["abair: 3.png: damaged"]
    for name in set(names) - {"3.png"}:
        assert np.array_equal(pixels(f"fixed/{name}"), 255 - pixels(name))
