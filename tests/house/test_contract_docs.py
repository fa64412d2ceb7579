"""`docs/reference/contract.md` is the contract's own docstrings and signatures.

After a change that is meant: `pytest tests/house/test_contract_docs.py --update-docs`, then read the difference.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import abair
from abair import contract, testing
from abair.contract import GROUP, Card, Degradation, Hooks, recorded_figures
from abair.report import Group, Report, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "contract.md"

HEAD = f"""# The contract with plugins

Made from the docstrings of `abair.contract`, `abair.report`, `abair.physics` and `abair.testing`; a test holds it
against them. A plugin imports names of `abair` and of `abair.testing`, nothing else of ABAIR.

A distribution `abair-film-grain` holds a module `abair_film_grain`, named under the entry-point group `{GROUP}`:

```toml
[project.entry-points.{GROUP}]
film-grain = "abair_film_grain"
```
"""


def hooks() -> dict[str, Callable[..., Any]]:
    return {name: function for name, function in vars(Hooks).items() if name.startswith("abair_")}


def paragraphs(thing: object) -> str:
    """A docstring, its `Raises:` part as a list."""
    text = inspect.getdoc(thing) or ""
    lines = []
    for line in text.splitlines():
        raised = line.startswith("    ")
        lines.append(f"- {line.strip()}" if raised else line)
    return "\n".join(lines)


def signature(name: str, function: Callable[..., Any]) -> str:
    text = str(inspect.signature(function)).replace("'", "").replace("(self, ", "(").replace("(self)", "()")
    return f"```python\n{name}{text}\n```"


def fields(model: type[BaseModel]) -> str:
    rows = ["| field | type | default |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = str(model.__annotations__.get(name, field.annotation)).replace("|", "\\|")
        required = field.is_required()
        value = (
            field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
        )
        rows.append(f"| `{name}` | `{kind}` | {'required' if required else f'`{value!r}`'} |")
    return "\n".join(rows)


def expected() -> str:
    parts = [HEAD.strip(), "## The hooks", paragraphs(Hooks)]
    for name, function in hooks().items():
        parts += [f"### `{name}`", signature(name, function), paragraphs(function)]
    parts.append("## What a plugin declares")
    for model in (Degradation, Card):
        parts += [f"### `abair.{model.__name__}`", paragraphs(model), fields(model)]
    name = recorded_figures.__name__
    parts += [f"### `abair.{name}`", signature(name, recorded_figures), paragraphs(recorded_figures)]
    parts.append("## What a gate is given, and returns")
    for model in (Report, Group, Verdict):
        parts += [f"### `{model.__module__}.{model.__name__}`", paragraphs(model), fields(model)]
    parts += ["## Helpers of a synthesiser", "Names of `abair`; all take and return tensors on the CPU."]
    for name in abair.__all__:
        thing = getattr(abair, name)
        if inspect.isfunction(thing) and thing.__module__ == "abair.physics":
            parts += [f"### `{name}`", signature(name, thing), paragraphs(thing)]
    suite = testing.DegradationContract
    parts += ["## The contract suite", f"```python\n{example()}\n```", paragraphs(suite)]
    tests = {name: function for name, function in vars(suite).items() if name.startswith("test_")}
    parts.append("\n".join(["| test | |", "|---|---|", *(f"| `{n}` | {one_line(f)} |" for n, f in tests.items())]))
    return "\n\n".join(parts) + "\n"


def example() -> str:
    """The part of `abair.testing`'s docstring that is code."""
    lines = (testing.__doc__ or "").splitlines()
    return inspect.cleandoc("\n".join(line for line in lines if line.startswith("    ") or not line)).strip()


def one_line(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def test_the_page_is_the_contract(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-docs"):
        PAGE.write_text(expected(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == expected()


def test_the_page_names_every_hook_and_every_public_name_of_the_contract() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(hooks()) == 3
    for name in [*hooks(), "Degradation", "Card", "Report", "Verdict", "ensure_changed", "uniform"]:
        assert f"`{name}`" in page or f".{name}`" in page, name
    for thing in (*hooks().values(), Hooks, Degradation, Card, Report, Group, Verdict, contract):
        assert inspect.getdoc(thing)
