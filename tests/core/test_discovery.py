"""Discovery loads each plugin by itself; a broken one costs one line that names its distribution and the reason.

The plugins here are real modules with a `.dist-info` folder, so that they are found as installed ones are.
"""

import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from abair.data.synthesizers import import_synthesizer
from abair.discovery import Plugins, discover
from abair.errors import PluginError

GOOD = """
from pathlib import Path
from abair import Card, Degradation, hookimpl

def declare(name):
    card = Card(authors=("A",), licence="MIT", training_data="none")
    return Degradation(name=name, title=name, synthesizer="{module}:degrade", adapters=Path("."), card=card)

def degrade(clean, generator):
    return clean

@hookimpl
def abair_degradations():
    return [declare("{name}")]
"""
HEAD = "from abair import hookimpl\n"

BROKEN = {
    "does not import": ("import no_such_module_at_all", "cannot be imported: ModuleNotFoundError: No module named"),
    "syntax error": ("def", "cannot be imported: SyntaxError"),
    "exits at import": ("import sys; sys.exit('no licence')", "cannot be imported: SystemExit: no licence"),
    "misspelt, marked": (
        HEAD + "@hookimpl\ndef abair_degradation():\n    return []",
        "unknown hook 'abair_degradation'",
    ),
    "misspelt, unmarked": (
        "def abair_degradation():\n    return []",
        "found abair_degradation without a mark; the hooks are abair_degradations, abair_gates, abair_deployed",
    ),
    "right name, unmarked": ("def abair_degradations():\n    return []", "found abair_degradations without a mark"),
    "wrong arguments": (
        HEAD + "@hookimpl\ndef abair_degradations(config):\n    return []",
        "its hooks do not fit: PluginValidationError",
    ),
    "no hook": ("x = 1", "found no hook in"),
    "returns None": (
        HEAD + "@hookimpl\ndef abair_degradations():\n    return None",
        "returned None; expected a list of",
    ),
    "returns a dict": (
        HEAD + "@hookimpl\ndef abair_degradations():\n    return {'name': 1}",
        "returned {'name': 1}; expected",
    ),
    "returns strings": (
        HEAD + "@hookimpl\ndef abair_degradations():\n    return ['haze']",
        "returned ['haze']; expected",
    ),
    "returns what cannot be printed": (
        HEAD + "class Odd:\n    __repr__ = None\n@hookimpl\ndef abair_degradations():\n    return Odd()",
        "returned Odd; expected",
    ),
    "raises": (
        HEAD + "@hookimpl\ndef abair_degradations():\n    return 1 / 0",
        "abair_degradations failed: ZeroDivisionError",
    ),
    "exits when asked": (
        HEAD + "import sys\n@hookimpl\ndef abair_degradations():\n    sys.exit(3)",
        "abair_degradations failed: SystemExit: 3",
    ),
    "named clean": (GOOD.replace("{name}", "clean"), "name: Value error, found 'clean'"),
    "a name twice": (
        GOOD.replace('[declare("{name}")]', '[declare("frost"), declare("frost")]'),
        "returned a name twice: frost, frost",
    ),
}

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A function that installs a plugin `name` with the given source; returns the name of its module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def add(name: str, source: str = GOOD, distribution: str | None = None, points: str | None = None) -> str:
        distribution = distribution or f"abair-{name}"
        module = f"fake_{distribution}_{name}".replace("-", "_").replace(".", "_")
        made.append(module)
        text = source.replace("{name}", name).replace("{module}", module)
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n", encoding="utf-8")
        with (info / "entry_points.txt").open("a", encoding="utf-8") as file:
            file.write(points if points is not None else f"[abair]\n{name} = {module}\n")
        return module

    yield add
    for module in made:
        sys.modules.pop(module, None)


def problems(plugins: Plugins, *names: str) -> list[str]:
    """What is reported of the plugins with these names."""
    return [str(problem) for problem in plugins.problems if problem.name in names]


def test_a_plugin_is_found_with_its_distribution_and_its_synthesiser(install: Install) -> None:
    module = install("snow")
    plugins = discover()
    assert problems(plugins, "snow") == []
    found = plugins.found["snow"]
    assert (found.distribution, found.version) == ("abair-snow", "1.5")
    assert plugins.get("snow") in plugins.degradations
    assert import_synthesizer(found.degradation) is sys.modules[module].degrade
    assert plugins.manager.has_plugin("snow")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_reported_and_the_others_work(fault: str, install: Install) -> None:
    source, reason = BROKEN[fault]
    for name in ("aa-good", "zz-good"):  # one before it and one after it
        install(name)
    install("mm-broken", source)
    plugins = discover()
    (line,) = problems(plugins, "mm-broken")
    assert line.startswith("plugin mm-broken (distribution abair-mm-broken): ")
    assert reason in line
    assert "\n" not in line
    assert {"aa-good", "zz-good"} <= plugins.found.keys()
    assert "mm-broken" not in plugins.found
    assert not plugins.manager.has_plugin("mm-broken")
    assert plugins.manager.has_plugin("zz-good")
    assert problems(plugins, "aa-good", "zz-good") == []


def test_two_distributions_with_one_entry_point_are_both_refused_naming_each_other(install: Install) -> None:
    install("frost", distribution="abair-frost")
    install("frost", distribution="frost-by-others")
    install("zz-good")
    plugins = discover()
    lines = problems(plugins, "frost")
    assert len(lines) == 2
    assert "(distribution abair-frost)" in lines[0]
    assert "taken by distribution frost-by-others; uninstall" in lines[0]
    assert "(distribution frost-by-others)" in lines[1]
    assert "taken by distribution abair-frost; uninstall" in lines[1]
    assert "frost" not in plugins.found
    assert "zz-good" in plugins.found


def test_two_plugins_with_one_degradation_are_both_refused_naming_each_other(install: Install) -> None:
    install("frost")
    install("aa-ice", GOOD.replace("{name}", "frost"))
    install("zz-good")
    plugins = discover()
    first, second = problems(plugins, "frost", "aa-ice")
    assert "declares degradation frost, which plugin frost (distribution abair-frost) declares, too" in first
    assert "declares degradation frost, which plugin aa-ice (distribution abair-aa-ice) declares, too" in second
    assert "frost" not in plugins.found
    assert not plugins.manager.has_plugin("frost")
    assert not plugins.manager.has_plugin("aa-ice")
    assert "zz-good" in plugins.found


def test_one_distribution_may_hold_several_plugins_and_a_plugin_several_degradations(install: Install) -> None:
    install("hail", distribution="abair-weather")
    install("sleet", GOOD.replace('[declare("{name}")]', '[declare("sleet"), declare("snow-wet")]'), "abair-weather")
    plugins = discover()
    assert problems(plugins, "hail", "sleet") == []
    assert {plugins.found[name].distribution for name in ("hail", "sleet", "snow-wet")} == {"abair-weather"}


def test_a_second_entry_point_for_one_module_is_refused(install: Install) -> None:
    module = install("frost")
    install("rime", distribution="abair-rime", points=f"[abair]\nrime = {module}\n")
    plugins = discover()
    assert "frost" in plugins.found
    (line,) = problems(plugins, "rime")
    assert f"found {module}, which another entry point names, too" in line


def test_an_unreadable_list_of_entry_points_costs_only_its_distribution(install: Install) -> None:
    install("zz-good")
    install("mm-broken", points="[abair]\nthis is no entry point\n")
    plugins = discover()
    assert "zz-good" in plugins.found
    lines = [str(problem) for problem in plugins.problems if "mm-broken" in problem.distribution]
    assert len(lines) == 1


def test_metadata_without_a_name_costs_only_their_distribution(install: Install, tmp_path: Path) -> None:
    install("zz-good")
    install("frost")
    (tmp_path / "abair_frost-1.5.dist-info" / "METADATA").write_text("", encoding="utf-8")
    plugins = discover()
    assert "zz-good" in plugins.found
    assert "frost" not in plugins.found
    assert problems(plugins, "") == [
        "distribution abair-frost: its METADATA has no name, so no plugin of it is used; install it again"
    ]


def test_metadata_that_this_user_may_not_read_are_told_as_such(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("frost")
    hidden = tmp_path / "abair_frost-1.5.dist-info" / "METADATA"
    read = Path.read_text

    def refuse(self: Path, *arguments: str | None, **options: str | None) -> str:
        if self == hidden:
            raise PermissionError(13, "Permission denied")
        return read(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(os, "access", lambda path, _: path != hidden)
    (said,) = problems(discover(), "")
    assert said.startswith("distribution abair-frost: its METADATA may not be read by this user, so no plugin of it is")
    assert said.endswith("make it readable")


def test_a_plugin_that_only_listens_declares_nothing_and_is_no_problem(install: Install) -> None:
    install("watcher", HEAD + "@hookimpl\ndef abair_deployed(deployment):\n    pass")
    plugins = discover()
    assert problems(plugins, "watcher") == []
    assert plugins.manager.has_plugin("watcher")


def test_an_interrupt_is_the_users_and_goes_through(install: Install) -> None:
    install("mm-broken", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover()


def test_an_unknown_degradation_is_refused_with_what_was_wrong_and_what_is_there(install: Install) -> None:
    install("snow")
    install("sleet", "import no_such_module_at_all")
    with pytest.raises(
        PluginError, match=r"(?s)degradation sleet: .*abair-sleet.*cannot be imported.*found .*snow.*install"
    ):
        discover().get("sleet")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("no_such_function", "has no attribute 'no_such_function'"),
        ("card", "is not a function"),
    ],
)
def test_a_synthesiser_that_cannot_be_loaded_is_refused(function: str, reason: str, install: Install) -> None:
    module = install("snow", GOOD.replace("{module}:degrade", "{module}:" + function) + "\ncard = 1\n")
    degradation = discover([EntryPoint("snow", module, "abair")]).get("snow")
    with pytest.raises(PluginError, match=f"degradation snow: synthesizer {module}:{function} .*{reason}"):
        import_synthesizer(degradation)
