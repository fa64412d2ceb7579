"""Gates of live plugins: which plugins can be loaded and have one, and what it answers.

Each plugin is loaded in a process of its own. So whatever it does there is told in its name, and
costs the others nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError

from abair.errors import RegistryError
from abair.report import Report, Verdict
from abair.text import quote_foreign
from abair_registry.plugins import calls
from abair_registry.plugins.calls import VerifiedPlugins
from abair_registry.plugins.worker.jobs import GatesJob, HooksJob, PluginRef
from abair_registry.plugins.worker.protocol import Refusal

MOST_VERDICTS: Final = 20
"""Most verdicts of one plugin; each is a line on the terminal and on the run's page."""
_VERDICTS: Final = TypeAdapter(list[Verdict])


@dataclass(frozen=True)
class PluginGates:
    """The plugins that have a gate, and by name why others could not be loaded."""

    refs: tuple[PluginRef, ...]
    broken: dict[str, str]


@dataclass(frozen=True)
class GateAnswer:
    """A plugin's verdicts; if it `failed` to give any, one refusal in its name."""

    plugin: str
    verdicts: tuple[Verdict, ...]
    failed: bool = False


def find_gates(plugins: VerifiedPlugins) -> PluginGates:
    """Load each plugin that may run, to see whether it can be loaded and has a gate.

    Raises:
        RegistryError: no process can be started.
    """
    refs, broken = [], {}
    for ref in plugins.refs:
        try:
            has_gate = calls.run(HooksJob, calls.HOOK_LIMITS, plugins=(ref,)).get("gates")
        except Refusal as refusal:
            broken[ref.name] = quote_foreign(str(refusal), 300)
        else:
            refs += [ref] if has_gate else []
    return PluginGates(tuple(refs), broken)


def refuse_broken(gates: PluginGates) -> None:
    """Refuse to go on with plugins that cannot be loaded: nobody knows what their gates would say.

    Raises:
        RegistryError: there is one.
    """
    if gates.broken:
        said = "; ".join(f"plugin {name}: cannot be loaded ({why})" for name, why in gates.broken.items())
        raise RegistryError(
            f"{said}; expected every live plugin that is installed to load, because it may have a gate; nothing was "
            "changed; mend or uninstall it, or go on without its gate: --force --reason WHY"
        )


def ask_gates(gates: PluginGates, report: Report) -> list[GateAnswer]:
    """Return what each gate says of a report; a plugin that could not be loaded refuses.

    A gate that raises, hangs, dies, floods or returns something else refuses in the plugin's name.

    Raises:
        RegistryError: no process can be started.
    """
    answers = [_failed(name, why) for name, why in gates.broken.items()]
    return answers + [_ask(ref, report) for ref in gates.refs]


def _ask(ref: PluginRef, report: Report) -> GateAnswer:
    try:
        answer = calls.run(GatesJob, calls.HOOK_LIMITS, plugins=(ref,), report=report)
        verdicts = _VERDICTS.validate_python(answer.get("verdicts"))
    except Refusal as refusal:
        return _failed(ref.name, str(refusal))
    except ValidationError:
        return _failed(ref.name, "its answer holds no verdicts")
    if len(verdicts) > MOST_VERDICTS:
        return _failed(ref.name, f"it returned {len(verdicts)} verdicts; expected at most {MOST_VERDICTS}")
    return GateAnswer(ref.name, tuple(_cleaned(verdict, ref.name) for verdict in verdicts))


def _failed(plugin: str, why: str) -> GateAnswer:
    advice = f"the gate of plugin {plugin} could not be asked ({quote_foreign(why, 200)}); mend or uninstall it"
    verdict = Verdict(name="its gate", passed=False, measured=0.0, threshold=0.0, advice=advice)
    return GateAnswer(plugin, (_cleaned(verdict, plugin),), failed=True)


def _cleaned(verdict: Verdict, plugin: str) -> Verdict:
    """Return a plugin's verdict with its name, all texts on one line and of bounded length."""
    return verdict.model_copy(
        update={
            "name": f"plugin {plugin}: {quote_foreign(verdict.name, 100)}",
            "unit": quote_foreign(verdict.unit, 20),
            "advice": quote_foreign(verdict.advice, 300),
            "detail": quote_foreign(verdict.detail, 100),
        }
    )
