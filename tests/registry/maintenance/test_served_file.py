"""`deployment.json`, lost, edited, cut off or stale: told by who restores and who looks, written again by `doctor`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.conftest import Open
from tests.registry.maintenance.conftest import Call, make_second, object_of
from tests.support.outcomes import sqlite

from abair.deployment import CHECKSUM, read_deployment
from abair_registry.db import audit
from abair_registry.db.models import OperationRow, now
from abair_registry.registry import live_file_problem, sync_live_file


def edited(change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> Callable[[Path], object]:
    """Changes the document; without `sealed` its checksum is taken away as well."""

    def edit(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document)
        if not sealed:
            del document[CHECKSUM]
        path.write_text(json.dumps(document))

    return edit


def other_blobs(document: dict[str, Any]) -> None:
    """Rain gets the weights of noise, which are whole and of the same shapes."""
    noise, rain, _ = document["adapters"]
    rain["weights"], noise["weights"] = noise["weights"], rain["weights"]


def other_labels(document: dict[str, Any]) -> None:
    document["labels"][0], document["adapters"][0]["degradation"] = "snow", "snow"


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "lost": (Path.unlink, "is missing", ""),
    "truncated": (
        lambda path: path.write_text(path.read_text()[:300]), "not a deployment", "not a deployment",
    ),
    "binary": (
        lambda path: path.write_bytes(b"\xff\xfe\x00"), "found a binary file", "found a binary file",
    ),
    "another document": (
        lambda path: path.write_text("{}"), "not a deployment: name", "not a deployment: name",
    ),
    "other blobs": (edited(other_blobs), "was edited: its checksum is another", "was edited: its checksum"),
    "other labels": (edited(other_labels), "was edited: its checksum", "was edited: its checksum"),
    "a damaged size": (
        edited(lambda document: document["estimator"].update(size=3)), "was edited: its checksum", "was edited",
    ),
    "a damaged size, no checksum": (
        edited(lambda document: document["estimator"].update(size=3), sealed=False),
        "was edited: estimator.size is 3, recorded is", "(3 bytes)",
    ),
    "other blobs, no checksum": (
        edited(other_blobs, sealed=False), "was edited: adapters.0.weights.path is", "has no checksum",
    ),
    "no checksum": (edited(lambda _: None, sealed=False), "has no checksum", "has no checksum"),
}  # fmt: skip


@sqlite
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_and_written_again(
    call: Call, home: Path, open_registry: Open, tmp_path: Path, damage: str
) -> None:
    change, told, restoring = DAMAGES[damage]
    served = home / "deployment.json"
    whole = served.read_bytes()
    change(served)
    Image.new("RGB", (40, 30), (90, 120, 60)).save(tmp_path / "a.png")
    found = call("estimate", str(tmp_path / "a.png"), abair=True)
    # without a checksum, files that fit each other cannot be told from right ones
    served_all_the_same = damage == "lost" or restoring == "has no checksum"
    assert found.code == (0 if served_all_the_same else 1)
    assert len(found.err.splitlines()) == (2 if damage == "a damaged size, no checksum" else 1)
    assert restoring in found.err
    assert found.err.endswith("run: abair-registry doctor\n")
    found = call("verify")
    assert (found.code, len(found.err.splitlines())) == (1, 1)
    assert f"{served}: {told}" in found.err
    assert found.err.endswith("run: abair-registry doctor\n")
    found = call("doctor", "--json")
    assert (found.code, found.err) == (0, "")
    (mended,) = object_of(found)["mended"]
    assert mended.startswith(f"deployment.json: written again, because it {told}")
    assert served.read_bytes() == whole
    with open_registry() as registry, registry.database.read() as session:
        (event,) = (event for event in audit.events(session, "registry") if event.action == "mend")
        assert (event.detail["mended"], event.deployment_number) == ([mended], 1)


def test_a_file_of_an_earlier_deployment_is_told_and_every_writing_command_mends_it(
    call: Call, home: Path, open_registry: Open
) -> None:
    with open_registry() as registry:
        make_second(registry)
    problem = f"{home / 'deployment.json'}: is deployment 1, and 2 is live"
    assert problem in call("verify").err
    assert "it is deployment 1, and 2 is live; run: abair-registry verify" in call("list").err
    said = call("disable", "nothing", "--yes").err  # whatever becomes of the command itself
    assert "mended: deployment.json: written again, because it is deployment 1, and 2 is live" in said
    assert read_deployment(home).name == "2"
    assert call("verify").code == 0


def test_a_file_that_another_process_is_about_to_write_is_no_alarm(home: Path, open_registry: Open) -> None:
    with open_registry() as registry, open_registry() as other:
        make_second(registry)
        with registry.database.write() as session:
            session.add(
                OperationRow(
                    kind="promote", subject="2", state="running", step="publish", actor="me", host="here", process=1,
                    started=now(), heartbeat=now(),
                )
            )  # fmt: skip
        writer = threading.Timer(0.3, sync_live_file, [other])
        writer.start()
        assert live_file_problem(registry) is None
        writer.join()
    assert read_deployment(home).name == "2"


def test_a_home_that_serves_what_the_registry_does_not_know_is_not_overwritten(
    call: Call, home: Path, open_registry: Open
) -> None:
    served = home / "deployment.json"
    edited(lambda document: document.update(name="7"), sealed=False)(served)
    before = served.read_bytes()
    found = call("doctor")
    assert found.code == 1
    assert "is deployment 7, and the registry's newest is 1" in found.err
    assert "abair-registry doctor" not in found.err
    assert served.read_bytes() == before
    served.unlink()
    assert call("doctor").code == 0


def test_a_folder_in_its_place_is_told_without_a_circle(call: Call, home: Path) -> None:
    path = home / "deployment.json"
    path.unlink()
    path.mkdir()
    for command in ("verify", "doctor"):
        found = call(command)
        assert (found.code, len(found.err.splitlines())) == (1, 1)
        assert "a folder" in found.err
        assert f"move {path} away" in found.err
    assert "abair-registry doctor" not in found.err
    path.rmdir()
    assert (
        call("doctor").out == "mended: deployment.json: written again, because it is missing\nnothing else is wrong\n"
    )
