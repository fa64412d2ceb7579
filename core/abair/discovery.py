"""Finds installed plugins by entry point and loads them one by one, so that one broken plugin costs one line.

pluggy's own `load_setuptools_entrypoints` ends at the first plugin that fails to import and skips doubles in silence;
here every plugin is loaded, checked and asked in a `try` of its own (`SystemExit` included).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import pluggy
from pydantic import ValidationError

from abair.contract import GROUP, Degradation, Hooks
from abair.errors import PluginError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Synthesizer = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True)
class Problem:
    """A plugin that could not be used, and why; `str()` is the line that a user sees."""

    name: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.name} (distribution {self.distribution}): {self.reason}"


@dataclass(frozen=True)
class Found:
    """A degradation with the distribution that declared it."""

    degradation: Degradation
    distribution: str
    version: str


@dataclass(frozen=True)
class Plugins:
    """What discovery found: the usable degradations by name, the pluggy manager that holds their hooks, the problems."""

    manager: pluggy.PluginManager
    found: dict[str, Found] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def degradations(self) -> list[Degradation]:
        """The usable degradations, in the order of their names."""
        return [self.found[name].degradation for name in sorted(self.found)]

    def get(self, name: str) -> Degradation:
        """The degradation called `name`.

        Raises:
            PluginError: no usable plugin declares it; the text says what is there and what was wrong.
        """
        if name in self.found:
            return self.found[name].degradation
        why = "".join(f"; {problem}" for problem in self.problems if problem.name == name)
        raise PluginError(
            f"degradation {name}: no usable plugin declares it{why}; found {', '.join(sorted(self.found)) or 'none'}; "
            f"install it (pip install abair-{name}) or correct the name"
        )


def discover(points: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load every plugin of the group `abair` (or of `points`) and collect what they declare.

    A plugin that fails to import, exits, misspells a hook, returns nonsense, or doubles a name is reported in
    `problems` with its distribution; the others work. Never raises for a plugin's fault.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    plugins = Plugins(manager)
    listed = sorted(
        entry_points(group=GROUP) if points is None else points, key=lambda p: (p.name, _distribution(p)[0])
    )
    for point in listed:
        distribution, version = _distribution(point)
        doubles = sorted(
            {d for d in (_distribution(p)[0] for p in listed if p.name == point.name) if d != distribution}
        )
        try:
            if doubles:
                raise PluginError(
                    f"the entry point's name is also taken by {', '.join(doubles)}; uninstall one of them"
                )
            declared = _load(manager, point)
            for degradation in declared:
                if other := plugins.found.get(degradation.name):
                    raise PluginError(
                        f"declares degradation {degradation.name}, which {other.distribution} declares; uninstall one of them"
                    )
        except PluginError as error:
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)
            plugins.problems.append(Problem(point.name, distribution, str(error)))
        else:
            plugins.found.update({d.name: Found(d, distribution, version) for d in declared})
    return plugins


def load_synthesizer(degradation: Degradation) -> Synthesizer:
    """Import the function that synthesises a degradation.

    Raises:
        PluginError: the module cannot be imported, or holds no such function.
    """
    module, _, function = degradation.synthesizer.partition(":")
    try:
        synthesizer = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"degradation {degradation.name}: synthesizer {degradation.synthesizer} cannot be loaded ({_said(error)})"
        ) from error
    if not callable(synthesizer):
        raise PluginError(f"degradation {degradation.name}: synthesizer {degradation.synthesizer} is not a function")
    return cast("Synthesizer", synthesizer)


def _load(manager: pluggy.PluginManager, point: EntryPoint) -> list[Degradation]:
    """Import one plugin, register it, check its hooks, and ask it for its degradations."""
    try:
        module = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"cannot be imported: {_said(error)}") from error
    try:
        manager.register(module, name=point.name)
        manager.check_pending()
    except (ValueError, pluggy.PluginValidationError) as error:
        raise PluginError(f"its hooks do not fit: {_said(error)}") from error
    misspelt = _misspelt_hooks(module)
    if misspelt:
        hooks = ", ".join(name for name in vars(Hooks) if name.startswith("abair_"))
        raise PluginError(f"found {', '.join(misspelt)} without a mark or with an unknown name; the hooks are {hooks}, "
                          "each marked @abair.hookimpl")  # fmt: skip
    try:
        answers: list[Any] = manager.subset_hook_caller(
            "abair_degradations", [p for p in manager.get_plugins() if p is not module]
        )()
    except (Exception, SystemExit) as error:
        raise PluginError(f"abair_degradations failed: {_said(error)}") from error
    if not answers:
        return []
    declared = answers[0]
    if not isinstance(declared, list) or not all(isinstance(item, Degradation) for item in declared):
        raise PluginError(f"abair_degradations returned {_short(declared)}; expected a list of abair.Degradation")
    names = [degradation.name for degradation in declared]
    if len(set(names)) != len(names):
        raise PluginError(f"abair_degradations returned a name twice: {', '.join(names)}")
    return declared


def _misspelt_hooks(plugin: object) -> list[str]:
    """Names that look like hooks of ours but are none: unmarked functions `abair_...`, which pluggy would overlook."""
    if not isinstance(plugin, ModuleType):
        return []
    return [
        name
        for name, value in vars(plugin).items()
        if name.startswith("abair_") and callable(value) and not hasattr(value, f"{GROUP}_impl")
    ]


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")


def _said(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
