"""What lies in the repository: no large files, nothing of the machine it was written on, commands that exist."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from abair.errors import AbairError

LARGEST = 24 * 2**20  # the factory's replay: features of thousands of photos, which later labels are fitted beside

# Folders of some one machine, and anything that sends pip elsewhere than the reader's own settings do.
# Written with classes, so that this file does not find itself.
PRIVATE = re.compile(
    r"(?<![\w.~-])/(?:work|root|home|Users|mnt)/|/tmp/[w]/|index[-]url|find[-]links|pypi[.]org|python[h]osted|download[.]pytorch"
)


@pytest.fixture(scope="session")
def files(root: Path) -> list[Path]:
    """The files that are in git or would go in with the next commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    found = [root / name for name in listed.split("\0") if name]
    return [path for path in found if path.is_file()]


def test_no_file_is_too_large_for_git(files: list[Path], root: Path) -> None:
    assert len(files) >= 50
    assert [
        f"{path.relative_to(root)}: {path.stat().st_size} bytes" for path in files if path.stat().st_size > LARGEST
    ] == []


def test_no_file_names_a_machine_or_an_index(files: list[Path], root: Path) -> None:
    found = []
    for path in files:
        if path.suffix in {".safetensors", ".png", ".jpg", ".webp", ".tif", ".xz"}:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := PRIVATE.search(line):
                found.append(f"{path.relative_to(root)}:{number}: {match[0]}")
    assert found == []


def test_source_roots_are_not_packages(root: Path) -> None:
    roots = ("core", "registry", "migrations", "plugins")
    assert [name for name in roots if (root / name / "__init__.py").exists()] == []


def test_every_error_descends_from_the_one_base_and_is_defined_in_errors(root: Path) -> None:
    import abair.errors

    children = [e for e in vars(abair.errors).values() if isinstance(e, type) and e is not AbairError]
    assert len(children) >= 6
    assert all(issubclass(child, AbairError) for child in children)
    elsewhere = [
        f"{path.name}: {match[0]}"
        for path in (root / "core").rglob("*.py")
        if path.name != "errors.py"
        for match in re.finditer(r"^class \w+\((?:Base)?(?:Exception|Group)\)", path.read_text(encoding="utf-8"), re.M)
    ]
    assert elsewhere == []


def fenced_commands(text: str) -> Iterator[list[str]]:
    """The words of each command line in the fenced blocks of a Markdown text that calls `abair` or `make`."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        if language not in {"", "sh", "bash", "console", "shell"}:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if re.match(r"(?:\S*/)?(?:abair|abair-registry|make)\s", command):
                yield shlex.split(command, comments=True)


def unknown(words: list[str], command: Any) -> list[str]:
    """The words of an `abair` command line that the command line does not know: commands and options."""
    rest = words[1:]
    while rest and getattr(command, "commands", None):
        if rest[0] not in command.commands:
            return [rest[0]]
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    ends = next((i for i, word in enumerate(rest) if word in {"|", "&&", ";", ">"}), len(rest))
    options = [word.partition("=")[0] for word in rest[:ends] if word.startswith("-") and len(word) > 1]
    return [option for option in options if option not in known | {"--help"}]


PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "findings/README.md", "docs/**/*.md")
"""Every page but the experiments names today's commands; those name the ones they were run with."""


def pages(root: Path) -> list[Path]:
    found = [path for pattern in PAGES for path in root.glob(pattern) if "_build" not in path.parts]
    assert len(found) >= 60
    return found


def test_every_command_of_the_pages_exists(root: Path) -> None:
    from abair.cli import app
    from abair_registry.cli import app as registry_cli

    commands = {
        "abair": typer.main.get_command(app.app),
        "abair-registry": typer.main.get_command(registry_cli.app),
    }
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.M))
    assert targets >= {"install", "demo", "test", "lint", "docs", "bench"}
    lines = list(fenced_commands((root / "README.md").read_text(encoding="utf-8")))
    assert any(words[:2] == ["make", "demo"] for words in lines)
    assert any(words[:2] == ["make", "test"] for words in lines)
    assert any(words[:2] == ["abair", "restore"] for words in lines)
    for page in pages(root):
        if page.parent.name == "experiments":
            continue
        for words in fenced_commands(page.read_text(encoding="utf-8")):
            if words[0] == "make":
                assert {word for word in words[1:] if "=" not in word} <= targets, (page.name, words)
            else:
                assert unknown(words, commands[Path(words[0]).name]) == [], (page.name, words)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    app = typer.Typer()

    @app.command()
    def restore(out: str = typer.Option("x", "-o", "--out")) -> None: ...

    @app.command()
    def demo() -> None: ...

    command = typer.main.get_command(app)
    assert unknown(["abair", "restore", "a.jpg", "-o", "fixed"], command) == []
    assert unknown(["abair", "restore", "a.jpg", "--output", "fixed"], command) == ["--output"]
    assert unknown(["abair", "repair"], command) == ["repair"]


def test_every_link_in_the_pages_leads_somewhere(root: Path) -> None:
    links = [
        (page, link)
        for page in pages(root)
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert len(links) > 100
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_every_path_that_a_page_names_is_there(root: Path) -> None:
    """So that a module which moves takes the pages along that lead to it."""
    named = [
        (page, path)
        for page in pages(root)
        if page.name != "CHANGELOG.md"
        for path in re.findall(
            r"`((?:core|registry|migrations|tests|benchmarks|docs|findings)/[\w./-]*)`",
            page.read_text(encoding="utf-8"),
        )
    ]
    assert len(named) > 30
    assert [f"{page.name}: {path}" for page, path in named if not (root / path).exists()] == []


def test_the_readme_fits_on_two_screens(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_the_figures_on_the_pages_are_those_of_the_weights_that_ship(root: Path) -> None:
    from abair.deployment import read_deployment
    from abair.evaluation.benchmark import weights_hash
    from abair.locations import FACTORY

    factory, paper = (weights_hash(read_deployment(bundle)) for bundle in (FACTORY, "paper"))
    pages = {"README.md": factory, "docs/results/index.md": factory, "docs/results/additions.md": paper}
    for page, mark in pages.items():
        assert mark[:16] in (root / page).read_text(encoding="utf-8"), (
            f"{page}: other weights; rerun abair bench quality --results docs/results/index.md, abair-registry bench"
        )


OURS_TO_SET = {"MAX_IMAGE_PIXELS"}
"""Constants that their library documents as settings."""


@pytest.mark.slow
def test_no_test_assigns_a_constant_of_another_module(files: list[Path], root: Path) -> None:
    tests = [path for path in files if path.suffix == ".py" and "tests" in path.relative_to(root).parts]
    assert len(tests) >= 100
    found = [f"{path.relative_to(root)}:{line}: {name}" for path in tests for line, name in _assigned_constants(path)]
    assert found == []


def _assigned_constants(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each `module.NAME = ...` and each `setattr(module, "NAME", ...)`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets: list[ast.expr] = []
        names: list[str] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "setattr":
            strings = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
            names = [str(value).rpartition(".")[2] for value in strings]
        for target in targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            names += [part.attr for part in parts if isinstance(part, ast.Attribute)]
        for name in names:
            if re.fullmatch("_?[A-Z][A-Z0-9_]+", name) and name not in OURS_TO_SET:
                yield node.lineno, name
