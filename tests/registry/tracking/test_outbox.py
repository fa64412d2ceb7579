"""What is kept for MLflow: files that were lost or altered meanwhile are told with what gives them up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from tests.conftest import Open
from tests.support.outcomes import sqlite

from abair.errors import RegistryError
from abair_registry.settings import Settings
from abair_registry.tracking import outbox
from abair_registry.tracking.mlflow_client import Runs

TAGS = {"abair.operation": "7", "abair.started": "2026-11-29T12:00:00+00:00"}
BEGIN = ["begin", {"name": "add frost", "tags": TAGS, "params": {}, "at": 1}]


class Told:
    """In the place of MLflow."""

    away = None

    def find(self, _: object) -> str:
        return "run"

    def file(self, *_: object) -> None:
        raise AssertionError("there is none")

    def tags(self, run_id: str, values: dict[str, str]) -> None:
        assert (run_id, values) == ("run", {"a": "b"})


DAMAGES: dict[str, Any] = {
    "a lost file": [BEGIN, ["file", {"path": "report.json", "stored": "00001"}]],
    "an altered number": [["begin", {"tags": TAGS | {"abair.operation": "x"}}]],
    "an altered name": [["begin", {"tag": TAGS}]],
    "an altered call": [BEGIN, ["_stage", {}]],
    "altered arguments": [BEGIN, ["tags", {"value": {}}]],
}


def kept(home: Path, entries: list[Any]) -> Path:
    folder = home / outbox.FOLDER / "7-20261129"
    folder.mkdir(parents=True)
    (folder / "entries.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


@sqlite
@pytest.mark.parametrize("entries", DAMAGES.values(), ids=DAMAGES)
def test_a_kept_run_that_cannot_be_read_is_told_and_given_up_by_deleting_it(
    entries: list[Any], open_registry: Open, settings: Settings
) -> None:
    folder = kept(settings.home, entries)
    with open_registry() as registry:
        for _ in range(2):
            done, (refused,) = outbox.drain(registry, cast("Runs", Told()))
            assert (done, refused.count("\n")) == ([], 0)
            assert refused.endswith(f"it is kept in {folder}; to give it up, delete that folder")


@sqlite
def test_a_folder_in_the_place_of_a_kept_runs_entries_is_told_once_and_the_others_are_mirrored(
    open_registry: Open, settings: Settings
) -> None:
    kept(settings.home, [BEGIN])
    folder = settings.home / outbox.FOLDER / "3-20261128"
    (folder / "entries.jsonl").mkdir(parents=True)
    with open_registry() as registry:
        done, (refused,) = outbox.drain(registry, cast("Runs", Told()))
        assert len(done) == 1
        assert refused.endswith(f"it is kept in {folder}; to give it up, delete that folder")
        assert outbox.drain_trainings(settings.home, cast("Runs", Told())) == ([], [])


@sqlite
def test_a_kept_run_that_is_whole_is_told_once(open_registry: Open, settings: Settings) -> None:
    folder = kept(settings.home, [BEGIN, ["tags", {"values": {"a": "b"}}]])
    with open_registry() as registry:
        assert outbox.drain(registry, cast("Runs", Told())) == (
            ["run run holds add frost, which was kept meanwhile"], [],
        )  # fmt: skip
        assert not folder.exists()


@sqlite
def test_a_folder_in_the_place_of_its_lock_is_told_with_what_to_do(open_registry: Open, settings: Settings) -> None:
    kept(settings.home, [BEGIN])
    lock = settings.home / "outbox.lock"
    lock.mkdir()
    with open_registry() as registry, pytest.raises(RegistryError, match=f"move {lock} away"):
        outbox.drain(registry, cast("Runs", Told()))
