"""Wrong usage is one line and exit code 2, and nothing is done; help and version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo, write_manifest


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a.png", "-o", "b.png", "--policy", "best"], ["--policy", "best", "one-hot"]),
        (["a.png", "-o", "b.png", "--weights", "noise"], ["--weights", "'noise'", "label=number"]),
        (["a.png", "-o", "b.png", "--weights", ""], ["--weights", "label=number"]),
        (["a.png", "-o", "b.png", "--weights", "noise=1.5"], ["noise=1.5", "0 to 1"]),
        (["a.png", "-o", "b.png", "--weights", "noise=nan"], ["noise=nan"]),
        (["a.png", "-o", "b.png", "--weights", "noise=1,noise=0"], ["noise twice"]),
        (["a.png", "-o", "b.png", "--weights", "noise=1,blur=1"], ["sum of 2", "at most 1"]),
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
        (["a.png", "-o", ""], ["-o"]),
        (["a.png", "x/a.png", "-o", "b.png"], ["-o", "b.png", "2 inputs", "folder"]),
        (["a.png", "x/a.png", "-o", "file"], ["-o", "file", "folder"]),
        (["x", "-o", "b.png"], ["-o", "b.png", "a folder as input"]),
        (["a.png", "x/a.png", "-o", "fixed"], ["a.png", os.path.join("x", "a.png"), os.path.join("fixed", "a.png")]),
        (["x", "y", "-r", "-o", "fixed"], [os.path.join("x", "a.png"), os.path.join("y", "a.png")]),
    ],
)
def test_wrong_usage_is_one_line_and_nothing_is_done(
    abair: Abair, restorer: FakeRestorer, arguments: list[str], named: list[str]
) -> None:
    for name in ("a.png", "x/a.png", "y/a.png"):
        photo(name)
    for name in ("file", "old.html"):
        Path(name).write_text("")
    write_manifest("d")
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


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--strength", "2"], ["--strength", "'2'", "less than or equal to 1"]),
        (["--strength", "0.5", "--strength=2"], ["'2'"]),
        (["--looks", "4"], ["--looks", "'4'", "less than or equal to 3"]),
        (["--strength=half"], ["--strength", "'half'", "number"]),
        (["-o", "b.png", "--tile", "5"], ["--tile", "'5'", "64"]),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(
    abair: Abair, restorer: FakeRestorer, arguments: list[str], named: list[str]
) -> None:
    photo("a.png")
    done = abair("restore", "a.png", *arguments)
    assert done.code == 2
    assert len(done.err) == 1
    assert [word for word in [*named, "found", "expected"] if word not in done.err[0]] == []


@pytest.mark.parametrize("words", [[], ["bench"], ["train"], ["plugin"]])
def test_a_group_without_a_command_shows_its_help(abair: Abair, words: list[str]) -> None:
    done = abair(*words)
    assert done.code in {0, 2}
    assert any("Commands:" in line for line in done.err + done.out)


@pytest.mark.parametrize("words", [[], ["bench"], ["train"], ["plugin"]])
def test_the_list_of_commands_is_not_cut(abair: Abair, words: list[str]) -> None:
    done = abair(*words, "--help")
    assert done.code == 0
    listed = done.out[done.out.index("Commands:") :]
    assert [line for line in listed if line.rstrip().endswith("...")] == []


def test_an_unknown_command_is_wrong_usage(abair: Abair) -> None:
    done = abair("repair")
    assert done.code == 2
    assert len(done.err) == 1
    assert "repair" in done.err[0]


def test_the_version_is_said(abair: Abair) -> None:
    import abair as package

    assert abair("--version").out == [f"abair {package.__version__}"]
