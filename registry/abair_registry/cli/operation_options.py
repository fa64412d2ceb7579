"""Options that the commands share which run an operation, and how one is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict, Unpack

import typer

from abair.cli.console import Reporter, reporting
from abair_registry.cli.common import registry_for

if TYPE_CHECKING:
    from abair_registry.operations.lock import Running
    from abair_registry.operations.progress import Terminal
    from abair_registry.operations.requests import OperationOptions
    from abair_registry.registry import Registry
    from abair_registry.settings import Settings

Route = Annotated[
    Literal["features", "full"],
    typer.Option(
        help="How to train the estimator: 'features' uses what earlier labels left behind and is fast; 'full' "
        "makes new samples of all labels, which takes about five times as long and needs all plugins installed."
    ),
]
Review = Annotated[
    bool,
    typer.Option(
        "--review", help="Train and evaluate, but publish nothing; the challenger waits until you run `promote`."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Publish even if gates refuse. Needs --reason, which the audit keeps.")
]
Wait = Annotated[
    bool, typer.Option("--wait", help="If another operation is running, wait until it ends instead of failing.")
]
Gate = Annotated[
    list[str] | None,
    typer.Option(
        "--gate",
        metavar="NAME=VALUE",
        help="Change a gate's threshold for this run, in dB (recall: a share): gain, loss, mixed_loss, clean, "
        "clean_loss, oracle_gap or recall. Needs --reason; history, audit and run show what was lowered. May be given "
        "several times.",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the samples and of the training; the same seed gives the same deployment.")
]


class GivenOptions(TypedDict, total=False):
    """The options of a command that are those of its operation."""

    route: Literal["features", "full"]
    review: bool
    force: bool
    seed: int
    wait: bool


def make_options(settings: Settings, gate: Sequence[str] | None, **given: Unpack[GivenOptions]) -> OperationOptions:
    """Return an operation's options, with the settings' thresholds but for those given.

    Raises:
        BadParameter: `gate` names none, or a value that it cannot have.
    """
    from pydantic import ValidationError

    from abair.text import describe_fields
    from abair_registry.operations.requests import OperationOptions
    from abair_registry.settings import Thresholds

    asked = settings.gates.model_dump()
    for text in gate or []:
        name, equals, value = text.partition("=")
        if not equals or name not in asked:
            raise typer.BadParameter(
                f"found {text!r}, expected one of {', '.join(asked)} and its value: loss=0.2", param_hint="--gate"
            )
        asked[name] = value
    try:
        thresholds = Thresholds(**asked)
    except ValidationError as error:
        raise typer.BadParameter(describe_fields(error), param_hint="--gate") from None
    return OperationOptions(thresholds=thresholds, **given)


def require_reason(force: bool, reason: str, gate: Sequence[str] | None = None) -> None:
    """Refuse to override gates, or to change their thresholds, without a reason.

    Raises:
        BadParameter: `force` or `gate` is given without one.
    """
    for option, given in (("--force", force), ("--gate", gate)):
        if given and not reason.strip():
            raise typer.BadParameter("needs a --reason, which the audit keeps", param_hint=option)


@contextmanager
def session(json: bool, *, undo: bool = True) -> Iterator[tuple[Reporter, Registry, Terminal]]:
    """Open the registry for an operation and yield what tells the user of its steps, too.

    At the end, when the command has printed its answer, plugins get their notices.
    """
    with reporting(json_lines=json) as reporter, registry_for(reporter, undo=undo) as registry:
        from abair_registry.operations.progress import Steps, Terminal

        def waiting(other: Running) -> None:
            reporter.log(f"waiting: {other}")

        def warn(text: str) -> None:
            reporter.log(f"warning: {text}")

        def note(text: str) -> None:
            reporter.log(f"note: {text}")

        later: list[Callable[[], None]] = []
        yield reporter, registry, Terminal(Steps(), waiting, warn, note, later.append)
        for task in later:
            task()
