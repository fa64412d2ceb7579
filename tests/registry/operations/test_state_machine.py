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

pytestmark = pytest.mark.slow

ME = Actor("me", "because")
SMALL = ChallengerConfig(
    training_scenes=4, held_out=2, held_out_clean=2, first_look=1, held_out_of_mixture=1, held_out_mixtures=1,
    mixtures=2, mixtures_labels=1,
)  # fmt: skip
NAMES = ("noise", "rain", "low-light", "frost")


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

    @property
    def promotable(self) -> list[int]:
        """What may be promoted by its number: what was live before, or was compared with what is live."""
        fits = [n for n in self.labels if n in self.predecessor or self.champion[n] == self.live]
        return [n for n in fits if n != self.live]

    def can_leave(self, state: str) -> list[str]:
        """The plugins that may get this state: not those that have it or are removed, nor the last one live."""
        left = [name for name in NAMES if self.states[name] not in {state, "removed"}]
        return [name for name in left if self.labels[self.live] != {name}]

    def publish(self, number: int | None) -> None:
        """Make a deployment live; the states of the plugins follow."""
        assert number is not None
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
    """Each rule runs an operation that the model allows, and tells the model."""

    template: ClassVar[Path]
    """A home whose deployment 2 added frost to the bundle's three."""
    bundle: ClassVar[Path]
    clean_dir: ClassVar[Path]
    done: ClassVar[list[str]]
    """The kinds of the operations that succeeded."""

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

    def run_operation(self, operation: Operation) -> None:
        """Run an operation that must succeed."""
        operation.run(self.registry)
        self.done.append(operation.kind)

    def leave(self, name: str, state: str, *, review: bool) -> None:
        """Tell the model that a plugin leaves what is live, if it was."""
        live = self.model.labels[self.model.live]
        if name in live:
            self.model.propose(live - {name}, review=review)
        if name not in live or not review:
            self.model.states[name] = state

    @precondition(lambda self: self.added == 0 and "frost" not in self.model.labels[self.model.live])
    @rule(review=st.booleans())
    def add(self, review: bool) -> None:
        self.added += 1  # once, because a probe takes seconds
        self.run_operation(Add("frost", ME, options(review)))
        self.model.states["frost"] = "candidate"
        self.model.propose(self.model.labels[self.model.live] | {"frost"}, review=review)

    @precondition(lambda self: self.model.can_leave("disabled"))
    @rule(data=st.data(), review=st.booleans())
    def disable(self, data: st.DataObject, review: bool) -> None:
        name = data.draw(st.sampled_from(self.model.can_leave("disabled")))
        self.run_operation(Disable(name, ME, options(review)))
        self.leave(name, "disabled", review=review)

    @precondition(lambda self: self.model.can_leave("removed"))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.model.can_leave("removed")))
        self.run_operation(Remove(name, ME, options(review=False)))
        self.leave(name, "removed", review=False)

    @precondition(lambda self: "disabled" in self.model.states.values())
    @rule(data=st.data(), review=st.booleans())
    def enable(self, data: st.DataObject, review: bool) -> None:
        name = data.draw(st.sampled_from([name for name in NAMES if self.model.states[name] == "disabled"]))
        self.run_operation(Enable(name, ME, options(review)))
        self.model.propose(self.model.labels[self.model.live] | {name}, review=review)

    @precondition(lambda self: self.model.challenger is not None)
    @rule()
    def promote_the_challenger(self) -> None:
        self.run_operation(Promote(None, ME))
        self.model.publish(self.model.challenger)

    @precondition(lambda self: self.model.promotable)
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.model.promotable))
        self.run_operation(Promote(number, ME))
        self.model.publish(number)

    @precondition(lambda self: self.model.predecessor[self.model.live] is not None)
    @rule()
    def rollback(self) -> None:
        self.run_operation(Rollback(None, ME))
        self.model.publish(self.model.predecessor[self.model.live])

    @rule(data=st.data())
    def what_does_not_fit_is_refused(self, data: st.DataObject) -> None:
        """Every operation that the model rules out; a refusal costs little, so all of them are tried."""
        model = self.model
        every, known = range(max(model.labels) + 2), range(1, max(model.labels) + 1)
        refused: list[Operation] = [
            *(Disable(name, ME) for name in NAMES if name not in model.can_leave("disabled")),
            *(Remove(name, ME) for name in NAMES if name not in model.can_leave("removed")),
            *(Enable(name, ME) for name in NAMES if model.states[name] != "disabled"),
            *(Promote(number, ME) for number in every if number not in model.promotable),
            *(Rollback(n, ME) for n in every if n == model.live or n not in known or n not in model.predecessor),
        ]
        if model.challenger is None:
            refused.append(Promote(None, ME))
        if model.predecessor[model.live] is None:
            refused.append(Rollback(None, ME))
        for operation in data.draw(st.permutations(refused))[:4]:
            with pytest.raises(RegistryError):
                operation.run(self.registry)

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


@pytest.mark.rare
@pytest.mark.exhaustive
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

    Prepared.template, Prepared.bundle, Prepared.clean_dir, Prepared.done = template, bundle, clean_dir, []
    run_state_machine_as_test(
        Prepared,
        settings=hypothesis_settings(
            derandomize=True, deadline=None, max_examples=3, stateful_step_count=9, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    assert len(Prepared.done) >= 8, Prepared.done
    assert len(set(Prepared.done)) >= 4, Prepared.done
