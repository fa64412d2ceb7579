"""Commands that change what is live: add, disable, enable, remove, retrain, promote, rollback, resume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from abair.cli.console import Reporter, reporting
from abair_registry.cli.common import ActorOption, Json, Name, Reason, Yes, acting_user, ask, registry_for, table

if TYPE_CHECKING:
    from abair_registry.operations.lease import Running
    from abair_registry.operations.progress import Terminal
    from abair_registry.operations.requests import OperationOptions, OperationResult, PointerMove
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
    """Add an installed plugin: check it, train the estimator on it, and make it live if all gates pass.

    The gates check that the plugin's adapter helps and that no live degradation gets worse. Use it
    for an upgraded plugin, too.

    Example: abair-registry add snow --reason "asked for by the archive"
    """
    _change("add", name, actor, reason, json, review=review, force=force, route=route, gate=gate, seed=seed, wait=wait)


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
    _change("disable", name, actor, reason, json, sure=yes, review=review, force=force, gate=gate, wait=wait)


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
    _change("enable", name, actor, reason, json, review=review, force=force, route=route, gate=gate, wait=wait)


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
    _change("remove", name, actor, reason, json, sure=yes, force=force, gate=gate, wait=wait)


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

        given = {"review": review, "force": force, "route": "full", "gate": gate, "seed": seed, "wait": wait}
        operation = Retrain(acting_user(actor, reason), _options(registry.settings, given))
        _show(reporter, operation.run(registry, terminal), json)


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
        _show_move(reporter, operation.run(registry, terminal), json)


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
        _show_move(reporter, operation.run(registry, terminal), json)


@app.command()
def resume(actor: ActorOption = None, reason: Reason = "", json: Json = False) -> None:
    """Run the operation again that was killed, stopped or failed last, with the same options.

    What it had made already is used.

    Example: abair-registry resume
    """
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations.requests import PointerMove
        from abair_registry.operations.resume import resume

        done = resume(registry, acting_user(actor, reason), terminal)
        if done is None:
            if json:
                reporter.result({"operation": None, "outcome": "nothing to resume"})
            else:
                print("nothing to resume", flush=True)
        elif isinstance(done, PointerMove):
            _show_move(reporter, done, json)
        else:
            _show(reporter, done, json)


def _change(
    kind: str, name: str, actor: str | None, reason: str, json: bool, *, sure: bool | None = None, **given: Any
) -> None:
    """Run an operation on a plugin; where `sure` is False, ask first."""
    _require_reason(bool(given.get("force")), reason)
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
        options = _options(registry.settings, given)
        operation = operations[kind](name, acting_user(actor, reason), options)
        _show(reporter, operation.run(registry, terminal), json)


def _options(settings: Settings, given: dict[str, Any]) -> OperationOptions:
    from pydantic import ValidationError

    from abair_registry.operations.requests import OperationOptions
    from abair_registry.settings import Thresholds

    asked = settings.gates.model_dump()
    for text in given.pop("gate", None) or []:
        name, equals, value = text.partition("=")
        if not equals or name not in asked:
            raise typer.BadParameter(f"found {text!r}, expected one of {', '.join(asked)} and its value: loss=0.2")
        asked[name] = value
    try:
        thresholds = Thresholds(**asked)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise typer.BadParameter(f"{where}: {first['msg']}, found {first['input']!r}", param_hint="--gate") from None
    return OperationOptions(thresholds=thresholds, **given)


def _require_reason(force: bool, reason: str) -> None:
    if force and not reason.strip():
        raise typer.BadParameter("needs a --reason, which the audit keeps", param_hint="--force")


@contextmanager
def _session(json: bool) -> Iterator[tuple[Reporter, Any, Terminal]]:
    with reporting(json_lines=json) as reporter, registry_for(reporter) as registry:
        from abair_registry.operations.progress import Steps, Terminal

        def waiting(other: Running) -> None:
            reporter.say(f"waiting: {other}")

        def warn(text: str) -> None:
            reporter.say(f"warning: {text}")

        yield reporter, registry, Terminal(Steps(), waiting, warn)


def _show(reporter: Reporter, result: OperationResult, json: bool) -> None:
    rows = [
        (
            "passed" if verdict.passed else "refused",
            verdict.name,
            f"{verdict.measured:.2f}",
            verdict.detail,
            f"{verdict.threshold:g}",
        )
        for verdict in result.verdicts
    ]
    if rows:
        table(("verdict", "gate", "measured", "interval", "threshold"), rows, result=False)
    if result.run_id is None:
        reporter.say("nothing was to be done")
    else:
        reporter.say(f"run {result.run_id}, {result.seconds:.0f} s; to look at it: abair-registry ui")
    if json:
        reporter.result(result.as_json())
    else:
        outcomes = {
            "live": f"deployment {result.deployment} is live",
            "challenger": f"deployment {result.deployment} waits for review: promote {result.deployment}",
            "rejected": f"refused; deployment {result.deployment} stays live",
        }
        print(outcomes[result.outcome], flush=True)
    if result.outcome == "rejected":
        from abair.errors import RegistryError

        refused = ", ".join(verdict.name for verdict in result.verdicts if not verdict.passed)
        reporter.fail(
            RegistryError(
                f"operation {result.operation}: refused by {refused}; expected all gates to pass; what to do stands in "
                "the run; to publish all the same: --force --reason WHY"
            )
        )


def _show_move(reporter: Reporter, move: PointerMove, json: bool) -> None:
    if json:
        reporter.result(asdict(move))
    else:
        print(f"deployment {move.deployment} is live, in the place of {move.before}", flush=True)
