"""The commands that change what is live, from `add` to `rollback`, and `resume`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict, Unpack

import typer

from abair.cli.console import Reporter, reporting
from abair_registry.cli.common import ActorOption, Json, Name, Reason, Yes, acting_user, ask, registry_for
from abair_registry.cli.results import show_move, show_result

if TYPE_CHECKING:
    from abair_registry.operations.lock import Running
    from abair_registry.operations.progress import Terminal
    from abair_registry.operations.requests import OperationOptions
    from abair_registry.registry import Registry
    from abair_registry.settings import Settings

app = typer.Typer()

Route = Annotated[
    Literal["auto", "features", "full"],
    typer.Option(
        help="How to train the estimator: 'features' uses what earlier labels left behind and is fast; 'full' "
        "makes new samples of all labels, which is slow and needs all plugins installed; 'auto' tries 'features' "
        "first and 'full' if the gates refuse."
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
        "clean_loss, oracle_gap or recall. May be given several times.",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the samples and of the training; the same seed gives the same deployment.")
]


class _Given(TypedDict, total=False):
    """The options of a command that are those of its operation."""

    route: Literal["auto", "features", "full"]
    review: bool
    force: bool
    seed: int
    wait: bool


@app.command()
def add(
    name: Name,
    review: Review = False,
    force: Force = False,
    route: Route = "auto",
    gate: Gate = None,
    seed: Seed = 0,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Add an installed plugin: check it, train the estimator, and make it live if all gates pass.

    The gates check that the plugin's adapter helps and that no live degradation gets worse. Use it
    for an upgraded plugin, too.

    Example: abair-registry add snow --reason "asked for by the archive"
    """
    _change("add", name, actor, reason, json, gate, review=review, force=force, route=route, seed=seed, wait=wait)


@app.command()
def disable(
    name: Name,
    review: Review = False,
    force: Force = False,
    gate: Gate = None,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Stop using a plugin; it stays recorded, and `enable` makes it live again.

    A new deployment without it goes live.

    Example: abair-registry disable blur --reason "smears faces" --yes
    """
    _change("disable", name, actor, reason, json, gate, sure=yes, review=review, force=force, wait=wait)


@app.command()
def enable(
    name: Name,
    review: Review = False,
    force: Force = False,
    route: Route = "auto",
    gate: Gate = None,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make a disabled plugin live again, with the adapters with which it was live last.

    Example: abair-registry enable blur
    """
    _change("enable", name, actor, reason, json, gate, review=review, force=force, route=route, wait=wait)


@app.command()
def remove(
    name: Name,
    force: Force = False,
    gate: Gate = None,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Stop using a plugin and take it off the list; the history keeps it.

    Its name is free for another plugin afterwards. To pause a plugin, use `disable`.

    Example: abair-registry remove blur --yes
    """
    _change("remove", name, actor, reason, json, gate, sure=yes, force=force, wait=wait)


@app.command()
def retrain(
    review: Review = False,
    force: Force = False,
    gate: Gate = None,
    seed: Seed = 0,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Train the whole estimator again, on new samples of all live plugins, which must be installed.

    Backbone and adapters stay as they are.

    Example: abair-registry retrain --review --seed 1
    """
    _require_reason(force, reason)
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations.lifecycle import Retrain

        options = _options(registry.settings, gate, review=review, force=force, route="full", seed=seed, wait=wait)
        operation = Retrain(acting_user(actor, reason), options)
        show_result(reporter, operation.run(registry, terminal), json)


@app.command()
def upgrade(
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="NAME",
            help="Leave this live plugin behind, which has no adapter for the new backbone. Needs --reason. May be "
            "given several times.",
        ),
    ] = None,
    review: Review = False,
    force: Force = False,
    route: Route = "auto",
    gate: Gate = None,
    seed: Seed = 0,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Move what is live to the backbone that the installed ABAIR brings, all labels together.

    Labels of ABAIR's own plugins get the adapters that come along; other plugins must have adapters
    for the new backbone. The gates compare the result with what is live, and `rollback` goes back.

    Example: abair-registry upgrade --review
    """
    _require_reason(force, reason)
    if without and not reason.strip():
        raise typer.BadParameter("needs a --reason, which the audit keeps", param_hint="--without")
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations.upgrade import Upgrade

        options = _options(registry.settings, gate, review=review, force=force, route=route, seed=seed, wait=wait)
        operation = Upgrade(acting_user(actor, reason), options, without or ())
        show_result(reporter, operation.run(registry, terminal), json)


@app.command()
def promote(
    number: Annotated[
        int | None, typer.Argument(help="Number of the deployment to make live.  [default: the newest challenger]")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Promote even if it was compared with another deployment than the live one. Needs --reason."
        ),
    ] = False,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make a challenger live that was left for review, or any deployment by its number.

    Example: abair-registry promote 7 --reason "the board agreed"
    """
    _require_reason(force, reason)
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations.promotion import Promote

        operation = Promote(number, acting_user(actor, reason), force=force, wait=wait)
        show_move(reporter, operation.run(registry, terminal), json)


@app.command()
def rollback(
    to: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="N", help="Number of the deployment to go back to.  [default: the one before the live one]"
        ),
    ] = None,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make an earlier deployment live again, at once: nothing is trained, and MLflow may be down.

    Example: abair-registry rollback --reason "faces look waxen"
    """
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations.promotion import Rollback

        operation = Rollback(to, acting_user(actor, reason), wait=wait)
        show_move(reporter, operation.run(registry, terminal), json)


@app.command()
def resume(actor: ActorOption = None, reason: Reason = "", json: Json = False) -> None:
    """Run the operation again that was killed, stopped or failed last, with the same options.

    What it had made already is used.

    Example: abair-registry resume
    """
    with _session(json, undo=False) as (reporter, registry, terminal):
        from abair_registry.operations.requests import PointerMove
        from abair_registry.operations.resume import resume

        done = resume(registry, acting_user(actor, reason), terminal)
        if done is None:
            if json:
                reporter.result({"operation": None, "outcome": "nothing to resume"})
            else:
                print("nothing to resume", flush=True)
        elif isinstance(done, PointerMove):
            show_move(reporter, done, json)
        else:
            show_result(reporter, done, json)


def _change(
    kind: str,
    name: str,
    actor: str | None,
    reason: str,
    json: bool,
    gate: Sequence[str] | None,
    *,
    sure: bool | None = None,
    **given: Unpack[_Given],
) -> None:
    """Run an operation on a plugin; where `sure` is False, ask first."""
    _require_reason(given.get("force", False), reason)
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations import lifecycle

        if sure is not None:
            with registry.database.read() as session:
                found = lifecycle.recorded(session, name).name
            ask(f"{kind.capitalize()} plugin {found}? A new deployment without it goes live.", yes=sure)
        operations = {
            operation.kind: operation
            for operation in (lifecycle.Add, lifecycle.Enable, lifecycle.Disable, lifecycle.Remove)
        }
        options = _options(registry.settings, gate, **given)
        operation = operations[kind](name, acting_user(actor, reason), options)
        show_result(reporter, operation.run(registry, terminal), json)


def _options(settings: Settings, gate: Sequence[str] | None, **given: Unpack[_Given]) -> OperationOptions:
    from pydantic import ValidationError

    from abair.text import describe_fields
    from abair_registry.operations.requests import OperationOptions
    from abair_registry.settings import Thresholds

    asked = settings.gates.model_dump()
    for text in gate or []:
        name, equals, value = text.partition("=")
        if not equals or name not in asked:
            raise typer.BadParameter(f"found {text!r}, expected one of {', '.join(asked)} and its value: loss=0.2")
        asked[name] = value
    try:
        thresholds = Thresholds(**asked)
    except ValidationError as error:
        raise typer.BadParameter(describe_fields(error), param_hint="--gate") from None
    return OperationOptions(thresholds=thresholds, **given)


def _require_reason(force: bool, reason: str) -> None:
    if force and not reason.strip():
        raise typer.BadParameter("needs a --reason, which the audit keeps", param_hint="--force")


@contextmanager
def _session(json: bool, *, undo: bool = True) -> Iterator[tuple[Reporter, Registry, Terminal]]:
    with reporting(json_lines=json) as reporter, registry_for(reporter, undo=undo) as registry:
        from abair_registry.operations.progress import Steps, Terminal

        def waiting(other: Running) -> None:
            reporter.log(f"waiting: {other}")

        def warn(text: str) -> None:
            reporter.log(f"warning: {text}")

        def note(text: str) -> None:
            reporter.log(f"note: {text}")

        yield reporter, registry, Terminal(Steps(), waiting, warn, note)
