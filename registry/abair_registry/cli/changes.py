"""The commands that change what is live, from `add` to `rollback`, and `resume`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Unpack

import typer

from abair_registry.cli.common import ActorOption, Json, Name, Reason, Yes, acting_user, ask
from abair_registry.cli.operation_options import (
    Force,
    Gate,
    GivenOptions,
    Review,
    Route,
    Seed,
    Wait,
    make_options,
    require_reason,
    session,
)
from abair_registry.cli.results import show_move, show_result

if TYPE_CHECKING:
    from abair_registry.plugins.installed import Candidate
    from abair_registry.registry import Registry

app = typer.Typer()


@app.command()
def add(
    name: Name,
    review: Review = False,
    force: Force = False,
    route: Route = "features",
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

    Example: abair-registry add grain --reason "asked for by the archive"
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
    route: Route = "features",
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
    require_reason(force, reason, gate)
    with session(json) as (reporter, registry, terminal):
        from abair_registry.operations.lifecycle import Retrain

        options = make_options(registry.settings, gate, review=review, force=force, route="full", seed=seed, wait=wait)
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
    route: Route = "features",
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
    require_reason(force, reason, gate)
    if without and not reason.strip():
        raise typer.BadParameter("needs a --reason, which the audit keeps", param_hint="--without")
    with session(json) as (reporter, registry, terminal):
        from abair_registry.operations.upgrade import Upgrade

        options = make_options(registry.settings, gate, review=review, force=force, route=route, seed=seed, wait=wait)
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
    require_reason(force, reason)
    with session(json) as (reporter, registry, terminal):
        from abair_registry.operations.promotion import Promote

        operation = Promote(number, acting_user(actor, reason), force=force, wait=wait)
        show_move(reporter, operation.run(registry, terminal), json)


@app.command()
def rollback(
    number: Annotated[int | None, typer.Argument(hidden=True)] = None,
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
    if number is not None:
        raise typer.BadParameter(
            f"found {number}; to go back to that deployment: abair-registry rollback --to {number}"
        )
    with session(json) as (reporter, registry, terminal):
        from abair_registry.operations.promotion import Rollback

        operation = Rollback(to, acting_user(actor, reason), wait=wait)
        show_move(reporter, operation.run(registry, terminal), json)


@app.command()
def resume(actor: ActorOption = None, reason: Reason = "", json: Json = False) -> None:
    """Run the operation again that was killed, stopped or failed last, with the same options.

    What it had made already is used.

    Example: abair-registry resume
    """
    with session(json, undo=False) as (reporter, registry, terminal):
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
    **given: Unpack[GivenOptions],
) -> None:
    """Run an operation on a plugin; where `sure` is False, ask first."""
    require_reason(given.get("force", False), reason, gate)
    with session(json) as (reporter, registry, terminal):
        options = make_options(registry.settings, gate, **given)
        found = _find(kind, name, registry)  # before anything that takes seconds to import
        if sure is not None:
            ask(f"{kind.capitalize()} plugin {found}? A new deployment without it goes live.", yes=sure)
        from abair_registry.operations import lifecycle
        from abair_registry.operations.pipeline import ChallengerOperation

        who = acting_user(actor, reason)
        if not isinstance(found, str):
            operation: ChallengerOperation = lifecycle.Add(name, who, options, candidate=found)
        else:
            kinds = {each.kind: each for each in (lifecycle.Enable, lifecycle.Disable, lifecycle.Remove)}
            operation = kinds[kind](name, who, options)
        show_result(reporter, operation.run(registry, terminal), json)


def _find(kind: str, name: str, registry: Registry) -> Candidate | str:
    """Return the installed plugin to add, or the name of the recorded one.

    Raises:
        AbairError: there is none.
    """
    if kind == "add":
        from abair_registry.plugins import installed

        return installed.find(name)
    from abair_registry.db.lookup import recorded

    with registry.database.read() as database:
        return recorded(database, name).name
