"""`-` is stdin among the paths, and stdout as the output."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo, pixels
from tests.support.image_files import smooth

from abair.cli import app


class Bytes(io.TextIOWrapper):
    """A text stream whose bytes can be read after it was closed by nobody."""

    def __init__(self, data: bytes = b"") -> None:
        self.under = io.BytesIO(data)
        super().__init__(self.under, encoding="utf-8")


def call(monkeypatch: pytest.MonkeyPatch, data: bytes, *arguments: str) -> tuple[int, bytes]:
    """Call the command line with these bytes on stdin; return exit code and the bytes on stdout."""
    given, taken = Bytes(data), Bytes()
    monkeypatch.setattr(sys, "stdin", given)
    monkeypatch.setattr(sys, "stdout", taken)
    code = app.run(arguments)
    taken.flush()
    return code, taken.under.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_a_photo_goes_through_in_its_format(
    restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    data = photo(f"in{suffix}").read_bytes()
    code, out = call(monkeypatch, data, "restore", "-", "-o", "-")
    assert code == 0
    with Image.open(io.BytesIO(out)) as image, Image.open(io.BytesIO(data)) as source:
        assert (image.format, image.size) == (source.format, source.size)
    assert files(".") == [f"in{suffix}"]


def test_a_format_that_is_not_written_becomes_another(restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.fromarray(smooth()).save(file, "AVIF")
    code, out = call(monkeypatch, file.getvalue(), "restore", "-", "-o", "-")
    assert (code, Image.open(io.BytesIO(out)).format) == (0, "JPEG")


def test_either_end_may_be_a_file(restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photo("in.png")
    assert call(monkeypatch, source.read_bytes(), "restore", "-", "-o", "out.tif") == (0, b"")
    assert (pixels("out.tif") == 255 - pixels(source)).all()
    code, out = call(monkeypatch, b"", "restore", "in.png", "-o", "-")
    assert code == 0
    assert (np.asarray(Image.open(io.BytesIO(out))) == 255 - pixels(source)).all()


def test_what_is_no_photo_is_told_by_its_mark(
    restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, b"no photo", "restore", "-", "-o", "-") == (1, b"")
    assert capsys.readouterr().err.startswith("abair: -: found text, expected a JPEG")
    assert call(monkeypatch, b"", "restore", "-", "-o", "out.png") == (1, b"")
    assert capsys.readouterr().err.startswith("abair: -: found an empty file")
    assert files(".") == []


def test_json_names_stdin_by_its_mark(restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = call(monkeypatch, photo("in.png").read_bytes(), "restore", "-", "-o", "out.png", "--json")
    assert (code, json.loads(out)["input"], json.loads(out)["output"]) == (0, "-", "out.png")


def test_an_estimate_takes_a_photo_from_stdin(restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out = call(monkeypatch, photo("in.png").read_bytes(), "estimate", "-", "--json")
    assert (code, json.loads(out)) == (
        0,
        {"input": "-", "weights": {"noise": 0.75, "blur": 0.25, "clean": 0.0}, "confidence": 0.98, "unknown": 0.4},
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "b.png", "-o", "fixed"], "PATHS: found several photos or a folder"),
        (["a.png", "b.png", "-o", "-"], "PATHS: found several photos or a folder"),
        (["folder", "-o", "-"], "PATHS: found several photos or a folder"),
        (["-"], "-o: missing for a photo from stdin"),
        (["a.png", "-o", "-", "--json"], "--json: cannot be used with -o -"),
        (["-", "-o", "-", "--keep-times"], "--keep-times: cannot be used with -"),
        (["-", "-o", "fixed/"], "-o: found the folder fixed/ for a photo from stdin"),
    ],
)
def test_what_streams_cannot_do_is_refused(
    abair: Abair, restorer: FakeRestorer, arguments: list[str], said: str
) -> None:
    photo("a.png"), photo("b.png")
    Path("folder").mkdir()
    done = abair("restore", *arguments)
    assert done.code == 2
    assert said in done.err[0]
    assert files(".") == ["a.png", "b.png"]


def test_closed_streams_are_told(
    restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("in.png")
    monkeypatch.setattr(sys, "stdin", None)
    assert app.run(["restore", "-", "-o", "out.png"]) == 1
    assert capsys.readouterr().err.startswith("abair: -: stdin is closed, expected a photo")
    monkeypatch.setattr(sys, "stdout", None)
    assert app.run(["restore", "in.png", "-o", "-"]) == 1


def test_a_closed_stderr_puts_nothing_into_the_photo(restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photo("in.png")
    monkeypatch.setattr(sys, "stderr", None)
    code, out = call(monkeypatch, source.read_bytes(), "restore", "-", "-o", "-")
    assert (code, out[:4]) == (0, b"\x89PNG")
    assert call(monkeypatch, b"no photo", "restore", "-", "-o", "-") == (1, b"")


def test_the_page_names_stdin_by_its_mark(restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photo("in.png").read_bytes()
    assert call(monkeypatch, data, "restore", "-", "-o", "out.png", "--page", "look.html")[0] == 0
    assert "/stdin" not in Path("look.html").read_text(encoding="utf-8")


def test_marks_hold_where_the_temporary_folder_has_letters_of_its_own(
    restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "t\u00e4").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t\u00e4"))
    code, out = call(monkeypatch, photo("in.png").read_bytes(), "restore", "-", "-o", "out.png", "--json")
    assert (code, json.loads(out)["input"]) == (0, "-")
