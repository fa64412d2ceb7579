"""Commands that change what serves: add, disable, enable, remove, retrain, promote, rollback, resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from abair.cli.console import Reporter, reporting
from abair_registry.cli.common import ActorOption, Json, Name, Reason, Yes, acting_user, ask, registry_for, table

if TYPE_CHECKING:
    from abair_registry.operations.lock import Running
    from abair_registry.operations.pipeline import OperationOptions, OperationResult
    from abair_registry.operations.progress import Terminal
    from abair_registry.operations.promotion import PointerMove
    from abair_registry.settings import Settings

app = typer.Typer()

Route = Annotated[
    Literal["auto", "features", "full"],
    typer.Option(help="How to train: on kept features, on new samples of all labels, or the one and then the other."),
]
Review = Annotated[bool, typer.Option("--review", help="Publish nothing: leave a challenger for `promote`.")]
Force = Annotated[bool, typer.Option("--force", help="Publish what gates refuse; needs --reason.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for who is working.")]
Gate = Annotated[
    list[str] | None,
    typer.Option(
        "--gate",
        metavar="NAME=VALUE",
        help="Another threshold: gain, loss, mixed_loss, clean, clean_loss, oracle_gap, recall.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the samples and the training.")]


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
    """Probe an installed plugin, train the estimator to know it, and let it serve if nobody loses.

    Example: abair-registry add snow --reason "asked for by the archive"
    """
    _do("add", name, actor, reason, json, review=review, force=force, route=route, gate=gate, seed=seed, wait=wait)


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
    """Take a plugin out of what is served; it stays recorded.

    Example: abair-registry disable blur --reason "smears faces" --yes
    """
    _do("disable", name, actor, reason, json, sure=yes, review=review, force=force, gate=gate, wait=wait)


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
    """Serve a disabled plugin again.

    Example: abair-registry enable blur
    """
    _do("enable", name, actor, reason, json, review=review, force=force, route=route, gate=gate, wait=wait)


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
    """Take a plugin out of what is served and off the list; history keeps it.

    Example: abair-registry remove blur --yes
    """
    _do("remove", name, actor, reason, json, sure=yes, force=force, gate=gate, wait=wait)


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
    """Train the whole estimator of what serves again, on new samples; all live plugins must be installed.

    Example: abair-registry retrain --review --seed 1
    """
    _do("retrain", None, actor, reason, json, review=review, force=force, route="full", gate=gate, seed=seed, wait=wait)


@app.command()
def promote(
    number: Annotated[int | None, typer.Argument(help="Of a deployment.  [default: the challenger]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Though another was its champion; needs --reason.")] = False,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Let a challenger serve.

    Example: abair-registry promote 7 --reason "the board agreed"
    """
    _forced(force, reason)
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations import promotion

        moved = promotion.promote(
            registry, number, acting_user(actor, reason), force=force, wait=wait, terminal=terminal
        )
        _show_moved(reporter, moved, json)


@app.command()
def rollback(
    to: Annotated[int | None, typer.Option("--to", metavar="N", help="Which.  [default: the one before]")] = None,
    wait: Wait = False,
    actor: ActorOption = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Let an earlier deployment serve again; needs neither training nor MLflow.

    Example: abair-registry rollback --reason "faces look waxen"
    """
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations import promotion

        moved = promotion.rollback(registry, to, acting_user(actor, reason), wait=wait, terminal=terminal)
        _show_moved(reporter, moved, json)


@app.command()
def resume(actor: ActorOption = None, reason: Reason = "", json: Json = False) -> None:
    """Do again what was killed, stopped or failed last; what it had made already is used.

    Example: abair-registry resume
    """
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations import lifecycle
        from abair_registry.operations.promotion import PointerMove

        done = lifecycle.resume(registry, acting_user(actor, reason), terminal)
        if done is None:
            if json:
                reporter.result({"operation": None, "outcome": "nothing to resume"})
            else:
                print("nothing to resume", flush=True)
        elif isinstance(done, PointerMove):
            _show_moved(reporter, done, json)
        else:
            _show(reporter, done, json)


def _do(
    kind: str, name: str | None, actor: str | None, reason: str, json: bool, *, sure: bool | None = None, **given: Any
) -> None:
    _forced(bool(given.get("force")), reason)
    with _session(json) as (reporter, registry, terminal):
        from abair_registry.operations import lifecycle

        if sure is not None:
            with registry.database.read() as session:
                found = lifecycle.recorded(session, str(name)).name
            ask(f"{kind.capitalize()} plugin {found}? A new deployment without it goes live.", yes=sure)
        options = _options(registry.settings, given)
        does: Callable[..., OperationResult] = getattr(lifecycle, kind)
        subject = [] if name is None else [name]
        _show(reporter, does(registry, *subject, acting_user(actor, reason), options, terminal), json)


def _options(settings: Settings, given: dict[str, Any]) -> OperationOptions:
    from pydantic import ValidationError

    from abair_registry.operations.pipeline import OperationOptions
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


def _forced(force: bool, reason: str) -> None:
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
        said = {
            "live": f"deployment {result.deployment} is live",
            "challenger": f"deployment {result.deployment} waits for review: promote {result.deployment}",
            "rejected": f"refused; deployment {result.deployment} stays live",
        }[result.outcome]
        print(said, flush=True)
    if result.outcome == "rejected":
        from abair.errors import RegistryError

        refused = ", ".join(verdict.name for verdict in result.verdicts if not verdict.passed)
        reporter.fail(
            RegistryError(
                f"operation {result.operation}: refused by {refused}; expected all gates to pass; what to do stands in "
                "the run; to publish all the same: --force --reason WHY"
            )
        )


def _show_moved(reporter: Reporter, moved: PointerMove, json: bool) -> None:
    if json:
        reporter.result(asdict(moved))
    else:
        print(f"deployment {moved.deployment} is live, in the place of {moved.before}", flush=True)
