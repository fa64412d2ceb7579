"""A home that an older build made goes the whole way: schema, offer, upgrade, and back."""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, func, insert, select, text
from tests.conftest import write_adapter
from tests.registry.conftest import FROST, Run, complaints
from tests.registry.operations.test_add import reinstalled
from tests.support.plugin_package import Plugin, Tiny

from abair import Restorer
from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.deployment import read_deployment
from abair.model.backbone import load_backbone
from abair_registry.cli import app
from abair_registry.db import migrate
from abair_registry.db.engine import Database
from abair_registry.db.models import Base
from abair_registry.settings import Settings

pytestmark = pytest.mark.exhaustive

HOME = Path(__file__).parent / "homes" / "first-build.tar.xz"


@pytest.fixture
def old_home(settings: Settings, environment: dict[str, str]) -> Path:
    """The home, its database moved to PostgreSQL where the test asks for that."""
    with tarfile.open(HOME) as archive:
        archive.extractall(settings.home, filter="data")
    if settings.registry_url is not None:
        move_to_server(settings.home / "registry.db", settings)
    return settings.home


def move_to_server(file: Path, settings: Settings) -> None:
    """Copy all rows into an empty database of the same revision, and delete the file."""
    database = Database(settings)
    migrate.upgrade(database.engine, "0001")
    with create_engine(f"sqlite:///{file}").connect() as source, database.engine.begin() as target:
        for table in Base.metadata.sorted_tables:
            if rows := [dict(row) for row in source.execute(select(table)).mappings()]:
                target.execute(insert(table), rows)
            for column in table.primary_key:
                sequence = target.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
                if sequence and rows:
                    target.execute(
                        text("SELECT setval(:name, :last)"), {"name": sequence, "last": rows[-1][column.name]}
                    )
    database.close()
    file.unlink()


def install_frost(site: Path, home: Path, next_bundle: Path) -> None:
    """Install version 2.0 of the team's plugin, with adapters for both backbones."""
    served = read_deployment(home)
    old = next(ref for ref in served.adapters if ref.degradation == "frost")
    files = home / "old-adapter"
    files.mkdir()
    for ref, name in ((old.config, CONFIG_FILE), (old.weights, WEIGHTS_FILE)):
        (files / name).write_bytes(served.find(ref).read_bytes())

    def add_adapter(folder: Path) -> None:
        write_adapter(folder / "adapters" / "tiny-2", load_backbone(next_bundle / "backbone.safetensors"), seed=7)

    tiny = Tiny.read(served.find(served.backbone.file), files)
    Plugin(synthesis=FROST, change=add_adapter).make(site, tiny)
    reinstalled(site, "2.0")


@pytest.mark.new_replays
def test_an_old_home_serves_as_before_and_moves_to_the_new_backbone_and_back(
    old_home: Path,
    run: Run,
    site: Path,
    next_bundle: Path,
    photo: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = Restorer.load(old_home)(photo).image
    install_frost(site, old_home, next_bundle)
    monkeypatch.setenv("ABAIR_FACTORY", str(next_bundle))

    code, told, err = run("list")
    assert (code, told) == (1, [])
    assert complaints(err)[-1].endswith("run: abair-registry db upgrade (a SQLite file is backed up first)")
    assert app.run(["db", "upgrade"]) == 0
    capsys.readouterr()

    _, rows, err = run("list")
    assert {row["name"]: row["state"] for row in rows if row["name"] in {"frost", "noise", "rain"}} == {
        "frost": "live", "noise": "live", "rain": "disabled",
    }  # fmt: skip
    assert "adapter for tiny-2: yes: frost, low-light, noise; no: none" in err
    assert np.array_equal(Restorer.load(old_home)(photo).image, before)

    code, (told,), _ = run("upgrade", "--route", "features", "--force", "--reason", "a new backbone")
    assert (code, told["outcome"], told["deployment"]) == (0, "live", 4)
    live = Restorer.load(old_home)
    assert live.deployment.backbone.size == "tiny-2"
    assert live.labels == ("noise", "low-light", "haze", "frost", "clean")
    assert run("verify")[0] == 0

    assert run("rollback")[1][0]["deployment"] == 3
    assert np.array_equal(Restorer.load(old_home)(photo).image, before)
    assert [row["deployment"] for row in run("history")[1]] == [4, 3, 2, 1]


def test_the_archive_holds_what_its_readme_says(tmp_path: Path) -> None:
    with tarfile.open(HOME) as archive:
        archive.extractall(tmp_path, filter="data")
    with closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
        (revision,) = connection.execute("SELECT version_num FROM abair_alembic_version").fetchone()
        states = dict(connection.execute("SELECT name, state FROM plugin").fetchall())
    assert revision == "0001"
    assert states == {"noise": "live", "rain": "disabled", "low-light": "live", "frost": "live"}
