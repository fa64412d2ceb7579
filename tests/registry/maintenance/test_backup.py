"""Copies of `registry.db`: every writing command keeps one, and they bring back a lost or damaged database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.conftest import Open
from tests.registry.maintenance.conftest import Call, make_second
from tests.support.outcomes import sqlite

from abair_registry.db import audit, backup, queries
from abair_registry.registry import sync_live_file

LOOKS = (("list",), ("history",), ("show", "noise"), ("verify",), ("doctor", "--dry-run"), ("db", "check"))
WRITES = (("doctor",), ("rollback",), ("disable", "rain", "--yes"), ("pull",), ("db", "upgrade"))


def copies(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "backups").glob("registry-*.db"))


def write_something(open_registry: Open, text: str) -> None:
    with open_registry() as registry, registry.database.write() as session:
        audit.record_event(session, audit.Actor("me"), "test", text)


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def make_page_malformed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    for page in range(1, len(data) // size):
        data[page * size : page * size + 64] = b"\xee" * 64
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"no database, whatever it is called" * 100),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "malformed pages": make_page_malformed,
    "rows without their others": lambda path: sql(
        path, "PRAGMA foreign_keys=OFF", "DROP TRIGGER tr_estimator_delete", "DELETE FROM estimator"
    ),
    "no live row": lambda path: sql(path, "DELETE FROM live"),
    "a table is gone": lambda path: sql(path, "PRAGMA foreign_keys=OFF", "DROP TABLE live"),
}


@sqlite
def test_every_writing_command_keeps_a_copy_of_what_changed_and_the_newest_five_stay(
    call: Call, home: Path, open_registry: Open
) -> None:
    assert call("list").code == 0
    assert not (home / "backups").exists()
    call("doctor")
    first = copies(home)
    assert len(first) == 1
    call("doctor")  # nothing changed
    call("disable", "nothing", "--yes")
    assert copies(home) == first
    for number in range(6):
        write_something(open_registry, str(number))
        call("doctor")
    assert len(copies(home)) == backup.KEPT
    assert first[0] not in copies(home)
    with closing(sqlite3.connect(home / "backups" / copies(home)[-1])) as newest:
        assert newest.execute("SELECT max(CAST(subject AS INTEGER)) FROM event WHERE action = 'test'").fetchone() == (
            5,
        )


@sqlite
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_told_by_every_command_with_the_way_back_and_put_back(
    call: Call, home: Path, open_registry: Open, damage: str
) -> None:
    call("doctor")
    kept = copies(home)
    served = (home / "deployment.json").read_bytes()
    database = home / "registry.db"
    for journal in home.glob("registry.db-*"):
        journal.unlink()
    DAMAGES[damage](database)
    broken = database.read_bytes()
    for command in (*LOOKS, *WRITES):
        found = call(*command)
        assert (found.code, found.out, len(found.err.splitlines())) == (1, "", 1), command
        assert "registry.db: is damaged (" in found.err
        assert (
            f"put its newest backup back ({home / 'backups' / kept[-1]}), run: abair-registry db restore" in found.err
        )
    assert copies(home) == kept  # a damaged one takes no whole one's place
    assert (home / "deployment.json").read_bytes() == served
    found = call("db", "restore")
    assert found.code == 0, found.err
    assert f"the database that was there is now {database}.replaced." in found.err
    (aside,) = home.glob("registry.db.replaced.*[0-9]")
    assert aside.read_bytes() == broken
    assert call("verify").code == 0
    assert call("doctor").out == "nothing is wrong\n"


@sqlite
def test_a_folder_in_its_place_is_told_with_the_way_back_and_moved_aside(call: Call, home: Path) -> None:
    call("doctor")
    database = home / "registry.db"
    database.unlink()
    database.mkdir()
    for command in ("list", "doctor"):
        found = call(command)
        assert (found.code, len(found.err.splitlines())) == (1, 1)
        assert "is damaged (it is a folder)" in found.err
        assert found.err.endswith("run: abair-registry db restore\n")
    assert call("db", "restore", "--yes").code == 0
    assert call("verify").code == 0


@sqlite
def test_a_lost_database_names_its_backup_and_a_damaged_backup_is_passed_over(
    call: Call, home: Path, open_registry: Open
) -> None:
    call("doctor")
    write_something(open_registry, "later")
    call("doctor")
    older, newer = copies(home)
    (home / "backups" / newer).write_bytes(b"damaged")
    for file in home.glob("registry.db*"):
        file.unlink()
    assert f"({home / 'backups' / older}), run: abair-registry db restore" in call("list").err
    assert "expected a copy of a registry's database" in call("db", "restore", str(home / "backups" / newer)).err
    assert "no such file" in call("db", "restore", str(home / "nothing")).err
    assert call("db", "restore").code == 0
    assert call("history").code == 0
    for file in (home / "backups").iterdir():
        file.unlink()
    (home / "registry.db").write_bytes(b"damaged")
    assert (
        "there is no backup; to rebuild it from what this home serves, run: abair-registry init --from-home"
        in call("doctor").err
    )
    assert "found no backup in" in call("db", "restore").err


@sqlite
def test_a_sound_database_is_replaced_only_if_that_is_confirmed(call: Call, home: Path) -> None:
    call("doctor")
    found = call("db", "restore")
    assert (found.code, "--yes" in found.err) == (2, True)
    assert call("db", "restore", "--yes").code == 0


@sqlite
def test_what_serves_and_is_newer_than_the_copy_is_recorded_in_it(call: Call, home: Path, open_registry: Open) -> None:
    call("doctor")
    with open_registry() as registry:
        make_second(registry)
        sync_live_file(registry)
    served = (home / "deployment.json").read_bytes()
    (home / "registry.db").write_bytes(b"damaged")
    found = call("db", "restore")
    assert found.code == 0
    assert "deployment 2, which serves and is newer than this copy, was recorded in it" in found.err
    assert "deployment 2 is live" in found.out
    assert (home / "deployment.json").read_bytes() == served
    assert call("verify").code == 0
    with open_registry() as registry, registry.database.read() as session:
        assert queries.predecessor(session, 2) == 1  # what `rollback` goes back to


@sqlite
def test_a_copy_counts_as_the_newest_although_the_clock_went_back(call: Call, home: Path, open_registry: Open) -> None:
    call("doctor")
    (made,) = copies(home)
    folder = home / "backups"
    ahead = [f"registry-29991231T2359{second:02}.000000.db" for second in range(backup.KEPT)]
    for name in ahead:
        (folder / name).write_bytes((folder / made).read_bytes())
    (folder / made).rename(folder / "registry-zebra.db")  # somebody's own, which has no moment
    write_something(open_registry, "later")
    call("doctor")
    newest = copies(home)[-2]  # before the zebra
    assert newest > ahead[-1]
    assert set(copies(home)) == {*ahead[1:], newest, "registry-zebra.db"}
    assert backup.newest_sound_copy(home / "registry.db") == folder / newest
    with closing(sqlite3.connect(folder / newest)) as connection:
        assert connection.execute("SELECT count(*) FROM event WHERE subject = 'later'").fetchone() == (1,)


@sqlite
def test_what_serves_and_is_recorded_in_the_copy_is_named_by_its_number(
    call: Call, home: Path, open_registry: Open
) -> None:
    call("doctor")
    with open_registry() as registry:
        make_second(registry)
        sync_live_file(registry)
    call("doctor")
    call("rollback")
    (before, *_) = [home / "backups" / name for name in copies(home)[-2:]]
    found = call("db", "restore", "--yes", str(before))
    assert found.code == 0
    assert "to go on with deployment 1, run: abair-registry rollback --to 1" in found.err
    (home / "deployment.json").unlink()
    found = call("db", "restore", "--yes", str(before))
    assert "is missing; the next command that writes lets the live deployment serve\n" in found.err


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_postgresql_is_backed_up_by_its_own_tools(call: Call, home: Path) -> None:
    assert call("doctor").code == 0
    assert not (home / "backups").exists()
    found = call("db", "restore")
    assert (found.code, "restore it with the server's own tools" in found.err) == (1, True)
