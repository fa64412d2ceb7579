"""A plugin is one folder: its names are derived, and it imports the contract and nothing behind it."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import abair

# Only `testing` is open besides the package itself.
OPEN_MODULES = {"abair", "abair.testing"}
PLUGIN_NAMES = ["bitdepth", "blur", "haze", "jpeg", "low-light", "noise", "rain", "snow"]


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """Every import of a file as (module, name); the name is empty for `import module`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((str(node.module), alias.name) for alias in node.names)


def breaches(file: Path, own: str) -> list[str]:
    """The imports of a plugin's file that its contract does not allow."""
    wrong = []
    for module, name in imports(file):
        top = module.partition(".")[0]
        dotted = f"{module}.{name}" if name else module
        if top == "abair":
            public = module == "abair" and name in {*abair.__all__, "", "testing"}
            if not public and module not in OPEN_MODULES - {"abair"}:
                wrong.append(f"{file.name}: {dotted} is not public")
        elif top.startswith("abair_") and top != own:
            wrong.append(f"{file.name}: {dotted} belongs to another plugin")
    return wrong


@pytest.fixture(params=PLUGIN_NAMES)
def plugin(request: pytest.FixtureRequest, projects: dict[str, Any]) -> Any:
    """Each plugin's project in turn."""
    return projects[f"abair-{request.param}"]


def test_there_are_eight_plugins(plugins: list[Any]) -> None:
    assert sorted(project.name for project in plugins) == [f"abair-{name}" for name in PLUGIN_NAMES]


def test_names_are_derived_from_the_degradation(plugin: Any) -> None:
    key = plugin.name.removeprefix("abair-")
    assert plugin.folder.name == plugin.name
    assert plugin.package.name == f"abair_{key.replace('-', '_')}"
    assert plugin.config["project"]["entry-points"] == {"abair": {key: plugin.package.name}}


def test_a_plugin_holds_what_a_plugin_needs(plugin: Any, root: Path) -> None:
    for file in ("README.md", "tests/test_contract.py"):
        assert (plugin.folder / file).is_file(), file
    for file in ("__init__.py", "synthesis.py", "py.typed"):
        assert (plugin.package / file).is_file(), file
    assert (plugin.folder / "LICENSE").read_bytes() == (root / "LICENSE").read_bytes()
    assert len((plugin.package / "__init__.py").read_text(encoding="utf-8").splitlines()) < 40


def test_a_plugin_fits_this_version_of_the_platform(plugin: Any) -> None:
    (needed,) = [r for r in map(Requirement, plugin.config["project"]["dependencies"]) if r.name == "abair"]
    assert needed.specifier.contains(abair.__version__)
    assert {clause.operator for clause in needed.specifier} == {">=", "<"}


def test_the_version_is_said_once(projects: dict[str, Any]) -> None:
    assert abair.__version__ == projects["abair"].config["project"]["version"]


def test_a_plugin_imports_only_the_contract(plugin: Any) -> None:
    files = [*plugin.package.rglob("*.py"), *(plugin.folder / "tests").rglob("*.py")]
    assert len(files) >= 3
    assert [line for file in files for line in breaches(file, plugin.package.name)] == []


@pytest.mark.slow
def test_a_plugin_declares_what_it_imports(plugin: Any) -> None:
    declared = {Requirement(text).name for text in plugin.config["project"]["dependencies"]}
    providers = packages_distributions()
    imported = {m.partition(".")[0] for file in plugin.package.rglob("*.py") for m, _ in imports(file)}
    foreign = imported - set(sys.stdlib_module_names) - {plugin.package.name}
    assert "torch" in foreign
    assert [name for name in sorted(foreign) if not declared & set(providers.get(name, [name]))] == []


@pytest.mark.parametrize(
    "line",
    ["import abair.physics", "from abair.physics import uniform", "from abair import backbone", "import abair_rain"],
)
def test_a_breach_is_noticed(line: str, tmp_path: Path) -> None:
    file = tmp_path / "synthesis.py"
    file.write_text(line, encoding="utf-8")
    assert len(breaches(file, "abair_snow")) == 1
