"""What an operation is asked to do, what it proposes, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from abair.report import Verdict
from abair_registry.db.audit import Actor
from abair_registry.db.snapshot import DeploymentSnapshot
from abair_registry.operations.progress import Terminal
from abair_registry.registry import Registry
from abair_registry.settings import Thresholds

if TYPE_CHECKING:
    from abair_registry.operations.gates import GateResult  # with numpy, before a mistyped name would be told

Route = Literal["features", "full"]
Outcome = Literal["live", "challenger", "rejected"]


@dataclass(frozen=True)
class OperationOptions:
    """How an operation is to be run.

    `route` is how the estimator is trained: on kept features, or in full on new samples. `review`
    leaves a challenger and publishes nothing, `force` publishes what gates refuse, `wait` waits for
    an operation that is running.
    """

    route: Route = "features"
    review: bool = False
    force: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    seed: int = 0
    wait: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return JSON values, from which `from_json` makes the same options."""
        return asdict(self) | {"thresholds": self.thresholds.model_dump()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the options that `as_json` wrote; earlier builds also wrote the route `auto`."""
        route = "full" if values.get("route") == "full" else "features"
        return cls(**{**values, "route": route, "thresholds": Thresholds(**values.get("thresholds", {}))})


@dataclass(frozen=True)
class Proposal:
    """The deployment that an operation proposes, and the labels that its estimator has to learn.

    `deployment` has the number of the one that it would follow, and the estimator to start from.
    `base` is what the labels are added to: the champion unless it is given, which it must be for
    another backbone.
    """

    subject: str
    deployment: DeploymentSnapshot
    new_labels: tuple[str, ...] = ()
    base: DeploymentSnapshot | None = None


@dataclass(frozen=True)
class Unchanged:
    """Why an operation has nothing to do: what it asks for is so already."""

    why: str


@dataclass(frozen=True)
class OperationResult:
    """How an operation ended that makes a challenger.

    If nothing was to be done, `unchanged` says why. If that was plain at once, nothing was recorded
    and `operation` is None. `lowered` are the thresholds that let more pass than ABAIR's, by name:
    the value and ABAIR's.
    """

    operation: int | None
    outcome: Outcome
    deployment: int
    run_id: str | None
    route: str | None
    results: tuple[GateResult, ...]
    seconds: float
    unchanged: str | None = None
    lowered: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts of all gates."""
        return tuple(result.verdict for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values, with the fields of each verdict that a program needs."""
        gates = [verdict.model_dump(include={"name", "passed", "measured", "threshold"}) for verdict in self.verdicts]
        last = ("seconds", "unchanged", "lowered")
        fields = {key: value for key, value in vars(self).items() if key not in {"results", *last}}
        return fields | {"gates": gates} | {key: getattr(self, key) for key in last}


@dataclass(frozen=True)
class PointerMove:
    """How an operation ended that made a recorded deployment live; also its JSON's fields.

    `operation` and `unchanged` are as those of `OperationResult`.
    """

    operation: int | None
    outcome: str
    deployment: int
    before: int
    unchanged: str | None = None


class Operation(ABC):
    """Something that changes what is live, as an administrator asked for it."""

    kind: ClassVar[str]
    """The name of its command, which is also recorded."""
    subject: str
    actor: Actor

    @classmethod
    @abstractmethod
    def from_record(cls, subject: str, arguments: Mapping[str, Any], actor: Actor) -> Self:
        """Return the operation that was recorded with these arguments, to run it again."""

    @abstractmethod
    def run(self, registry: Registry, terminal: Terminal | None = None) -> OperationResult | PointerMove:
        """Run the operation.

        Raises:
            AbairError: It failed; what was live still is, unless the error says otherwise.
            RegistryError: Another operation is running, and this one was not asked to wait.
        """
