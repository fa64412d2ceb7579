"""`abair restore --engine ray`: the plan, the options, the manifest, the last line. Nothing here starts Ray."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.cli.conftest import Abair, FakeRestorer, photo, write_manifest

from abair.batch import manifest, ray_engine
from abair.batch.ledger import MemoryLedger
from abair.batch.worker import Orders, PhotoWorker, Task
from abair.cli import batching
from abair.cli.console import Reporter

pytest.importorskip("pyarrow", reason="get it with: pip install '.[ray]'")

RAY = ("--engine", "ray", "--deployment", "bundle")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Works in this process in place of Ray's; keeps what it was called with."""
    calls: list[dict[str, Any]] = []

    def restore(tasks: Iterable[Task], bundle: Any, orders: Orders, **more: Any) -> Iterator[dict[str, Any]]:
        calls.append({"tasks": list(tasks), "orders": orders, **more})
        worker = PhotoWorker(FakeRestorer, orders, MemoryLedger())  # type: ignore[arg-type]
        for task in tasks:
            yield json.loads(worker.work(task))

    monkeypatch.setattr(ray_engine, "restore", restore)
    monkeypatch.setattr(ray_engine, "check_installed", lambda: None)
    monkeypatch.setattr(ray_engine.Bundle, "read", lambda *_: None)
    write_manifest("bundle")
    return calls


def plan(*paths: str, out: str | None = "out", name: str | None = None) -> list[tuple[str, str, bool]]:
    found = batching.plan(paths, out, name, Reporter(), recursive=True)
    assert [task.index for task in found] == list(range(len(found)))
    return [(task.source, task.target, task.keep_format) for task in found]


def test_a_folder_is_restored_and_told_in_a_manifest_and_one_line(abair: Abair, engine: Any) -> None:
    for name in ("b", "a", "sub/c"):
        photo(f"in/{name}.png")
    Path("in/bad.png").write_bytes(b"no photo")
    done = abair("restore", "in", "-r", "-o", "out", *RAY, "--workers", "3", "--keep-times")
    assert done.code == 1
    assert done.out == []
    assert len(done.err) == 2
    assert done.err[0].startswith("abair: in/bad.png: found")
    assert done.err[1] == "abair: 3 restored, 0 skipped, 1 failed; manifest: out/manifest.parquet"
    rows = manifest.read(Path("out/manifest.parquet"))
    assert [row["input"] for row in rows] == ["in/a.png", "in/b.png", "in/bad.png", "in/sub/c.png"]
    assert [row["deployment"] for row in rows] == ["fake-1", "fake-1", None, "fake-1"]
    assert rows[2]["error"] == done.err[0].removeprefix("abair: ")
    assert Path("out/a.png").stat().st_mtime_ns == Path("in/a.png").stat().st_mtime_ns
    assert (engine[0]["workers"], engine[0]["gpus"]) == (3, 0.0)


def test_a_run_that_is_started_again_does_what_is_missing(abair: Abair, engine: Any) -> None:
    photo("in/a.png"), photo("in/b.png")
    command = ("restore", "in", "-o", "out", *RAY, "--skip-existing")
    assert abair(*command).code == 0
    Path("out/b.png").unlink()
    before = Path("out/a.png").stat().st_mtime_ns
    done = abair(*command, "--json")
    assert done.err == ["abair: 1 restored, 1 skipped, 0 failed; manifest: out/manifest.parquet"]
    assert [record.get("skipped") for record in done.records] == [True, None]
    assert Path("out/a.png").stat().st_mtime_ns == before
    rows = manifest.read(Path("out/manifest.parquet"))
    assert [(row["skipped"], row["weights"]["noise"]) for row in rows] == [(True, 0.75), (False, 0.75)]


def test_json_lines_are_those_without_ray(abair: Abair, engine: Any, restorer: FakeRestorer) -> None:
    photo("in/a.png")
    with_ray = abair("restore", "in", "-o", "out", *RAY, "--json").records
    assert set(with_ray[0]) <= set(manifest.read(Path("out/manifest.parquet"))[0])
    assert abair("restore", "in", "-o", "out", "--overwrite", "--json").records == with_ray


def test_what_cannot_be_done_is_said_before_a_photo_is_restored(abair: Abair, engine: Any) -> None:
    photo("in/a.png"), photo("in/a.heic.jpg")
    for arguments, said in [
        (("in", "-o", "out", *RAY, "--page", "look.html"), "--page"),
        (("in", "-o", "out", *RAY, "--dry-run"), "--dry-run"),
        (("in", "-o", "out", *RAY, "--watch"), "--watch"),
        (("in", "-o", "out", "--workers", "2"), "--workers"),
        (("in", "-o", "out", "--manifest", "m.parquet"), "--manifest"),
        (("-", "-o", "out.png", *RAY), "cannot be used with -"),
        (("in/a.png", "-o", "out.png", *RAY), "expected a folder with --engine ray"),
        (("in", *RAY), "missing without an output folder on this machine"),
        (("s3://b/in", "-o", "s3://b/out", *RAY, "--keep-times"), "--keep-times"),
        (("in", "-o", "out", *RAY, "--weights", "rain=1"), "found the label rain"),
        (("s3://b/in", "-o", "out"), "found the URL s3://b/in, which needs --engine ray"),
    ]:
        done = abair("restore", *arguments)
        assert (done.code, len(done.err)) == (2, 1), (arguments, done.err)
        assert said in done.err[0]
    assert engine == []


def test_a_mistyped_folder_is_told_as_without_ray_and_leaves_no_manifest(abair: Abair, engine: Any) -> None:
    done, without = abair("restore", "nothere", "-o", "out", *RAY), abair("restore", "nothere", "-o", "out/")
    assert (done.code, done.err[0]) == (1, without.err[0])
    assert "nothere: found no such file or folder" in done.err[0]
    assert (engine, Path("out").exists()) == ([], False)


def test_a_manifest_that_exists_is_not_replaced_by_chance(abair: Abair, engine: Any) -> None:
    photo("in/a.png")
    command = ("restore", "in", *RAY, "--manifest", "m.parquet")
    assert abair(*command).code == 0
    done = abair(*command)
    assert (done.code, "found an existing file m.parquet" in done.err[0]) == (2, True)
    assert abair(*command, "--overwrite").code == 0


def test_names_are_as_without_ray() -> None:
    photo("in/a.png"), photo("in/sub/b.jpg"), photo("in/a.restored.png")
    Path("in/c.heic").write_bytes(b"x")
    local = [
        ("in/a.png", "out/a.png", True),
        ("in/c.heic", "out/c.heic.jpg", False),
        ("in/sub/b.jpg", "out/sub/b.jpg", True),
    ]
    assert sorted(plan("in")) == local
    assert plan("in/a.png", "in")[0] == local[0]
    assert len(plan("in/a.png", "in")) == 3
    assert plan("in/a.png", out=None) == [("in/a.png", "in/a.restored.png", True)]
    assert plan("in/a.png", name="{stem}.webp") == [("in/a.png", "out/a.webp", False)]
    assert plan("in/sub", out="s3://b/out/") == [("in/sub/b.jpg", "s3://b/out/b.jpg", True)]


def test_photos_of_urls_keep_their_folders() -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    for name in ("/in/a.png", "/in/sub/b.heic", "/in/a.restored.png"):
        system.pipe_file(name, b"x")
    assert plan("memory://in") == [
        ("memory://in/a.png", "out/a.png", True),
        ("memory://in/sub/b.heic", "out/sub/b.heic.jpg", False),
    ]
    assert plan("memory://in/sub", out="memory://out") == [("memory://in/sub/b.heic", "memory://out/b.heic.jpg", False)]
    assert plan("memory://in/a.png", out=None) == [("memory://in/a.png", "memory://in/a.restored.png", True)]


def test_ray_that_is_missing_is_said(abair: Abair, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/a.png")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = abair("restore", "in", "-o", "out", "--engine", "ray")
    assert (done.code, done.err) == (
        1,
        ["abair: --engine ray: ray is missing; install it with: pip install 'abair[ray]'"],
    )
