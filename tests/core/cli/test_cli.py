"""The command line: which file goes where, what is said where, and the exit codes; with a restorer that is quick."""

from __future__ import annotations

import base64
import errno
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from abair.cli import app, console, inputs
from abair.errors import DeploymentError, ImageError

LABELS = ("noise", "blur", "clean")


class FakeRestorer:
    """Inverts a photo, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.loaded: list[tuple[Any, ...]] = []
        self.before: Callable[[np.ndarray], None] = lambda pixels: None

    def load(self, *given: Any) -> FakeRestorer:
        self.loaded.append(given)
        return self

    def estimate(self, image: np.ndarray) -> dict[str, float]:
        self.before(image)
        return {"noise": 0.75, "blur": 0.25, "clean": 0.0}

    def __call__(self, image: np.ndarray, **options: Any) -> Any:
        self.before(image)
        self.calls.append({"pixels": image, **options})
        weights = options["weights"] if options["weights"] is not None else self.estimate(image)
        return SimpleNamespace(
            image=np.iinfo(image.dtype).max - image,
            weights=weights,
            policy=options["policy"] if options["weights"] is None else "given",
            deployment="fake-1",
            seconds=0.5,
            megapixels=image.shape[0] * image.shape[1] / 1e6,
        )


@pytest.fixture
def restorer(monkeypatch: pytest.MonkeyPatch) -> FakeRestorer:
    fake = FakeRestorer()
    monkeypatch.setattr(app, "load_restorer", fake.load)
    return fake


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABAIR_DEBUG", raising=False)


@pytest.fixture
def abair(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., SimpleNamespace]]:
    """Calls the command line; gives the exit code, the lines on stdout and on stderr, and stdout's JSON."""

    def call(*arguments: str) -> SimpleNamespace:
        code = app.run(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        records = [json.loads(line) for line in said.out.splitlines()] if "--json" in arguments else []
        return SimpleNamespace(code=code, out=said.out.splitlines(), err=said.err.splitlines(), records=records)

    yield call
    assert logging.getLogger("abair").handlers == []


def photo(path: str, *, seed: int = 0, size: tuple[int, int] = (6, 5)) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


# What goes where


def test_one_photo_goes_to_the_file_that_is_named(abair, restorer) -> None:
    source = photo("in.png")
    assert abair("restore", "in.png", "-o", "out.tiff").code == 0
    assert (pixels("out.tiff") == 255 - pixels(source)).all()
    assert Image.open("out.tiff").format == "TIFF"


@pytest.mark.parametrize("out", ["fixed/", "fixed", "new/fixed/"])
def test_a_name_without_an_ending_is_a_folder_and_is_made(abair, restorer, out: str) -> None:
    photo("in.png")
    assert abair("restore", "in.png", "-o", out).code == 0
    assert files(out) == ["in.png"]


def test_several_photos_keep_their_names_and_formats_in_a_folder(abair, restorer) -> None:
    for name in ("a.png", "deep/b.bmp", "c.tif"):
        photo(name)
    assert abair("restore", "a.png", "deep/b.bmp", "c.tif", "-o", "fixed").code == 0
    assert files("fixed") == ["a.png", "b.bmp", "c.tif"]
    assert Image.open("fixed/b.bmp").format == "BMP"


def test_a_folder_gives_its_photos_and_with_r_those_below_in_their_sub_folders(abair, restorer) -> None:
    for name in ("photos/a.png", "photos/x/a.png", "photos/x/y/b.PNG", "photos/.hidden/c.png", "photos/._a.png"):
        photo(name)
    Path("photos/notes.txt").write_text("no photo")
    assert abair("restore", "photos", "-o", "flat").code == 0
    assert files("flat") == ["a.png"]
    assert abair("restore", "photos", "-r", "-o", "tree").code == 0
    assert files("tree") == ["a.png", "x/a.png", "x/y/b.PNG"]


def test_an_output_folder_inside_the_input_folder_is_no_input(abair, restorer) -> None:
    photo("photos/a.png")
    for _ in range(2):
        assert abair("restore", "photos", "-r", "-o", "photos/fixed", "--overwrite").code == 0
    assert files("photos") == ["a.png", "fixed/a.png"]


def test_the_same_photo_named_twice_is_restored_once(abair, restorer) -> None:
    photo("photos/a.png")
    assert abair("restore", "photos/a.png", "./photos/a.png", "photos", "-o", "fixed").code == 0
    assert len(restorer.calls) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_handed_over_in_their_own_depth(abair, restorer, dtype: type) -> None:
    from abair.images import photo_file

    values = np.arange(4 * 3 * 3).reshape(4, 3, 3).astype(dtype) * 7
    like = photo_file.Photo(values, None, False, "PNG", None, None)
    photo_file.write(Path("in.png"), like, values)
    assert abair("restore", "in.png", "-o", "out.png").code == 0
    assert restorer.calls[0]["pixels"].dtype == dtype
    assert (photo_file.read(Path("out.png")).pixels == np.iinfo(dtype).max - values).all()


def test_a_page_shows_all_photos_before_and_after(abair, restorer) -> None:
    photo("a <b>.png", size=(1500, 30))
    Image.fromarray(np.full((9, 12), 40_000, np.uint16)).save("deep.png")
    Path("broken.png").write_bytes(b"no photo")
    done = abair("restore", "a <b>.png", "broken.png", "deep.png", "-o", "fixed", "--page", "seen/page.html")
    assert done.code == 1
    assert len(done.err) == 1
    text = Path("seen/page.html").read_text()
    assert files("seen") == ["page.html"]
    assert [name in text for name in ("a &lt;b&gt;.png", "deep.png", "broken.png")] == [True, True, False]
    assert text.count("noise 0.75, blur 0.25") == 2
    shown = [Image.open(io.BytesIO(base64.b64decode(part))) for part in re.findall(r"base64,([^\"]+)", text)]
    assert [picture.size for picture in shown] == [(1200, 24)] * 2 + [(12, 9)] * 2
    assert text.count("shown at 80% of its size") == 1
    # 40,000 of 65,535 is 155.6 of 255; the restorer inverts
    assert [np.asarray(picture).mean().round() for picture in shown[2:]] == pytest.approx([156, 99], abs=1)
    # nothing else is needed to see it, and a second page replaces it only when that was said
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []
    assert abair("restore", "deep.png", "-o", "again", "--page", "seen/page.html").code == 2
    assert abair("restore", "deep.png", "-o", "again", "--page", "seen/page.html", "--overwrite").code == 0


def test_a_page_keeps_the_profile_and_goes_with_json_and_strange_names(abair, restorer) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    strange = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(np.full((4, 5, 3), 90, np.uint8)).save("a.png", icc_profile=profile)
    Path("a.png").replace(strange)
    done = abair("restore", strange, "-o", "b.png", "--page", "p.html", "--json")
    assert (done.code, len(done.records), done.err) == (0, 1, [])
    text = Path("p.html").read_text(encoding="utf-8")
    assert "caf\\udce9.png" in text
    before = Image.open(io.BytesIO(base64.b64decode(re.findall(r"base64,([^\"]+)", text)[0])))
    assert before.info["icc_profile"] == profile


def test_an_existing_output_is_replaced_only_with_overwrite(abair, restorer) -> None:
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


def test_the_input_itself_is_no_output_without_overwrite(abair, restorer) -> None:
    before = photo("photos/in.png").read_bytes()
    for out in ("photos/in.png", "photos", "photos/../photos/"):
        refused = abair("restore", "photos/in.png", "-o", out)
        assert refused.code == 1
        assert "the input itself" in refused.err[0]
    assert Path("photos/in.png").read_bytes() == before
    assert abair("restore", "photos/in.png", "-o", "photos", "--overwrite").code == 0
    assert Path("photos/in.png").read_bytes() != before


# What is said


def test_the_json_lines_of_restore_hold_exactly_what_is_promised(abair, restorer) -> None:
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
        "seconds": 0.5,
        "megapixels": 0.001,
        "deployment": "fake-1",
    }
    assert set(failed) == {"input", "error"}
    assert failed["input"] == "b.png"
    assert done.err == [f"abair: {failed['error']}"]


def test_the_json_lines_of_estimate_hold_exactly_what_is_promised(abair, restorer) -> None:
    photo("x/a.png")
    done = abair("estimate", "x", "gone.png", "--json")
    assert done.code == 1
    assert done.records[1] == {
        "input": os.path.join("x", "a.png"),
        "weights": {"noise": 0.75, "blur": 0.25, "clean": 0},
    }
    assert set(done.records[0]) == {"input", "error"}


def test_an_estimate_is_shown_as_bars(abair, restorer) -> None:
    photo("a.png")
    done = abair("estimate", "a.png")
    assert (done.code, done.err) == (0, [])
    assert done.out[0] == "a.png"
    assert [line.split()[:2] for line in done.out[1:]] == [["noise", "0.75"], ["blur", "0.25"], ["clean", "0.00"]]
    assert len(done.out[1]) > len(done.out[2]) > len(done.out[3])


def test_restoring_says_nothing_on_stdout_and_nothing_without_a_terminal(abair, restorer) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "-o", "b.png")
    assert (done.code, done.out, done.err) == (0, [], [])


def test_a_warning_of_the_log_is_one_line_on_stderr(abair, restorer) -> None:
    from abair.images import photo_file

    values = np.zeros((4, 3, 3), np.uint16)
    photo_file.write(Path("a.png"), photo_file.Photo(values, None, False, "PNG", None, None), values)
    done = abair("restore", "a.png", "-o", "b.jpg", "--json")
    assert done.code == 0
    assert len(done.records) == len(done.err) == 1
    assert done.err[0].startswith("abair: warning: b.jpg")


def test_a_strange_file_name_stays_on_one_line(abair, restorer) -> None:
    Path("two\nlines [bold].png").write_text("no photo")
    done = abair("estimate", "two\nlines [bold].png", "--json")
    assert done.code == 1
    assert len(done.err) == 1
    assert "[bold]" in done.err[0]
    assert done.records[0]["input"] == "two\nlines [bold].png"


# What goes wrong


@pytest.mark.parametrize("error", [RuntimeError("odd\nthing"), MemoryError(), OSError(errno.ENOSPC, "disk is full"),
                                   ImageError("a.png: damaged"), KeyError("x"), RecursionError()])  # fmt: skip
def test_a_failure_costs_one_line_and_one_photo(abair, restorer, error: Exception) -> None:
    for index, name in enumerate(("a.png", "b.png", "c.png")):
        photo(name, size=(6, 5 + index))

    def fail(image: np.ndarray) -> None:
        if len(image) == 5:
            raise error

    restorer.before = fail
    done = abair("restore", "a.png", "b.png", "c.png", "-o", "fixed", "--json")
    assert done.code == 1
    assert files("fixed") == ["b.png", "c.png"]
    assert len(done.err) == 1
    assert done.err[0].startswith("abair: a.png: ")
    assert [("error" in record) for record in done.records] == [True, False, False]


def test_memory_that_torch_lacks_is_said_as_such() -> None:
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried ...")
    assert "--tile" in console.explain(error, "a.png")


def test_every_unusable_input_is_named_before_the_network_is_loaded(abair, restorer) -> None:
    Path("text.png").write_text("words")
    Path("empty.jpg").write_bytes(b"")
    Path("nothing").mkdir()
    done = abair("restore", "text.png", "empty.jpg", "gone.png", "nothing", "-o", "fixed", "--json")
    assert done.code == 1
    assert len(done.err) == 4
    assert {record["input"] for record in done.records} == {"text.png", "empty.jpg", "gone.png", "nothing"}
    assert restorer.loaded == []


def test_a_photo_beyond_the_cap_is_refused_and_the_option_is_named(abair, restorer) -> None:
    photo("a.png", size=(200, 100))
    refused = abair("restore", "a.png", "-o", "b.png", "--max-megapixels", "0.01")
    assert refused.code == 1
    assert "--max-megapixels" in refused.err[0]
    assert abair("restore", "a.png", "-o", "b.png", "--max-megapixels", "0.02").code == 0


def test_a_folder_that_cannot_be_made_is_one_line_for_all(abair, restorer) -> None:
    photo("a.png")
    photo("b.png")
    Path("file").write_text("")
    done = abair("restore", "a.png", "b.png", "-o", "file/fixed", "--json")
    assert done.code == 1
    assert len(done.err) == 1
    assert [record["input"] for record in done.records] == ["a.png", "b.png"]


def test_a_deployment_that_cannot_be_loaded_is_one_line_for_all(abair, monkeypatch) -> None:
    photo("a.png")
    photo("b.png")

    def load(*_: Any) -> None:
        raise DeploymentError("deployment x: a file was changed")

    monkeypatch.setattr(app, "load_restorer", load)
    done = abair("estimate", "a.png", "b.png", "--json")
    assert done.code == 1
    assert done.err == ["abair: deployment x: a file was changed"]
    assert len(done.records) == 2


def test_ctrl_c_is_one_line_and_leaves_no_partial_file(abair, restorer, monkeypatch) -> None:
    photo("a.png")
    photo("b.png", size=(6, 9))

    def stop(_file: int) -> None:
        if len(restorer.calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    done = abair("restore", "a.png", "b.png", "-o", "fixed")
    assert done.code == 130
    assert len(done.err) == 1
    assert files("fixed") == ["a.png"]


def test_a_deployment_that_cannot_be_loaded_is_not_said_to_be_the_photo(abair, monkeypatch) -> None:
    photo("a.png")

    def load(*_: Any) -> None:
        raise DeploymentError("device cuda: cannot be used")

    monkeypatch.setattr(app, "load_restorer", load)
    assert abair("restore", "a.png", "-o", "b.png").err == ["abair: device cuda: cannot be used"]


def test_abair_debug_shows_the_traceback(capsys, restorer, monkeypatch) -> None:
    photo("a.png")
    monkeypatch.setenv("ABAIR_DEBUG", "1")

    def fail(_: np.ndarray) -> None:
        raise RuntimeError("odd")

    restorer.before = fail
    assert app.run(["restore", "a.png", "-o", "b.png"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("abair: a.png: unexpected RuntimeError (odd)")


# Wrong usage


def _deployment(folder: str) -> str:
    zero = {"path": "x", "size": 0, "sha256": "0" * 64}
    adapters = [
        {"degradation": d, "title": d, "distribution": "x", "version": "1", "config": zero, "weights": zero}
        for d in LABELS[:-1]
    ]
    backbone = {"size": "nano", "fingerprint": "0" * 64, "file": zero}
    found = {"name": "d", "created": "2026-01-01T00:00:00Z", "labels": LABELS, "backbone": backbone,
             "adapters": adapters, "estimator": zero}  # fmt: skip
    Path(folder).mkdir()
    Path(folder, "deployment.json").write_text(json.dumps(found))
    return folder


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a.png", "-o", "b.png", "--policy", "best"], ["--policy", "best", "one-hot"]),
        (["a.png", "-o", "b.png", "--weights", "noise"], ["--weights", "'noise'", "label=number"]),
        (["a.png", "-o", "b.png", "--weights", ""], ["--weights", "label=number"]),
        (["a.png", "-o", "b.png", "--weights", "noise=1.5"], ["noise=1.5", "0 to 1"]),
        (["a.png", "-o", "b.png", "--weights", "noise=nan"], ["noise=nan"]),
        (["a.png", "-o", "b.png", "--weights", "noise=1,noise=0"], ["noise twice"]),
        (["a.png", "-o", "b.png", "--weights", "snow=1", "--deployment", "d"], ["snow", "noise, blur, clean"]),
        (["a.png", "-o", "b.png", "--weights", "noise=1", "--policy", "soft"], ["--weights", "--policy"]),
        (["a.png", "-o", "b.png", "--tile", "0"], ["--tile"]),
        (["a.png", "-o", "b.png", "--device", "toaster"], ["--device", "toaster", "cuda"]),
        (["a.png", "-o", "b.png", "--precision", "float16"], ["--precision", "bfloat16"]),
        (["a.png", "-o", "b.png", "--quality", "3"], ["--quality"]),
        (["a.png", "-o", "b.png", "--page", "b.png"], ["--page", "b.png", ".html"]),
        (["a.png", "-o", "b.png", "--page", "old.html"], ["--page", "old.html exists", "--overwrite"]),
        (["a.png", "-o", "x.html/", "--page", "x.html"], ["--page", "x.html", "another name"]),
        (["a.png", "-o", "b.png", "--page", "file/x.html"], ["--page", os.path.join("file", "x.html"), "folder"]),
        (["-o", "b.png"], ["PATHS"]),
        (["", "-o", "b.png"], ["PATHS"]),
        (["a.png"], ["-o"]),
        (["a.png", "-o", ""], ["-o"]),
        (["a.png", "x/a.png", "-o", "b.png"], ["-o", "b.png", "2 inputs", "folder"]),
        (["a.png", "x/a.png", "-o", "file"], ["-o", "file", "folder"]),
        (["x", "-o", "b.png"], ["-o", "b.png", "a folder as input"]),
        (["a.png", "x/a.png", "-o", "fixed"], ["a.png", os.path.join("x", "a.png"), os.path.join("fixed", "a.png")]),
        (["x", "y", "-r", "-o", "fixed"], [os.path.join("x", "a.png"), os.path.join("y", "a.png")]),
    ],
)
def test_wrong_usage_is_one_line_and_nothing_is_done(abair, restorer, arguments: list[str], named: list[str]) -> None:
    for name in ("a.png", "x/a.png", "y/a.png"):
        photo(name)
    for name in ("file", "old.html"):
        Path(name).write_text("")
    _deployment("d")
    before = files(".")
    done = abair("restore", *arguments)
    assert done.code == 2
    assert done.out == []
    assert len(done.err) == 1
    assert done.err[0].startswith("abair: ")
    assert [word for word in named if word not in done.err[0]] == []
    assert files(".") == before
    assert not Path("fixed").exists()
    assert restorer.loaded == []


def test_weights_are_given_to_the_restorer_instead_of_a_policy(abair, restorer) -> None:
    photo("a.png")
    done = abair("restore", "a.png", "-o", "b.png", "--weights", "noise=0.7, blur=1", "--deployment", _deployment("d"),
                 "--tile", "256", "--json")  # fmt: skip
    assert done.code == 0
    assert restorer.calls[0]["weights"] == {"noise": 0.7, "blur": 1.0}
    assert restorer.calls[0]["tile"] == 256
    assert done.records[0]["policy"] == "given"


def test_one_hot_device_and_precision_reach_the_restorer(abair, restorer) -> None:
    photo("a.png")
    options = ["--policy", "one-hot", "--device", "cuda:1", "--precision", "bfloat16", "--deployment", "d"]
    assert abair("restore", "a.png", "-o", "b.png", *options).code == 0
    assert restorer.loaded == [("d", "cuda:1", "bfloat16")]
    assert restorer.calls[0]["policy"] == "one-hot"


@pytest.mark.parametrize("words", [[], ["bench"], ["train"], ["plugin"]])
def test_a_group_without_a_command_shows_its_help(abair, words: list[str]) -> None:
    done = abair(*words)
    assert done.code in {0, 2}
    assert any("Commands:" in line for line in done.err + done.out)


def test_an_unknown_command_is_wrong_usage(abair) -> None:
    done = abair("repair")
    assert done.code == 2
    assert len(done.err) == 1
    assert "repair" in done.err[0]


def test_the_version_is_said(abair) -> None:
    import abair as package

    assert abair("--version").out == [f"abair {package.__version__}"]


# The other commands


def test_a_broken_plugin_is_one_line_and_the_others_are_listed(abair, monkeypatch) -> None:
    from abair import discovery
    from abair.contract import Card, Degradation

    card = Card(authors=("a",), licence="l", training_data="t")
    Path("adapters/nano").mkdir(parents=True)
    snow = Degradation(name="snow", title="Snow", synthesizer="a:b", adapters=Path("adapters"), card=card)
    plugins = SimpleNamespace(
        found={"snow": discovery.Found(snow, "abair-snow", "1.2")},
        problems=[discovery.Problem("hail", "abair-hail", "cannot be imported: ImportError: no")],
    )
    monkeypatch.setattr(discovery, "discover", lambda: plugins)
    done = abair("plugin", "list")
    assert done.code == 1
    assert done.out[1].split() == ["snow", "Snow", "abair-snow", "1.2", "nano"]
    assert done.err == ["abair: plugin hail (distribution abair-hail): cannot be imported: ImportError: no"]


def test_training_hands_its_options_over(abair, monkeypatch) -> None:
    from abair.plugin_kit import adapter_report
    from abair.training import run

    calls: list[dict[str, Any]] = []
    for name in ("train_backbone", "train_estimator"):
        monkeypatch.setattr(run, name, lambda **given: calls.append(given))
    monkeypatch.setattr(adapter_report, "train", lambda **given: calls.append(given))
    assert abair("train", "backbone", "--out", "run", "--size", "small", "--steps", "7", "--batch", "2").code == 0
    assert abair("train", "adapter", "snow", "--pairs", "p", "--time-budget", "10m", "--track").code == 0
    estimating = ["--out", "bundle", "--settings", "s.toml", "--decay", "0.5", "--labels", "noise, rain"]
    estimating += ["--time-budget", "1h30m", "--patience", "3"]
    assert abair("train", "estimator", *estimating).code == 0
    backbone, adapter, estimator = calls
    assert (backbone["out"], backbone["size"], backbone["steps"], backbone["batch"]) == (Path("run"), "small", 7, 2)
    assert backbone["crop"] is None
    assert (adapter["name"], adapter["pairs"], adapter["minutes"], adapter["track"]) == ("snow", Path("p"), 10, True)
    assert (backbone["labels"], estimator["labels"]) == ((), ("noise", "rain"))
    assert (estimator["minutes"], estimator["patience"]) == (90, 3)
    assert (estimator["out"], estimator["settings_file"], estimator["decay"]) == (Path("bundle"), Path("s.toml"), 0.5)


def test_the_options_of_training_are_parameters_that_the_functions_have() -> None:
    import inspect

    from abair.cli.train_options import Size
    from abair.model.backbone import SIZES
    from abair.plugin_kit import adapter_report
    from abair.training import run
    from abair.training.settings import PRETRAINING

    assert [size.value for size in Size] == list(SIZES)
    overrides = {
        "steps",
        "batch",
        "crop",
        "learning_rate",
        "seed",
        "precision",
        "workers",
        "decay",
        "minutes",
        "patience",
    }
    assert overrides <= set(PRETRAINING.model_dump())
    for function, own in {
        run.train_backbone: {"data", "size", "out", "settings_file", "start", "labels", "device"},
        adapter_report.train: {"name", "data", "pairs", "backbone", "out", "run", "settings_file", "device"},
        run.train_estimator: {"data", "out", "name", "run", "backbone", "settings_file", "labels", "device"},
    }.items():
        assert own <= set(inspect.signature(function).parameters)


def test_test_sets_that_are_missing_are_named(abair, restorer, monkeypatch) -> None:
    from abair.evaluation import benchmark
    from abair.evaluation.datasets import find

    report = SimpleNamespace(markdown=lambda: "| table |", problems=("x.png: damaged",), write=lambda out: (out / "r",))
    monkeypatch.setattr("abair.cli.loading.load_synthesizers", lambda reporter: {})
    monkeypatch.setattr("abair.cli.loading.load_restorer", lambda *_: SimpleNamespace(deployment=None))
    monkeypatch.setattr(benchmark, "weights_hash", lambda deployment: "")
    monkeypatch.setattr(find, "find_sets", lambda *_, limit: find.FoundSets((), {"GoPro": f"found no pairs, {limit}"}))
    monkeypatch.setattr(benchmark, "evaluate", lambda *_, **__: report)
    done = abair("bench", "quality", "--data", "sets", "--limit", "3")
    assert done.code == 1
    assert done.out[0] == "| table |"
    assert done.err[0] == "abair: warning: test set GoPro is not measured: found no pairs, 3"
    assert done.err[1] == "abair: x.png: damaged"


# As a process of its own

PROGRAM = """
import sys
from abair.cli import app as cli
class Fake:
    def estimate(self, pixels):
        return {"noise": 1.0}
cli.load_restorer = lambda *given: Fake()
assert "torch" not in sys.modules
sys.argv[0] = "abair"
cli.main()
"""


def _process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    import abair

    environment = os.environ | {"PYTHONPATH": str(Path(abair.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env=environment, **options)


def test_a_reader_that_goes_away_ends_it_without_a_word() -> None:
    photo("a.png")
    reading, writing = os.pipe()
    os.close(reading)
    with _process("estimate", "a.png", "--json", stdout=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 141
    assert said == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_stdout_is_one_line() -> None:
    photo("a.png")
    with Path("/dev/full").open("w") as full, _process("estimate", "a.png", "--json", stdout=full) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(said.splitlines()) == 1
    assert said.startswith("abair: ")


@pytest.mark.skipif(os.name != "posix", reason="closes a file descriptor in the child, which POSIX systems can")
def test_a_closed_stdout_costs_no_traceback() -> None:
    photo("a.png")
    with _process("estimate", "a.png", "--json", preexec_fn=lambda: os.close(1)) as process:
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_the_smallest_tile_is_the_tiling_s() -> None:
    from abair.inference import tiling

    assert app.SMALLEST_TILE == tiling.SMALLEST_TILE


def test_weights_are_parsed_as_they_are_written() -> None:
    assert inputs.parse_weights("noise=0.7,blur=.3") == {"noise": 0.7, "blur": 0.3}
