"""`abair estimate`: weights as bars and as JSON lines."""

from __future__ import annotations

import os
from pathlib import Path

from tests.core.cli.conftest import Abair, FakeRestorer, photo


def test_the_json_lines_of_estimate_hold_exactly_what_is_promised(abair: Abair, restorer: FakeRestorer) -> None:
    photo("x/a.png")
    done = abair("estimate", "x", "gone.png", "--json")
    assert done.code == 1
    assert done.records[1] == {
        "input": os.path.join("x", "a.png"),
        "weights": {"noise": 0.75, "blur": 0.25, "clean": 0},
        "confidence": 0.98,
        "unknown": 0.4,
    }
    assert set(done.records[0]) == {"input", "error"}


def test_an_estimate_is_shown_as_bars(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    done = abair("estimate", "a.png")
    assert (done.code, done.err) == (0, [])
    assert done.out[0] == "a.png"
    assert [line.split()[:2] for line in done.out[1:]] == [["noise", "0.75"], ["blur", "0.25"], ["clean", "0.00"]]
    assert len(done.out[1]) > len(done.out[2]) > len(done.out[3])


def test_doubt_is_told_beside_the_name_and_no_confidence_is_null(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    for confidence, told in ((0.42, "a.png (not sure: 0.42)"), (0.6, "a.png"), (None, "a.png")):
        restorer.confidence = confidence
        assert abair("estimate", "a.png").out[0] == told
        assert abair("estimate", "a.png", "--json").records[0]["confidence"] == confidence
    restorer.confidence = 0.3
    assert abair("restore", "a.png", "-o", "b.png", "--dry-run").out[0] == "a.png -> b.png (not sure: 0.30)"
    record = abair("restore", "a.png", "-o", "b.png", "--weights", "noise=1", "--json").records[0]
    assert record["confidence"] is None
    assert record["unknown"] is None


def test_a_photo_unlike_all_that_was_learnt_is_told_beside_the_name(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a.png")
    told = {0.95: "a.png", 0.96: "a.png (unlike what was learnt: 0.96)", None: "a.png"}
    for restorer.unknown, line in told.items():
        assert abair("estimate", "a.png").out[0] == line
        assert abair("estimate", "a.png", "--json").records[0]["unknown"] == restorer.unknown
    restorer.confidence, restorer.unknown = 0.3, 0.99
    assert abair("estimate", "a.png").out[0] == "a.png (not sure: 0.30, unlike what was learnt: 0.99)"


def test_a_strange_file_name_stays_on_one_line(abair: Abair, restorer: FakeRestorer) -> None:
    Path("two\nlines [bold].png").write_text("no photo")
    done = abair("estimate", "two\nlines [bold].png", "--json")
    assert done.code == 1
    assert len(done.err) == 1
    assert "[bold]" in done.err[0]
    assert done.records[0]["input"] == "two\nlines [bold].png"


def test_a_url_is_refused_as_it_was_written(abair: Abair, restorer: FakeRestorer) -> None:
    done = abair("estimate", "s3://bucket/photos")
    assert done.code == 2
    assert len(done.err) == 1
    assert "found the URL s3://bucket/photos, expected files and folders" in done.err[0]
    assert restorer.loaded == []
