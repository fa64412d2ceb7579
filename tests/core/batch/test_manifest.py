"""The manifest of a batch: rows in the order of the inputs, whole or not there at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from abair.batch import manifest
from abair.errors import AbairError

pytest.importorskip("pyarrow", reason="get it with: pip install '.[ray]'")


def restored(name: str, **more: Any) -> dict[str, Any]:
    return {"input": name, "output": f"out/{name}", "weights": {"noise": 1.0}, "seconds": 0.5, "deployment": "d"} | more


def write(file: Path, *records: dict[str, Any], go_on: bool = False, group: int = 100) -> list[dict[str, Any]]:
    with manifest.open_manifest(file, go_on=go_on, group=group) as kept:
        for record in records:
            kept.add(record)
    return manifest.read(file)


def test_rows_are_in_order_and_failures_have_the_same_columns(tmp_path: Path) -> None:
    failed = {"input": "b", "output": "out/b", "error": "b: found nothing"}
    rows = write(tmp_path / "m.parquet", restored("c"), failed, restored("a", warnings=["w"]), group=2)
    assert [(row["input"], row["error"]) for row in rows] == [("c", None), ("b", "b: found nothing"), ("a", None)]
    assert [row["weights"] for row in rows] == [{"noise": 1.0}, None, {"noise": 1.0}]
    assert [row["skipped"] for row in rows] == [False, False, False]
    assert rows[2]["warnings"] == ["w"]


def test_a_run_that_is_stopped_leaves_the_rows_of_what_is_done(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"

    def stopped() -> None:
        with manifest.open_manifest(file, go_on=False) as kept:
            kept.add(restored("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [row["input"] for row in manifest.read(file)] == ["a"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_second_run_that_is_stopped_loses_no_row_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    before = write(file, restored("a"), restored("b"), restored("c"))

    def stopped(*records: dict[str, Any]) -> None:
        with manifest.open_manifest(file, go_on=True) as kept:
            for record in records:
                kept.add(record)
            raise AbairError("no cluster")

    with pytest.raises(AbairError, match="no cluster"):
        stopped()
    assert manifest.read(file) == before
    with pytest.raises(AbairError, match="no cluster"):
        stopped(restored("b", deployment="new"))
    assert [(row["input"], row["deployment"]) for row in manifest.read(file)] == [("b", "new"), ("a", "d"), ("c", "d")]


def test_a_photo_that_is_skipped_later_keeps_what_was_known_of_it(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    write(file, restored("a"), {"input": "b", "output": "out/b", "error": "no"})
    skipped = [{"input": name, "output": f"out/{name}", "skipped": True} for name in ("a", "b", "c")]
    rows = write(file, *skipped, go_on=True)
    assert [row["weights"] for row in rows] == [{"noise": 1.0}, None, None]
    assert [row["skipped"] for row in rows] == [True, True, True]
    assert [row["error"] for row in rows] == [None, None, None]
    again = write(file, *skipped, go_on=True)
    assert again == rows


def test_a_file_that_is_no_manifest_is_not_replaced_when_going_on(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    file.write_bytes(b"mine")
    with pytest.raises(AbairError, match="cannot be read as a manifest"):
        write(file, go_on=True)
    assert file.read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AbairError, match="the manifest cannot be written"):
        write(tmp_path / "file" / "m.parquet")
