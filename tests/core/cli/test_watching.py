"""`abair restore --watch`: photos are restored as they arrive, and never half of one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo, pixels

from abair.cli import watching
from abair.cli.watching import GRACE, SETTLE, Settling


def test_a_file_is_taken_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    path, read = tmp_path / "a.png", list[Path]()
    path.write_bytes(b"one")
    settling = Settling(lambda path: read.append(path) or True)  # type: ignore[func-returns-value]
    settling.add([path], 0.0)
    assert settling.take(SETTLE / 2) == []
    path.write_bytes(b"one and more")
    assert settling.take(SETTLE) == []  # its time begins anew
    assert settling.take(1.9 * SETTLE) == []
    assert read == []
    assert settling.take(2.1 * SETTLE) == [path]
    assert settling.take(100.0) == []
    assert read == [path]


def test_one_that_cannot_be_read_waits_for_more_or_for_the_end_of_its_grace(tmp_path: Path) -> None:
    path, read = tmp_path / "a.png", list[int]()

    def is_complete(path: Path) -> bool:
        read.append(path.stat().st_size)
        return path.stat().st_size > 5

    settling = Settling(is_complete)
    path.write_bytes(b"half")
    settling.add([path], 0.0)
    assert [settling.take(now) for now in (SETTLE, SETTLE + 1, GRACE - 1)] == [[], [], []]
    assert read == [4]  # it is not read again before it changes
    path.write_bytes(b"all of it")
    assert settling.take(GRACE) == []
    assert settling.take(GRACE + SETTLE) == [path]
    path.write_bytes(b"half")
    settling.add([path], 20.0)
    assert settling.take(20.0 + SETTLE) == []
    assert settling.take(20.0 + GRACE) == [path]  # so that somebody says what is wrong with it


def test_one_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    settling = Settling(lambda _: True)
    settling.add([path, tmp_path / "never.png"], 0.0)
    path.unlink()
    assert settling.take(100.0) == []


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces watchfiles: each step is a function that changes files; nothing has to settle."""
    import watchfiles

    monkeypatch.setattr(watching, "Settling", partial(Settling, settle=0.0))
    steps: list[Any] = []

    def watch(*folders: str, **_: Any) -> Iterator[set[tuple[int, str]]]:
        yield set()
        for step in steps:
            changed = step()
            yield {(1, os.path.realpath(path)) for path in changed}
            yield set()
        raise KeyboardInterrupt

    monkeypatch.setattr(watchfiles, "watch", watch)
    return steps


def test_photos_that_are_there_and_that_arrive_are_restored(
    abair: Abair, restorer: FakeRestorer, arrivals: list[Any]
) -> None:
    photo("hot/a.png")
    arrivals += [lambda: [photo("hot/b.png")], lambda: [photo("hot/notes.txt.png").rename("hot/notes.txt")]]
    done = abair("restore", "hot", "-o", "fixed", "--watch")
    assert (done.code, files("fixed")) == (130, ["a.png", "b.png"])
    assert done.err == [
        "abair: watching hot; Ctrl-C ends it",
        "abair: stopped by Ctrl-C; finished files are kept, unfinished ones were removed",
    ]


def test_results_beside_photos_are_no_arrivals(abair: Abair, restorer: FakeRestorer, arrivals: list[Any]) -> None:
    photo("hot/a.png")
    arrivals += [lambda: ["hot/a.restored.png"], lambda: [photo("hot/b.png")]]
    assert abair("restore", "hot", "--watch").code == 130
    assert files("hot") == ["a.png", "a.restored.png", "b.png", "b.restored.png"]


def test_what_is_done_is_not_done_again(abair: Abair, restorer: FakeRestorer, arrivals: list[Any]) -> None:
    photo("hot/a.png")
    for _ in range(2):
        abair("restore", "hot", "-o", "fixed", "--watch")
    assert len(restorer.calls) == 1


def test_a_damaged_photo_is_told_and_the_next_restored(
    abair: Abair, restorer: FakeRestorer, arrivals: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "Settling", partial(Settling, settle=0.0, grace=0.0))
    Path("hot").mkdir()
    broken = Path("hot/a.png")
    arrivals += [lambda: broken.write_text("no photo") and [broken], lambda: [photo("hot/b.png")]]
    done = abair("restore", "hot", "-o", "fixed", "--watch")
    assert files("fixed") == ["b.png"]
    assert "hot/a.png: found text" in done.err[1]


def outputs(restorer: FakeRestorer) -> int:
    return len(restorer.calls)


@pytest.mark.parametrize("options", [["-o", "hot", "--overwrite"], ["--name", "{stem}_fixed{suffix}"]])
def test_what_it_writes_is_no_arrival(
    abair: Abair, restorer: FakeRestorer, arrivals: list[Any], options: list[str]
) -> None:
    photo("hot/a.png")
    arrivals += [lambda: sorted(Path("hot").iterdir())] * 3
    assert abair("restore", "hot", "--watch", *options).code == 130
    assert outputs(restorer) == 1


def test_folders_that_are_moved_in_bring_all_their_photos(
    abair: Abair, restorer: FakeRestorer, arrivals: list[Any]
) -> None:
    photo("elsewhere/a.png")
    photo("elsewhere/deep/b.png")
    Path("hot").mkdir()
    arrivals += [lambda: [Path("elsewhere").rename("hot/moved")]]
    assert abair("restore", "hot", "-r", "-o", "fixed", "--watch").code == 130
    assert files("fixed") == ["moved/a.png", "moved/deep/b.png"]


def test_a_photo_that_changes_while_it_is_restored_is_restored_again(
    abair: Abair, restorer: FakeRestorer, arrivals: list[Any]
) -> None:
    photo("hot/a.png")

    def replaced(_: Any) -> None:
        restorer.before = lambda _: None
        os.utime(photo("hot/a.png", seed=5), (1, 1))  # older than the output

    restorer.before = replaced
    arrivals += [lambda: ["hot/a.png"]]
    assert abair("restore", "hot", "-o", "fixed", "--watch", "--overwrite").code == 130
    assert (pixels("fixed/a.png") == 255 - pixels("hot/a.png")).all()


def test_arrivals_with_one_output_are_told_one_by_one(
    abair: Abair, restorer: FakeRestorer, arrivals: list[Any]
) -> None:
    photo("hot/a.png")
    Path("hot2").mkdir()
    arrivals += [lambda: [photo("hot2/a.png")], lambda: [photo("hot2/b.png")]]
    done = abair("restore", "hot", "hot2", "-o", "fixed", "--watch")
    assert files("fixed") == ["a.png", "b.png"]
    assert "hot/a.png and hot2/a.png would both be written to fixed/a.png" in done.err[1]
    for folder in ("hot", "hot2"):
        assert Path(folder, "a.png").exists()
    assert abair("restore", "hot", "hot2", "-o", "fixed", "--watch").code == 2  # told at once where both are there


def test_a_photo_that_is_too_large_is_not_decoded_to_find_out(
    abair: Abair, restorer: FakeRestorer, arrivals: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "Settling", partial(Settling, settle=0.0, grace=0.0))
    photo("hot/a.png", size=(60, 50))
    done = abair("restore", "hot", "-o", "fixed", "--watch", "--max-megapixels", "0.001")
    assert "found 60 x 50 pixels" in done.err[1]
    assert outputs(restorer) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png"], "PATHS: found a.png, expected folders to watch"),
        (["hot", "nowhere"], "PATHS: found nowhere, expected folders to watch"),
        (["hot", "-o", "./hot"], "-o: found ./hot, which is watched itself"),
        (["hot", "--dry-run"], "--dry-run: cannot be used with --watch"),
        (["hot", "--page", "look.html"], "--page: cannot be used with --watch"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    abair: Abair, restorer: FakeRestorer, arguments: list[str], said: str
) -> None:
    photo("a.png")
    Path("hot").mkdir()
    done = abair("restore", *arguments, "--watch")
    assert done.code == 2
    assert said in done.err[0]


def test_what_has_to_be_installed_is_said(
    abair: Abair, restorer: FakeRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("hot").mkdir()
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    done = abair("restore", "hot", "--watch")
    assert (done.code, done.err) == (
        1,
        ["abair: --watch: watchfiles is missing; install it with: pip install 'abair[watch]'"],
    )
