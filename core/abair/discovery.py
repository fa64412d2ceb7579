"""Discovery of installed plugins by entry point; a broken plugin costs one line, not the others.

pluggy's own `load_setuptools_entrypoints` ends at the first plugin that fails to import and skips
doubles in silence; here every plugin is loaded, checked and asked in a `try` of its own
(`SystemExit` included).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pluggy

from abair.contract import GROUP, Degradation, Hooks
from abair.distributions import installed_distributions, may_be_read, metadata_text, read_entry_points
from abair.errors import PluginError
from abair.text import describe_error, quote_foreign


@dataclass(frozen=True)
class Problem:
    """A plugin that could not be used, and why; `str()` is the line that a user sees.

    Without a name it is a distribution whose entry points cannot be read.
    """

    name: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        if not self.name:
            return f"distribution {self.distribution}: {self.reason}"
        return f"plugin {self.name} (distribution {self.distribution}): {self.reason}"


@dataclass(frozen=True)
class Found:
    """A degradation with the distribution that declared it."""

    degradation: Degradation
    distribution: str
    version: str


@dataclass(frozen=True)
class Plugins:
    """The usable degradations by name, the manager that holds their hooks, and the problems."""

    manager: pluggy.PluginManager
    found: dict[str, Found] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def degradations(self) -> list[Degradation]:
        """The usable degradations, in the order of their names."""
        return [self.found[name].degradation for name in sorted(self.found)]

    def get(self, name: str) -> Degradation:
        """Return the degradation called `name`.

        Raises:
            PluginError: no usable plugin declares it; the text says what is there and what was
                wrong.
        """
        if name in self.found:
            return self.found[name].degradation
        why = "".join(f"; {problem}" for problem in self.problems if problem.name == name)
        raise PluginError(
            f"degradation {name}: no usable plugin declares it{why}; found {', '.join(sorted(self.found)) or 'none'}; "
            "install its package or correct the name"
        )


def discover(points: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load every plugin of the group `abair` (or of `points`) and collect what they declare.

    A plugin that fails to import, exits, misspells a hook, returns nonsense, or doubles a name is
    reported in `problems` with its distribution; the others work. Of two that share a name neither
    is used: which of them came first says nothing about which is meant. Never raises for a plugin's
    fault.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    plugins = Plugins(manager)
    listed = installed_points(plugins.problems) if points is None else list(points)
    listed = sorted({(p.name, p.value, distribution_of(p)): p for p in listed}.values(), key=_order)
    loaded: list[_Loaded] = []
    for point in listed:
        try:
            others = [distribution_of(p)[0] for p in listed if p.name == point.name and p is not point]
            if others:
                raise PluginError(
                    f"the entry point's name is also taken by distribution {', '.join(others)}; uninstall one of them"
                )
            loaded.append(_Loaded(point.name, *distribution_of(point), _load(manager, point)))
        except PluginError as error:
            _report(plugins, point.name, distribution_of(point)[0], str(error))
    for plugin in loaded:
        try:
            _check_names(plugin, loaded)
        except PluginError as error:
            _report(plugins, plugin.name, plugin.distribution, str(error))
        else:
            plugins.found.update({d.name: Found(d, plugin.distribution, plugin.version) for d in plugin.declared})
    return plugins


@dataclass(frozen=True)
class _Loaded:
    """A plugin whose hooks fit and whose answer has the right form."""

    name: str
    distribution: str
    version: str
    declared: list[Degradation]


def installed_points(problems: list[Problem]) -> list[EntryPoint]:
    """Return the entry points of the group.

    A distribution whose list of them cannot be read is added to `problems` and left out. So is a
    plugin's distribution whose metadata have no name.
    """
    found: list[EntryPoint] = []
    for folder, distribution in installed_distributions():
        try:
            points = read_entry_points(distribution).select(group=GROUP)
        except Exception as error:
            why = quote_foreign(describe_error(error), 200)
            reason = f"its entry_points.txt cannot be read ({why}), so no plugin of it is used; install it again"
            name = metadata_text(distribution, "Name") or folder
            problems.append(Problem("", quote_foreign(name, 100), reason))
            continue
        if points and not metadata_text(distribution, "Name"):  # which takes longer than all the rest to read
            reason = "its METADATA has no name, so no plugin of it is used; install it again"
            if not may_be_read(distribution):
                reason = "its METADATA may not be read by this user, so no plugin of it is used; make it readable"
            problems.append(Problem("", folder, reason))
            continue
        found += points
    return found


def _report(plugins: Plugins, name: str, distribution: str, reason: str) -> None:
    """Note a problem, and take the plugin's hooks out if they are in."""
    if plugins.manager.has_plugin(name):
        plugins.manager.unregister(name=name)
    plugins.problems.append(Problem(name, distribution, reason))


def _check_names(plugin: _Loaded, loaded: list[_Loaded]) -> None:
    """Refuse a plugin that declares a degradation which another one declares, too."""
    for degradation in plugin.declared:
        others = [p for p in loaded if p is not plugin and degradation.name in {d.name for d in p.declared}]
        if others:
            names = ", ".join(f"{p.name} (distribution {p.distribution})" for p in others)
            raise PluginError(
                f"declares degradation {degradation.name}, which plugin {names} declares, too; uninstall one of them"
            )


def _load(manager: pluggy.PluginManager, point: EntryPoint) -> list[Degradation]:
    """Import one plugin, register it, check its hooks, and ask it for its degradations."""
    try:
        module = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"cannot be imported: {describe_error(error)}") from error
    hooks = f"the hooks are {', '.join(name for name in vars(Hooks) if name.startswith('abair_'))}"
    marked = f"{hooks}, each a function marked @abair.hookimpl"
    if manager.is_registered(module):
        raise PluginError(f"found {point.value}, which another entry point names, too; expected a module of its own")
    try:
        manager.register(module, name=point.name)
        manager.check_pending()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"its hooks do not fit: {describe_error(error)}; {hooks}, with the arguments of abair.contract.Hooks"
        ) from error
    misspelt = _misspelt_hooks(module)
    if misspelt:
        raise PluginError(f"found {', '.join(misspelt)} without a mark; {marked}")
    if not manager.get_hookcallers(module):
        raise PluginError(f"found no hook in {point.value} ({type(module).__name__}); {marked}")
    # Not through pluggy's call, which drops an answer of None in silence.
    answers = [i.function for i in manager.hook.abair_degradations.get_hookimpls() if i.plugin is module]
    if not answers:
        return []
    try:
        declared: Any = answers[0]()
    except (Exception, SystemExit) as error:
        raise PluginError(f"abair_degradations failed: {describe_error(error)}") from error
    if not isinstance(declared, list) or not all(isinstance(item, Degradation) for item in declared):
        raise PluginError(f"abair_degradations returned {_shorten(declared)}; expected a list of abair.Degradation")
    names = [degradation.name for degradation in declared]
    if len(set(names)) != len(names):
        raise PluginError(f"abair_degradations returned a name twice: {', '.join(names)}; expected each once")
    return declared


def _misspelt_hooks(plugin: object) -> list[str]:
    """Return the names of unmarked functions `abair_...`, which pluggy would overlook."""
    if not isinstance(plugin, ModuleType):
        return []
    return [
        name
        for name, value in vars(plugin).items()
        if name.startswith("abair_") and callable(value) and not hasattr(value, f"{GROUP}_impl")
    ]


def _order(point: EntryPoint) -> tuple[str, str, str]:
    return point.name, distribution_of(point)[0], point.value


def distribution_of(point: EntryPoint) -> tuple[str, str]:
    """Return name and version of an entry point's distribution; its metadata may lack either."""
    return metadata_text(point.dist, "Name") or "unknown", metadata_text(point.dist, "Version") or "0"


def _text(read: Callable[[], Any]) -> str:
    """Return what `read` gives as text; empty where missing or damaged metadata raise."""
    try:
        return str(read() or "")
    except Exception:
        return ""


def _shorten(value: object) -> str:
    text = " ".join(_text(lambda: repr(value)).split()) or type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
