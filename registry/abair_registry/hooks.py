"""What plugins say of a challenger and hear of a deployment. Only live ones and the one in hand are imported."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from pydantic import TypeAdapter, ValidationError

from abair.deployment import Deployment
from abair.discovery import Plugins, discover, installed_points, said
from abair.report import Report, Verdict

_VERDICTS = TypeAdapter(list[Verdict])


def usable(names: Collection[str]) -> Plugins:
    """The installed plugins with these entry points' names; no other one is imported."""
    return discover([point for point in installed_points([]) if point.name in names])


def verdicts(plugins: Plugins, report: Report) -> list[Verdict]:
    """What each plugin's `abair_gates` says; one that raises, or returns something else, refuses with its name."""
    given = []
    for name, asked in _implementations(plugins, "abair_gates", {"report": report}):
        try:
            own = _VERDICTS.validate_python(asked())
        except (Exception, SystemExit) as error:
            reason = said(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
            own = [
                Verdict(
                    name="its gate", passed=False, measured=0.0, threshold=0.0,
                    advice=f"the gate of plugin {name} could not be asked ({reason}); mend or uninstall it",
                )
            ]  # fmt: skip
        given += [verdict.model_copy(update={"name": f"plugin {name}: {verdict.name}"}) for verdict in own]
    return given


def announce(plugins: Plugins, deployment: Deployment) -> list[str]:
    """Tell each plugin's `abair_deployed`; what went wrong, which changes nothing."""
    wrong = []
    for name, told in _implementations(plugins, "abair_deployed", {"deployment": deployment}):
        try:
            told()
        except (Exception, SystemExit) as error:
            wrong.append(f"plugin {name}: its notice of the deployment failed ({type(error).__name__}: {error})")
    return wrong


def _implementations(plugins: Plugins, hook: str, given: dict[str, object]) -> list[tuple[str, Callable[[], object]]]:
    """One by one, not by pluggy's call, which ends at the first that raises; each gets the arguments that it names."""
    caller = getattr(plugins.manager.hook, hook)
    return [
        (i.plugin_name, partial(i.function, **{name: given[name] for name in i.argnames}))
        for i in caller.get_hookimpls()
    ]
