"""`abair-registry add` with a plugin that is none of ours, and what becomes of plugins that are installed anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from tests.registry.conftest import Run, complaints
from tests.support.hostile import FAMILY
from tests.support.outcomes import sqlite
from tests.support.plugin_package import Plugin, Tiny, write_metadata

import abair_registry.db.models
from abair import Restorer
from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.deployment import read_deployment
from abair_registry.db.audit import Actor
from abair_registry.operations.lifecycle import Add
from abair_registry.operations.progress import Steps
from abair_registry.plugins import installed
from abair_registry.registry import Registry, open_registry
from abair_registry.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made_for_it(bundle: Path, spare_adapter: Path) -> Tiny:
    """The bundle's backbone, and an adapter for it."""
    config = json.loads((spare_adapter / CONFIG_FILE).read_text())
    return Tiny(bundle / "backbone.safetensors", config, spare_adapter / WEIGHTS_FILE)


def everything(settings: Settings, bundle: Path) -> tuple[dict[str, list[Any]], dict[str, bytes]]:
    """All rows of all tables, and all files of the home but the database's."""
    with open_registry(settings, bundle) as registry, registry.database.read() as session:
        tables = abair_registry.db.models.Base.metadata.tables
        rows = {name: session.execute(text(f"SELECT * FROM {name} ORDER BY 1")).all() for name in tables}
    home = settings.home
    files = {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.name.startswith("registry.db")
    }
    return rows, files


def row(run: Run, name: str) -> dict[str, Any]:
    code, rows, err = run("list")
    assert (code, err) == (0, "")
    return next(row for row in rows if row["name"] == name)


class ToldSteps(Steps):
    """Keeps the steps that are shown."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.told: list[str] = []

    def begin(self, step: str, total: int | None = None) -> None:
        self.told.append(step)


@sqlite
def test_entry_points_for_other_programs_are_told(registry: Registry, site: Path, made_for_it: Tiny) -> None:
    Plugin(groups=("console_scripts", "pytest11")).make(site, made_for_it)
    steps = ToldSteps()
    operation = Add("frost", Actor("Ada", ""))
    with registry.database.read() as session:
        operation.find(session)
    operation.prepare(registry, steps)
    assert steps.told == ["probe frost 1.0, which also has entry points in console_scripts, pytest11"]


def reinstalled(site: Path, version: str) -> None:
    """Another version of `frost` is installed over the first."""
    (info,) = site.glob("abair_frost-*.dist-info")
    for file in ("METADATA", "RECORD"):
        path = info / file
        path.write_text(path.read_text().replace("Version: 1.0\n", f"Version: {version}\n"))
    record = (info / "RECORD").read_text().splitlines()
    kept = [line.split(",")[0] + ",," if "METADATA" in line else line for line in record]
    (info / "RECORD").write_text("\n".join(kept) + "\n")


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_plugin_that_waits_for_review_is_a_candidate_and_nothing_served_changes(
    run: Run, team: Path, settings: Settings, trained: Tiny
) -> None:
    assert row(run, "frost")["state"] == "available"
    run("doctor")  # which begins the registry
    served = (settings.home / "deployment.json").read_bytes()
    code, (told,), err = run("add", "abair-frost", "--review", "--actor", "ada", "--reason", "asked for by the archive")
    assert (code, told["outcome"]) == (0, "challenger")
    # away from a terminal, too, one can see where it is, and the verdicts
    assert err.splitlines()[:2] == ["probe frost 1.0", "frost: damage clean photos and look at them"]
    assert "passed   frost: recall" in err
    assert complaints(err) == [
        f"abair-registry: run {told['run_id']}, {told['seconds']:.0f} s; to look at it: abair-registry ui"
    ]
    found = row(run, "frost")
    assert (found["state"], found["version"], found["installed_version"], found["live"], found["problem"]) == (
        "candidate", "1.0", "1.0", False, None,
    )  # fmt: skip
    (adapter,) = found["adapters"]
    blob = next(settings.home.glob(f"blobs/**/{adapter['sha256']}*"))
    assert blob.read_bytes() == trained.adapter.read_bytes()
    (story,) = run("show", "frost")[1]
    assert [(e["actor"], e["action"], e["reason"]) for e in story["events"]] == [
        ("ada", action, "asked for by the archive") for action in ("record", "propose", "add done")
    ]
    assert story["card frost"] == ("MIT; trained on none; tiny: 31.25 dB on held-out samples, bare backbone 29.50")
    assert (settings.home / "deployment.json").read_bytes() == served
    shutil.rmtree(next(team.glob("*.dist-info")))
    assert (row(run, "frost")["state"], row(run, "frost")["problem"]) == ("candidate", "not installed")


@sqlite
def test_samples_of_a_plugin_that_is_not_live_serve_again_only_for_the_same_photos(
    run: Run, team: Path, clean_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_anew(*options: str) -> bool:
        code, (told,), err = run("add", "frost", "--gate", "gain=99", "--reason", "to see it refused", *options)
        assert (code, told["outcome"]) == (1, "rejected")
        return "frost: damage clean photos and look at them" in err

    assert made_anew()
    assert not made_anew()
    other = tmp_path / "other"
    shutil.copytree(clean_dir, other)
    (other / "00.png").unlink()
    monkeypatch.setenv("ABAIR_CLEAN_DIR", str(other))
    assert made_anew()
    assert not made_anew()
    assert made_anew("--seed", "5")


@pytest.mark.parametrize(
    "name", ["a rank of a thousand", "ships a pickle under the good name", "sys.exit(0) at import"]
)
def test_a_refused_plugin_leaves_the_registry_exactly_as_it_was(
    name: str, run: Run, site: Path, settings: Settings, bundle: Path, made_for_it: Tiny
) -> None:
    run("doctor")  # which begins the registry
    FAMILY[name].make(site, made_for_it)
    before = everything(settings, bundle)
    code, told, err = run("add", "frost")
    assert (code, told, len(err.splitlines())) == (1, [], 1)
    assert err.startswith("abair-registry: plugin frost (distribution abair-frost): ")
    assert everything(settings, bundle) == before


@pytest.mark.rare
@pytest.mark.exhaustive
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_an_upgraded_plugin_is_told_and_takes_the_place_of_the_old_one_when_it_is_added_again(
    run: Run, team: Path, settings: Settings
) -> None:
    assert run("add", "frost")[0] == 0
    reinstalled(team, "2.0")
    found = row(run, "frost")
    assert (found["version"], found["installed_version"]) == ("1.0", "2.0")
    assert "version 2.0 is installed, 1.0 is recorded; run: abair-registry add frost" in found["problem"]
    # its estimator has learnt little: another one's blends may be better by chance
    code, (told,), _ = run("add", "frost", "--gate", "loss=5", "--gate", "mixed_loss=30", "--reason", "a tiny network")
    assert (code, told["deployment"]) == (0, 3)
    assert "frost: loss against the champion" in [gate["name"] for gate in told["gates"]]
    assert read_deployment(settings.home).labels == ("noise", "rain", "low-light", "frost", "clean")
    assert (row(run, "frost")["version"], row(run, "frost")["problem"]) == ("2.0", None)
    assert [release["version"] for release in run("show", "frost")[1][0]["releases"]] == ["1.0", "2.0"]


def test_a_live_plugin_that_is_upgraded_or_uninstalled_is_served_as_before(
    run: Run, site: Path, settings: Settings, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("doctor")  # which begins the registry
    weights = {"noise": 1.0}
    before = Restorer.load(settings.home)(photo, weights=weights).image
    (site / "abair_noise_new.py").write_text("raise SystemExit('never to be imported')")
    write_metadata(site, "abair-noise", {"noise": "abair_noise_new"}, [])  # hides the one of 0.1.0
    told = "version 1.0 is installed, 0.1.0 is"
    assert told in row(run, "noise")["problem"]
    code, (report,), _ = run("doctor")
    assert (code, report["problems"]) == (0, [])
    assert any(told in note and "plugin noise" in note for note in report["notes"])

    monkeypatch.setattr(installed, "_list_plugins", lambda _: [])
    assert row(run, "noise")["problem"] == "not installed; what is served does not need it"
    assert row(run, "noise")["state"] == "live"
    _, (report,), _ = run("doctor")
    assert "plugin noise: not installed; what is served does not need it" in report["notes"]
    assert run("verify")[1][0]["problems"] == []
    assert np.array_equal(Restorer.load(settings.home)(photo, weights=weights).image, before)


FULL_DISK = """
import resource, sys
from abair_registry.cli.app import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX's")
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("command", "size"),
    [
        pytest.param("add frost", 5000, marks=pytest.mark.exhaustive),
        ("disable rain --yes", 0),
        ("disable rain --yes", 5000),
    ],
)
def test_where_no_file_can_grow_a_command_is_one_line_and_changes_nothing(
    command: str, size: int, run: Run, team: Path, settings: Settings, bundle: Path, environment: dict[str, str]
) -> None:
    run("list")
    before = everything(settings, bundle)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(size), *command.split()],
        env=environment | {"PYTHONPATH": os.pathsep.join(map(str, [team, *filter(None, sys.path)]))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
    assert "unexpected" not in done.stderr
    assert "; expected " in done.stderr
    assert everything(settings, bundle) == before
    assert run(*command.split())[0] == 0
