"""A worker of a batch: one photo, one record, whatever happens to it or to the worker."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tests.core.cli.conftest import FakeRestorer, files, photo, pixels

from abair.batch import places
from abair.batch.ledger import ATTEMPTS, MemoryLedger
from abair.batch.photo import Choices
from abair.batch.worker import Orders, PhotoWorker, Task
from abair.cli.console import explain
from abair.errors import DeploymentError

CHOICES = Choices()


class Bench:
    """A worker with a quick restorer and a ledger."""

    def __init__(self, folder: Path) -> None:
        self.restorer, self.ledger = FakeRestorer(), MemoryLedger()
        self.orders = Orders(CHOICES, str(folder), False, explain)

    def work(self, source: str, target: str, index: int = 0, **choices: Any) -> dict[str, Any]:
        skip = choices.pop("skip_existing", False)
        orders = replace(self.orders, skip_existing=skip, choices=replace(CHOICES, **choices))
        worker = PhotoWorker(lambda: self.restorer, orders, self.ledger)  # type: ignore[arg-type, return-value]
        record: dict[str, Any] = json.loads(worker.work(Task(index, source, target, True)))
        return record


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


@pytest.fixture
def bucket(bench: Bench) -> fsspec.AbstractFileSystem:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.makedirs("/in", exist_ok=True)
    for number in range(3):
        system.put_file(str(photo("local.png", seed=number)), f"/in/{number}.png")
    os.unlink("local.png")
    return system


def test_a_photo_is_restored_into_a_new_folder_and_told_by_the_names_of_the_plan(bench: Bench) -> None:
    photo("a.png")
    record = bench.work("a.png", "out/sub/a.png")
    assert (record["input"], record["output"], record["deployment"]) == ("a.png", "out/sub/a.png", "fake-1")
    assert record["weights"] == {"noise": 0.75, "blur": 0.25, "clean": 0.0}
    assert np.array_equal(pixels("out/sub/a.png"), 255 - pixels("a.png"))
    assert files("out") == ["sub/a.png"]


@pytest.mark.parametrize("content", [None, b"", b"no photo"])
def test_a_photo_that_cannot_be_read_is_one_record_with_the_name_of_the_plan(
    bench: Bench, content: bytes | None
) -> None:
    if content is not None:
        Path("a.png").write_bytes(content)
    record = bench.work("a.png", "out/a.png")
    assert record["error"].startswith("a.png: found ")
    assert set(record) == {"input", "output", "error"}


def test_a_deployment_that_cannot_be_loaded_fails_each_photo_and_not_the_worker(bench: Bench) -> None:
    def load() -> Any:
        raise DeploymentError("device cuda: cannot be used")

    worker = PhotoWorker(load, bench.orders, bench.ledger)
    record = json.loads(worker.work(Task(0, "a.png", "b.png", True)))
    assert record["error"] == "a.png: device cuda: cannot be used"


def test_what_exists_is_kept_replaced_or_skipped_as_the_options_say(bench: Bench) -> None:
    source, target = photo("a.png"), photo("out/a.png", seed=1)
    before = target.read_bytes()
    assert "found an existing file" in bench.work("a.png", "out/a.png", 0)["error"]
    assert bench.work("a.png", "out/a.png", 1, skip_existing=True)["skipped"]
    assert target.read_bytes() == before
    os.utime(target, (0, 0))
    assert "found an existing file" in bench.work("a.png", "out/a.png", 2, skip_existing=True)["error"]
    assert "weights" in bench.work("a.png", "out/a.png", 3, skip_existing=True, overwrite=True, keep_times=True)
    assert target.read_bytes() != before
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns


def test_a_photo_is_not_written_over_itself(bench: Bench) -> None:
    photo("a.png")
    assert "found the input itself" in bench.work("a.png", "a.png")["error"]


def test_what_was_done_before_a_worker_died_is_not_done_again(bench: Bench) -> None:
    photo("a.png")
    first = bench.work("a.png", "out/a.png")
    assert bench.work("a.png", "out/a.png") == first
    assert len(bench.restorer.calls) == 1
    bench.ledger.forget([0])
    assert bench.ledger.size() == 0


def test_what_a_dead_worker_wrote_without_saying_so_is_no_file_of_others(bench: Bench) -> None:
    photo("a.png"), photo("b.png"), photo("out/b.png", seed=1)
    bench.ledger.begin(0, False)
    bench.ledger.begin(1, True)
    photo("out/a.png", seed=2)
    assert "weights" in bench.work("a.png", "out/a.png", 0)
    assert "found an existing file" in bench.work("b.png", "out/b.png", 1)["error"]


def test_a_photo_that_ends_its_worker_each_time_costs_one_record(bench: Bench) -> None:
    photo("a.png")
    for _ in range(ATTEMPTS):
        assert bench.ledger.begin(0, False).record is None
    assert bench.work("a.png", "out/a.png")["error"].startswith("a.png: ended the process that read it 3 times")
    assert bench.restorer.calls == []


def test_photos_are_read_from_and_written_to_urls_whole(bench: Bench, bucket: Any) -> None:
    record = bench.work("memory://in/0.png", "memory://out/sub/0.png")
    assert (record["input"], record["output"]) == ("memory://in/0.png", "memory://out/sub/0.png")
    assert bucket.find("/out") == ["/out/sub/0.png"]
    bucket.get_file("/in/0.png", "before.png"), bucket.get_file("/out/sub/0.png", "after.png")
    assert np.array_equal(pixels("after.png"), 255 - pixels("before.png"))
    assert "found an existing file" in bench.work("memory://in/1.png", "memory://out/sub/0.png", 1)["error"]
    assert bench.work("memory://in/0.png", "memory://out/sub/0.png", 2, skip_existing=True)["skipped"]
    assert bench.work("memory://in/1.png", "memory://out/sub/0.png", 3, overwrite=True)["weights"]


def test_a_url_without_a_photo_is_told_by_its_name_alone(bench: Bench, bucket: Any) -> None:
    bucket.pipe_file("/in/bad.png", b"no photo")
    told = bench.work("memory://in/bad.png", "memory://out/bad.png", 0)["error"]
    assert told.startswith("memory://in/bad.png: found ")
    assert "/abair-" not in told
    assert bench.work("memory://in/none.png", "out/none.png", 1)["error"] == (
        "memory://in/none.png: found no such file, expected a photo; check the URL"
    )
    assert "nosuch://x/a.png: cannot be opened" in bench.work("nosuch://x/a.png", "out/a.png", 2)["error"]


def test_a_write_that_fails_half_way_leaves_nothing(bench: Bench, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the network is gone")

    monkeypatch.setattr(type(bucket), "mv", fail)
    told = bench.work("memory://in/0.png", "memory://out/0.png")["error"]
    assert told.startswith("memory://in/0.png: memory://out/0.png: cannot be written (the network is gone)")
    assert bucket.find("/out") == []


def test_photos_of_urls_are_found_in_order_without_hidden_ones(bucket: Any) -> None:
    for name in ("in/.hidden.png", "in/sub/b.heic", "in/sub/.x/c.png", "in/notes.txt", "in/Z.JPG"):
        bucket.pipe_file(f"/{name}", b"x")
    names = [relative for _, relative in places.find_photos("memory://in", recursive=True)]
    assert names == ["0.png", "1.png", "2.png", "Z.JPG", "sub/b.heic"]
    flat = list(places.find_photos("memory://in/", recursive=False))
    assert flat[0] == ("memory://in/0.png", "0.png")
    assert [relative for _, relative in flat] == ["0.png", "1.png", "2.png", "Z.JPG"]
    assert list(places.find_photos("memory://in/notes.txt", recursive=False)) == [
        ("memory://in/notes.txt", "notes.txt")
    ]


@pytest.mark.parametrize(
    ("place", "path"),
    [("file:///a/b%20c.png", "/a/b c.png"), ("s3://b/a.png", "s3://b/a.png"), ("C:/a.png", "C:/a.png")],
)
def test_a_file_url_is_a_path(place: str, path: str) -> None:
    assert places.as_path(place) == path
    assert places.is_url(path) == path.startswith("s3:")
