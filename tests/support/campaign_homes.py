"""Homes for the campaign of kills: a fresh one, one that was used, and one of the first build."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.registry.operations.test_add import reinstalled
from tests.registry.test_old_home import HOME as OLD_HOME
from tests.registry.test_old_home import move_to_server
from tests.support.campaign import FEWEST, REASON, Databases, Host, Parts, Served, make_photo
from tests.support.kill import forked
from tests.support.plugin_package import Tiny

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.deployment import read_deployment
from abair_registry.settings import Settings

TRAINED = ("--route", "features", *REASON)


@dataclass(frozen=True)
class State:
    """What a home records and serves before an operation."""

    history: tuple[dict[str, Any], ...] = ()
    served: Served | None = None

    def labels_of(self, number: int) -> frozenset[str]:
        """The labels of a recorded deployment."""
        return next(frozenset(row["labels"]) for row in self.history if row["deployment"] == number)


class Homes:
    """Makes the homes that operations are killed in, all at one place: MLflow's store records it."""

    def __init__(self, root: Path, parts: Parts, databases: Databases | None) -> None:
        self.root, self.parts, self.databases = root, parts, databases
        self.photo = make_photo()
        self._states = {"fresh": State()}

    def host(self, name: str, operation: str = "") -> Host:
        """The host of a home; for `upgrade` a newer package is installed on it."""
        # a fresh home begins with what the package brings
        newer = operation == "upgrade" and name != "fresh"
        variables = FEWEST | {
            "ABAIR_FACTORY": str(self.parts.next_factory if newer else self.parts.factory),
            "ABAIR_CLEAN_DIR": str(self.parts.clean),
            "OMP_NUM_THREADS": "1",
        }
        if self.databases is not None:
            variables["ABAIR_REGISTRY_URL"] = self.databases.url("home")
        site = self._old_site if name.startswith("old") else self._site
        return Host(self.root / "home", site, variables)

    def put(self, name: str, operation: str) -> tuple[Host, State]:
        """Put a home back as it was before any operation; return it with what it records."""
        host = self.host(name, operation)
        template = None if name == "fresh" else name
        if template is not None and template not in self._states:
            self._states[template] = self._make(template)
        shutil.rmtree(host.home, ignore_errors=True)
        if template is not None:
            if operation == "db upgrade":
                template = "older"
            shutil.copytree(self.root / template, host.home, symlinks=True)
        if self.databases is not None:
            self.databases.make("home", template)
        return host, self._states[name]

    def _make(self, name: str) -> State:
        """Make a template by commands, and keep it."""
        host = self.host(name)
        shutil.rmtree(host.home, ignore_errors=True)
        if self.databases is not None:
            self.databases.make("home")
        if name == "used":  # 1, 2 with frost, 3 without noise, which waits for review
            commands = [("add", "frost", *TRAINED), ("disable", "noise", "--review", "--yes", *REASON)]
        else:
            with tarfile.open(OLD_HOME) as archive:
                archive.extractall(host.home, filter="data")
            if self.databases is not None:
                url = host.variables["ABAIR_REGISTRY_URL"]
                settings = Settings(home=host.home, registry_url=url)
                assert forked(lambda: move_to_server(host.home / "registry.db", settings)) == 0
            self._keep("older", host.home)
            commands = [("db", "upgrade")]
        for command in commands:
            answer = host.run(*command)
            assert answer.code == 0, (command, answer)
        state = State(tuple(host.run("history").told), host.served(self.photo))
        self._keep(name, host.home)
        return state

    def _keep(self, name: str, home: Path) -> None:
        shutil.copytree(home, self.root / name, symlinks=True)
        if self.databases is not None:
            self.databases.make(name, "home")

    @cached_property
    def _site(self) -> Path:
        site = self.root / "site"
        self.parts.install_team(site, self.parts.trained)
        return site

    @cached_property
    def _old_site(self) -> Path:
        """Plugins whose adapters are for the backbone of the first build; of `frost` a newer version."""
        old, site = self.root / "old-files", self.root / "old-site"
        with tarfile.open(OLD_HOME) as archive:
            archive.extractall(old, filter="data")
        served = read_deployment(old)
        frost = next(ref for ref in served.adapters if ref.degradation == "frost")
        for ref, name in ((frost.config, CONFIG_FILE), (frost.weights, WEIGHTS_FILE)):
            (old / name).write_bytes(served.find(ref).read_bytes())
        self.parts.install_team(site, Tiny.read(served.find(served.backbone.file), old))
        reinstalled(site, "2.0")
        return site
