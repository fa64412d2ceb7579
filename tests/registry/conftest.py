"""What tests of operations share: a team's plugin that is good, in an empty folder on the path, and clean photos."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from tests.conftest import make_once, pictures
from tests.support.plugin_package import Plugin, Tiny
from tests.support.remembered_replays import RememberingRunJob

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.data.degrade import Degrader
from abair.model.backbone import load_backbone
from abair.training.adapter import AdapterTask
from abair.training.loop import train
from abair.training.settings import ADAPTING
from abair_registry.cli import app
from abair_registry.maintenance import integrity
from abair_registry.operations import charts, pipeline
from abair_registry.plugins import calls, gates
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.settings import Settings
from abair_registry.tracking.mlflow_client import Runs

ABOVE_THE_DATABASE = ("operations", "cli")
"""Packages whose tests ask little of the database: on PostgreSQL they are exhaustive, but for the lock's."""
OURS = {f"abair-{name}" for name in ("noise", "rain", "haze", "blur", "low-light", "jpeg", "bitdepth", "snow")}
OFTEN_ON_BOTH = ("test_lifecycle",)
"""Those that CI asks on PostgreSQL; the others only `make test ALL=2`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        above = item.path.parent.name in ABOVE_THE_DATABASE and item.path.stem != "test_lock"
        if above and params.get("settings") == "postgresql":
            item.add_marker(pytest.mark.exhaustive)
            if item.path.stem not in OFTEN_ON_BOTH:
                item.add_marker(pytest.mark.rare)
        if item.path.stem == "test_old_home" and params.get("settings") == "postgresql":
            item.add_marker(pytest.mark.rare)


FROST = """
import torch

def degrade(clean, generator):
    \"\"\"A pale, blue veil, thicker or thinner.\"\"\"
    veil = torch.tensor([0.75, 0.85, 1.0])[:, None, None]
    much = 0.4 + 0.2 * torch.rand((), generator=generator)
    return clean * (1 - much) + veil * much + 0.001
"""

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


def frost(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """As the plugin's."""
    names: dict[str, Any] = {}
    exec(FROST, names)
    return names["degrade"](clean, generator)


@pytest.fixture(scope="session")
def trained(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The bundle's backbone, and an adapter for it that was trained to undo frost."""
    root = make_once(tmp_path_factory, "trained", lambda root: train_frost(bundle, root))
    folder = root / "adapters" / "tiny"
    return Tiny(bundle / "backbone.safetensors", json.loads((folder / CONFIG_FILE).read_text()), folder / WEIGHTS_FILE)


def train_frost(bundle: Path, root: Path) -> None:
    backbone = load_backbone(bundle / "backbone.safetensors")
    settings = ADAPTING.model_copy(update={"steps": 120, "crop": 48, "batch": 8, "workers": 0, "validate_every": 120})
    task = AdapterTask(
        backbone, "frost", Degrader({"frost": frost}), pictures(range(8)), pictures(range(8, 11)), settings
    )
    train(task, settings, root / "run", quiet=True)
    task.export(root / "adapters")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without anything in them; to make them takes seconds."""
    return make_once(tmp_path_factory, "tracking", make_tracking_tables) / "mlflow.db"


def make_tracking_tables(home: Path) -> None:
    assert Runs(Settings(home=home, registry_url=None)).versions() == []


@pytest.fixture(autouse=True)
def quick_tracking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn only for who asks for them, once, and the home of a registry has MLflow's tables."""
    if "settings" in request.fixturenames:
        home: Path = request.getfixturevalue("settings").home
        home.mkdir(parents=True)
        shutil.copyfile(request.getfixturevalue("empty_store"), home / "mlflow.db")
    drawn = "figures" in request.keywords and "postgresql" not in request.node.name
    if not drawn:
        for name in ("bars", "confusion", "histograms", "sheet"):
            monkeypatch.setattr(charts, name, lambda *_: Figure((1, 1)))


@pytest.fixture(autouse=True)
def remembered_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ABAIR's own plugins are not loaded to find that they have no gates."""
    real = gates.find_gates

    def find_gates(plugins: VerifiedPlugins) -> gates.PluginGates:
        others = tuple(ref for ref in plugins.refs if ref.distribution not in OURS)
        return real(replace(plugins, refs=others))

    for module in (gates, pipeline, integrity):
        monkeypatch.setattr(module, "find_gates", find_gates)


@pytest.fixture(autouse=True)
def remembered_replays(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay is made once, because that takes seconds; not where a test is about how it is made."""
    if "new_replays" not in request.keywords:
        root = tmp_path_factory.getbasetemp()
        folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "replays"
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(calls, "run_job", RememberingRunJob(folder))


@pytest.fixture(scope="session")
def clean_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clean pictures."""
    folder = tmp_path_factory.mktemp("clean")
    for place, picture in enumerate(pictures(range(20, 32)).photos):
        Image.fromarray(picture).save(folder / f"{place:02}.png")
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on the path, where plugins are put; what is imported from it is forgotten."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("abair_frost")]:
        del sys.modules[name]


@pytest.fixture
def team(site: Path, trained: Tiny) -> Path:
    """The plugin `frost`, installed: it does what it says."""
    Plugin(synthesis=FROST).make(site, trained)
    return site


@pytest.fixture
def environment(environment: dict[str, str], clean_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """With clean photos, and no tracking server."""
    monkeypatch.setenv("ABAIR_CLEAN_DIR", str(clean_dir))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return dict(os.environ)


def complaints(err: str) -> list[str]:
    """What a command said on stderr but for its progress."""
    return [line for line in err.splitlines() if line.startswith("abair-registry:")]


@pytest.fixture
def run(
    environment: dict[str, str], bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Calls the command with `--json` in this process, the tiny bundle as factory; (exit code, objects, stderr)."""
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))

    def call(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        code = app.run([*arguments, "--json"])
        said = capsys.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines()], said.err

    return call
