"""`import abair` and `abair --help` answer at once: held by what they import, as a clock would measure the machine."""

import json
from collections.abc import Callable
from typing import Any

import pytest

LIGHT = {
    *("abair", "annotated_types", "platformdirs", "pluggy", "pydantic", "pydantic_core", "typing_extensions"),
    "typing_inspection",
}
COMMAND_LINE = LIGHT | {
    *("annotated_doc", "click", "colorama", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"),
}

# Names that the environment brings with its start-up files are none of ours, so they are counted before.
IMPORTED = """
import contextlib, io, json, sys
before = set(sys.modules)
{program}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)
print(json.dumps(sorted(name for name in names if name not in ("__mp_main__", "_sysconfigdata") and name[:1] != "_")))
"""

HELP = """
from abair.__main__ import main
sys.argv = ["abair", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main()
assert "restore" in out.getvalue(), out.getvalue()
"""


@pytest.mark.parametrize("module", ["abair", "abair.errors", "abair.contract", "abair.discovery", "abair.deployment"])
def test_a_light_module_imports_nothing_heavy(module: str, run_python: Callable[..., str]) -> None:
    names = set(json.loads(run_python(IMPORTED.format(program=f"import {module}"))))
    assert "abair" in names
    assert names <= LIGHT


def test_the_command_line_imports_nothing_heavy(run_python: Callable[..., str]) -> None:
    assert set(json.loads(run_python(IMPORTED.format(program="import abair.cli.app")))) <= COMMAND_LINE


def test_the_help_imports_nothing_heavy(run_python: Callable[..., str]) -> None:
    assert set(json.loads(run_python(IMPORTED.format(program=HELP)))) <= COMMAND_LINE


def test_declaring_a_degradation_imports_nothing_heavy(plugins: list[Any], run_python: Callable[..., str]) -> None:
    packages = sorted(project.package.name for project in plugins)
    assert len(packages) == 8
    names = set(json.loads(run_python(IMPORTED.format(program=f"import {', '.join(packages)}"))))
    assert names <= LIGHT | set(packages)
