"""Operations in any order against a model of what is live: numbers, labels, plugins' states, the file that serves.

Nothing is trained but the outputs of an added plugin, and the gates are forced: this is about the bookkeeping.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.registry.conftest import FROST
from tests.support.plugin_package import Plugin, Tiny

from abair.deployment import read_deployment
from abair.errors import RegistryError
from abair_registry.db import queries
from abair_registry.db.audit import Actor
from abair_registry.maintenance import integrity
from abair_registry.operations.lifecycle import Add, Disable, Enable, Remove
from abair_registry.operations.promotion import Promote, Rollback
from abair_registry.operations.requests import Operation, OperationOptions
from abair_registry.registry import Registry, open_registry
from abair_registry.settings import ChallengerConfig, Settings

ME = Actor("me", "because")
SMALL = ChallengerConfig(
    training_scenes=4, held_out=2, held_out_later=1, held_out_of_mixture=1, held_out_mixtures=1, mixtures=2,
    mixtures_labels=1,
)  # fmt: skip
NAMES = ("noise", "rain", "low-light", "frost")
names = st.sampled_from(NAMES)
numbers = st.integers(1, 9)


def options(review: bool) -> OperationOptions:
    return OperationOptions(route="features", force=True, review=review)


@dataclass
class Model:
    """What should be: the labels of each deployment, which is live, and each plugin's state."""

    labels: dict[int, frozenset[str]]
    live: int
    states: dict[str, str]
    predecessor: dict[int, int | None]
    """Of each deployment that was ever live, which was live before it first was."""
    champion: dict[int, int] = field(default_factory=dict)
    """Of each deployment that was proposed, what was live then."""

    @property
    def challenger(self) -> int | None:
        """The newest deployment behind the live one that was made for it and was never live."""
        waiting = [n for n in self.labels if n > self.live and n not in self.predecessor]
        return max((n for n in waiting if self.champion[n] == self.live), default=None)

    def publish(self, number: int) -> None:
        """Make a deployment live; the states of the plugins follow."""
        self.predecessor.setdefault(number, self.live)
        self.live = number
        for name, state in self.states.items():
            if name in self.labels[number]:
                self.states[name] = "live"
            elif state == "live":
                self.states[name] = "disabled"

    def propose(self, labels: frozenset[str], *, review: bool) -> None:
        """Number a deployment, and make it live unless it is to be reviewed."""
        number = max(self.labels) + 1
        self.labels[number], self.champion[number] = labels, self.live
        if not review:
            self.publish(number)


class Operations(RuleBasedStateMachine):
    """Each rule runs an operation and tells the model, which says before whether it must fail."""

    template: ClassVar[Path]
    """A home whose deployment 2 added frost to the bundle's three."""
    bundle: ClassVar[Path]
    clean_dir: ClassVar[Path]
    done: ClassVar[dict[str, int]]
    """How often each kind of operation succeeded."""

    @initialize()
    def open(self) -> None:
        self.opened = ExitStack()
        home = Path(self.opened.enter_context(TemporaryDirectory())) / "home"
        shutil.copytree(self.template, home)
        settings = Settings(home=home, registry_url=None, clean_dir=self.clean_dir, challenger=SMALL)
        self.registry: Registry = self.opened.enter_context(open_registry(settings, self.bundle))
        self.added = 0
        first = frozenset(NAMES[:3])
        self.model = Model(
            labels={1: first, 2: frozenset(NAMES)}, live=2, states=dict.fromkeys(NAMES, "live"),
            predecessor={1: None, 2: 1}, champion={2: 1},
        )  # fmt: skip

    def attempt(self, operation: Operation, *, fails: bool) -> bool:
        """Run it; whether it succeeded, which it must unless it `fails`."""
        if fails:
            with pytest.raises(RegistryError):
                operation.run(self.registry)
            return False
        operation.run(self.registry)
        self.done[operation.kind] = self.done.get(operation.kind, 0) + 1
        return True

    @precondition(lambda self: self.added == 0)  # a probe takes seconds
    @rule(review=st.booleans())
    def add(self, review: bool) -> None:
        self.added += 1
        model = self.model
        self.attempt(Add("frost", ME, options(review)), fails=False)
        if "frost" not in model.labels[model.live]:
            model.states["frost"] = "candidate"
            model.propose(model.labels[model.live] | {"frost"}, review=review)

    @rule(name=names, review=st.booleans())
    def disable(self, name: str, review: bool) -> None:
        fails = self.model.states[name] in {"disabled", "removed"} or self.model.labels[self.model.live] == {name}
        if self.attempt(Disable(name, ME, options(review)), fails=fails):
            self.leave(name, "disabled", review=review)

    @rule(name=names)
    def remove(self, name: str) -> None:
        fails = self.model.states[name] == "removed" or self.model.labels[self.model.live] == {name}
        if self.attempt(Remove(name, ME, options(review=False)), fails=fails):
            self.leave(name, "removed", review=False)

    def leave(self, name: str, state: str, *, review: bool) -> None:
        live = self.model.labels[self.model.live]
        if name not in live:
            self.model.states[name] = state
            return
        self.model.propose(live - {name}, review=review)
        if not review:
            self.model.states[name] = state

    @rule(name=names, review=st.booleans())
    def enable(self, name: str, review: bool) -> None:
        if self.attempt(Enable(name, ME, options(review)), fails=self.model.states[name] != "disabled"):
            self.model.propose(self.model.labels[self.model.live] | {name}, review=review)

    @rule(number=st.none() | numbers)
    def promote(self, number: int | None) -> None:
        model = self.model
        target = model.challenger if number is None else number
        fits = target in model.labels and (target in model.predecessor or model.champion[target] == model.live)
        if self.attempt(Promote(number, ME), fails=not fits or target == model.live):
            assert target is not None
            model.publish(target)

    @rule(number=st.none() | numbers)
    def rollback(self, number: int | None) -> None:
        model = self.model
        target = model.predecessor[model.live] if number is None else number
        if self.attempt(Rollback(number, ME), fails=target not in model.predecessor or target == model.live):
            assert target is not None
            model.publish(target)

    @invariant()
    def the_registry_is_as_the_model(self) -> None:
        with self.registry.database.read() as session:
            live = queries.live(session)
            assert live is not None
            assert live.number == self.model.live
            assert live.labels == [*(member.label for member in live.members), "clean"]
            labels = {row.number: frozenset(row.labels) - {"clean"} for row, _ in queries.history(session)}
            assert labels == self.model.labels
            assert {plugin.name: plugin.state for plugin in queries.plugins(session)} == self.model.states
            waiting = queries.challenger(session)
            assert (waiting.number if waiting else None) == self.model.challenger
            served = read_deployment(self.registry.settings.home)
            assert (served.name, served.labels) == (str(live.number), tuple(live.labels))

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            assert integrity.verify(self.registry)[1] == []
            self.opened.close()


def test_operations_in_any_order_keep_to_the_model_of_what_is_live(
    site: Path, bundle: Path, spare_adapter: Path, clean_dir: Path, empty_store: Path, tmp_path: Path
) -> None:
    Plugin(synthesis=FROST).make(site, Tiny.read(bundle / "backbone.safetensors", spare_adapter))
    template = tmp_path / "template"
    template.mkdir()
    shutil.copyfile(empty_store, template / "mlflow.db")
    first = Settings(home=template, registry_url=None, clean_dir=clean_dir, challenger=SMALL)
    with open_registry(first, bundle) as registry:
        assert Add("frost", ME, options(review=False)).run(registry).deployment == 2

    class Prepared(Operations):
        """With the files of this test."""

    Prepared.template, Prepared.bundle, Prepared.clean_dir, Prepared.done = template, bundle, clean_dir, {}
    run_state_machine_as_test(
        Prepared,
        settings=hypothesis_settings(
            derandomize=True, deadline=None, max_examples=4, stateful_step_count=10, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    assert sum(Prepared.done.values()) >= 10, Prepared.done
