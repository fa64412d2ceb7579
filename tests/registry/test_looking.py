"""Looking never writes: an empty, lost or foreign database changes nothing that serves, nor does a list."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import Open

from abair.cli import app as restoring
from abair.deployment import read_deployment
from abair_registry.cli import app
from abair_registry.db.engine import Database, _unusable
from abair_registry.registry import open_registry, sync_live_file
from abair_registry.settings import Settings

LOOKS = (("list",), ("history",), ("show", "noise"), ("verify",), ("doctor", "--dry-run"), ("db", "current"))
WRITES = (("disable", "rain", "--yes"), ("doctor",))

Call = Callable[..., SimpleNamespace]


@pytest.fixture
def call(
    environment: dict[str, str], bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Calls `abair-registry` in this process, with the tiny bundle as factory."""
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))

    def run(*arguments: str) -> SimpleNamespace:
        code = app.run(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return run


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder: its time of modification and its bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def used(open_registry: Open, settings: Settings) -> Path:
    """A home that serves deployment 1."""
    with open_registry() as registry:
        sync_live_file(registry)
    return settings.home


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_to_look_at_nothing_makes_nothing(call: Call, settings: Settings) -> None:
    shutil.rmtree(settings.home)
    for command in LOOKS:
        found = call(*command)
        assert found.code == 0, found.err
        assert found.out
    assert "found no database, expected revision" in call("db", "check").err
    assert not settings.home.exists()
    assert "ABAIR_HOME names" in call("list").err
    rows = [json.loads(line) for line in call("history", "--json").out.splitlines()]
    assert [row["deployment"] for row in rows] == [1]


def test_a_home_that_was_used_is_left_as_it_is(call: Call, used: Path) -> None:
    before = state(used)
    for command in (*LOOKS, ("db", "check")):
        found = call(*command)
        assert (found.code, found.err) == (0, ""), command
    assert "note: MLflow was not looked at" in call("doctor", "--dry-run").out
    assert state(used) == before


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
@pytest.mark.parametrize("how", ["lost", "empty", "elsewhere"])
def test_an_empty_database_beside_a_used_home_stops_every_command(
    call: Call, used: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "elsewhere":
        monkeypatch.setenv("ABAIR_REGISTRY_URL", f"sqlite:///{tmp_path}/other.db")
    else:
        for file in used.glob("registry.db*"):
            file.unlink()
    if how == "empty":
        (used / "registry.db").touch()
    told = {"lost": f"found no {used / 'registry.db'}", "elsewhere": f"found no {tmp_path / 'other.db'}"}
    expected = f"{told.get(how, 'found an empty database')}, but "
    before = state(used)
    for command in (*LOOKS[:-1], *WRITES, ("db", "check"), ("db", "upgrade")):
        found = call(*command)
        assert found.code == 1, command
        assert expected in found.err, command
        assert len(found.err.splitlines()) == 1
    assert state(used) == before
    assert not (tmp_path / "other.db").exists()
    (used / "deployment.json").unlink()  # what an operation left is enough to tell
    (used / "blobs" / "ab").mkdir(exist_ok=True)
    (used / "blobs" / "ab" / ("ab" + "0" * 62)).touch()
    assert expected in call("list").err


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_home_whose_first_operation_was_killed_begins_again(
    call: Call, used: Path, bundle: Path, settings: Settings
) -> None:
    (used / "deployment.json").unlink()
    for file in used.glob("registry.db*"):
        file.unlink()
    assert call("list").code == 0  # the factory's blobs alone are no sign of another registry
    with open_registry(settings, bundle) as registry:
        sync_live_file(registry)
    assert read_deployment(used).name == "1"


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_home_that_cannot_be_written_can_be_looked_at(
    call: Call, used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in used.glob("registry.db-*"):
        file.unlink()
    before = state(used)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **rest: not mode & os.W_OK and access(path, mode, **rest))
    for command in LOOKS:
        assert call(*command).code == 0, command
    assert state(used) == before


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_database_of_somebody_else_can_be_looked_at_and_nothing_is_left_there(
    call: Call, used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(used)
    access = os.access

    def refuse(path: Path, mode: int, **rest: bool) -> bool:
        return access(path, mode, **rest) and not (mode & os.W_OK and Path(path).is_file())

    monkeypatch.setattr(os, "access", refuse)
    for command in LOOKS:
        assert call(*command).code == 0, command
    assert state(used) == before


@pytest.mark.skipif(sys.platform == "win32", reason="files have no owner's name there")
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_file_of_somebody_else_beside_the_database_is_named(
    call: Call, used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = used / "registry.db-shm"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *rest: Path(path) != foreign and access(path, *rest))

    def refuse(self: Database) -> None:
        foreign.touch()
        raise _unusable(self.url, "attempt to write a readonly database")

    monkeypatch.setattr(Database, "check_writable", refuse)
    found = call("doctor")
    assert (found.code, f"{foreign} cannot be written, whose owner is {used.owner()}" in found.err) == (1, True)
    assert f"let {foreign} belong to the owner of {used / 'registry.db'}" in found.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit of their size there")
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_home_on_a_full_disk_can_be_looked_at(used: Path, environment: dict[str, str]) -> None:
    import resource

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    for file in used.glob("registry.db-*"):
        file.unlink()
    before = state(used)
    for command in LOOKS[:2]:
        looked = subprocess.run(
            [sys.executable, "-m", "abair_registry", *command],
            env=environment, preexec_fn=fill, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert looked.returncode == 0, looked.stderr
    for file in used.glob("registry.db-*"):
        assert file.stat().st_size == 0  # SQLite could not even fill them, nor take them away
        file.unlink()
    assert state(used) == before


def test_a_stale_file_is_told_and_written_by_who_may_write(call: Call, used: Path) -> None:
    served = used / "deployment.json"
    served.write_text("{}")
    for command in LOOKS[:3]:
        found = call(*command)
        assert found.code == 0
        assert "is not the deployment that is live in the registry: it " in found.err
        assert "; run: abair-registry verify" in found.err
        assert served.read_text() == "{}"
    for command in (("verify",), ("doctor", "--dry-run")):
        assert call(*command).code == 1
    assert served.read_text() == "{}"
    assert call("doctor").code == 0
    assert read_deployment(used).name == "1"


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_restoring_says_when_the_factory_takes_the_place_of_what_was_deployed(
    used: Path, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from PIL import Image

    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), (90, 120, 60)).save("a.png")

    def warnings(*options: str) -> tuple[list[str], str]:
        assert restoring.run(["restore", "a.png", "-o", "b.png", "--overwrite", "--json", *options]) == 0
        said = capsys.readouterr()
        return json.loads(said.out)["warnings"], said.err

    assert warnings() == ([], "")
    (used / "deployment.json").unlink()
    found, said = warnings()
    assert len(found) == 1
    assert "has no deployment.json; restoring with the deployment that comes with ABAIR" in found[0]
    assert said == f"abair: warning: {found[0]}\n"
    assert warnings("--deployment", str(bundle)) == ([], "")
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path / "mistyped"))
    assert "which does not exist; restoring with" in warnings()[0][0]
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path / "a.png"))
    assert "a.png is no folder; restoring with" in warnings()[0][0]
    monkeypatch.delenv("ABAIR_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # a home that nobody named or used
    assert warnings() == ([], "")


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_home_that_may_not_be_read_is_one_line(call: Call, used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **rest: path != used and access(path, mode, **rest))
    for command in (*LOOKS, ("db", "check"), *WRITES):
        found = call(*command)
        assert (found.code, len(found.err.splitlines())) == (1, 1), command
        assert f"{used}: cannot be read (Permission denied); expected a folder that you may read" in found.err
