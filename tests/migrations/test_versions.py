"""Every revision goes up and comes down with rows in it, and the last one is what the models say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from abair.errors import RegistryError
from abair_migrations import HEAD, VERSION_TABLE
from abair_registry.db import migrate
from abair_registry.db.definitions import differences
from abair_registry.db.engine import Database
from abair_registry.db.models import Base
from abair_registry.registry import Registry, open_registry
from abair_registry.settings import Settings


def rows(catalogue: Registry) -> dict[str, int]:
    with catalogue.database.read() as session:
        return {
            name: session.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in Base.metadata.tables
        }


def assert_as_expected(engine: Engine) -> None:
    with engine.connect() as connection:
        assert differences(connection) == []


def test_the_head_that_is_said_is_the_newest_revision() -> None:
    assert migrate.known_revisions()[-1] == HEAD
    assert migrate.known_revisions() == ["0001", "0002"]


@pytest.mark.parametrize("begin", [migrate.ensure, migrate.upgrade])
def test_readers_of_sqlite_do_not_wait_for_writers(begin: Callable[[Engine], object], tmp_path: Path) -> None:
    database = Database(Settings(home=tmp_path, registry_url=None))
    begin(database.engine)
    with database.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.close()


def test_a_table_of_somebody_else_is_left_alone(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id INTEGER)"))
    assert_as_expected(engine)
    migrate.downgrade(engine, "base")
    assert "theirs" in inspect(engine).get_table_names()


@pytest.mark.slow
@pytest.mark.parametrize("revision", migrate.known_revisions())
def test_a_revision_goes_up_comes_down_and_up_again_with_rows_in_it(
    settings: Settings, bundle: Path, revision: str
) -> None:
    with open_registry(settings, bundle) as catalogue:
        assert rows(catalogue)["adapter"] == 3
        engine = catalogue.database.engine
        migrate.downgrade(engine, "base")
        assert migrate.current(engine) is None
        assert not set(Base.metadata.tables) & set(inspect(engine).get_table_names())
        migrate.upgrade(engine, revision)
        assert migrate.current(engine) == revision
        migrate.upgrade(engine)
    with open_registry(settings, bundle) as catalogue:
        assert rows(catalogue)["adapter"] == 3


def test_an_unknown_revision_is_one_clear_line(engine: Engine) -> None:
    migrate.upgrade(engine)
    with pytest.raises(RegistryError, match=r"schema revision 9999: .*; expected one of base, 0001, 0002"):
        migrate.upgrade(engine, "9999")
    assert migrate.current(engine) == HEAD


def test_a_sqlite_file_is_backed_up_only_before_something_changes(tmp_path: Path, bundle: Path) -> None:
    settings = Settings(home=tmp_path)
    with open_registry(settings, bundle) as catalogue:
        engine = catalogue.database.engine
        for revision in ("9999", "head", HEAD):
            with contextlib.suppress(RegistryError):
                assert migrate.upgrade(engine, revision) is None
        assert not list(tmp_path.glob("*.backup"))
        assert migrate.downgrade(engine, "base") in tmp_path.glob("*.backup")


def test_a_newer_schema_stops_with_both_revisions_and_what_to_do(settings: Settings, bundle: Path) -> None:
    with open_registry(settings, bundle) as catalogue, catalogue.database.write() as session:
        session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    message = (
        r"found schema revision 9999, expected 0002; it was made by a newer ABAIR; run: pip install --upgrade abair"
    )
    with pytest.raises(RegistryError, match=message), open_registry(settings, bundle):
        pass


def test_a_stale_schema_stops_with_both_revisions_and_what_to_do(settings: Settings, bundle: Path) -> None:
    with open_registry(settings, bundle) as catalogue:
        migrate.downgrade(catalogue.database.engine, "0001")
    message = r"found schema revision 0001, expected 0002; run: abair-registry db upgrade"
    with pytest.raises(RegistryError, match=message), open_registry(settings, bundle):
        pass


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_sqlite_file_is_backed_up_before_it_is_changed(settings: Settings, bundle: Path) -> None:
    with open_registry(settings, bundle) as catalogue:
        backup = migrate.downgrade(catalogue.database.engine, "base")
    assert backup is not None
    assert backup.parent == settings.home
    backup.rename(settings.home / "registry.db")
    with open_registry(settings, bundle) as catalogue:
        assert rows(catalogue)["member"] == 3


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_backup_that_cannot_be_written_changes_nothing(
    settings: Settings, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_registry(settings, bundle) as catalogue:
        monkeypatch.setattr(Path, "with_name", lambda path, name: path.parent / "no such folder" / name)
        with pytest.raises(RegistryError, match=r"the backup cannot be written .* nothing was changed"):
            migrate.downgrade(catalogue.database.engine, "base")
        assert migrate.current(catalogue.database.engine) == HEAD


def test_another_tools_revisions_in_the_same_database_are_not_ours(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    migrate.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "theirs"
    assert_as_expected(engine)
