"""Markdown of what several parts of the reference need: tables, a type's name, a default."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") or "-" for cell in line) + " |" for line in lines)


def code(value: object) -> str:
    """Return a value as code."""
    return f"`{value}`"


def kind(model: type[BaseModel], name: str) -> str:
    """Return the type of a field, as it is written in the source."""
    owner = next(c for c in model.__mro__ if name in inspect.get_annotations(c))
    return str(inspect.get_annotations(owner)[name])


def bounds(field: FieldInfo) -> str:
    """Return the limits of a field, such as `>= 1, <= 64`."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
    found = []
    for rule in field.metadata:
        found += [
            f"{sign} {getattr(rule, name)}" for name, sign in signs.items() if getattr(rule, name, None) is not None
        ]
    return ", ".join(found)


def default(field: FieldInfo) -> str:
    """Return a field's default as code; for one that is computed, what computes it."""
    if field.is_required():
        return "required"
    if field.default is not PydanticUndefined:
        return "-" if field.default is None else code(repr(field.default))
    made: Any = field.default_factory
    if made in {dict, list, tuple}:
        return code(made())
    return f"computed by {code(f'{made.__module__}.{made.__qualname__}')}"


def sentence(thing: object) -> str:
    """Return the first sentence of a docstring on one line."""
    text = re.sub(r"\s+", " ", getattr(thing, "__doc__", None) or "").strip()
    return text.split(". ")[0].rstrip(".")


def paragraphs(thing: object) -> str:
    """Return a docstring as it is, its indentation removed."""
    return inspect.getdoc(thing) or ""


def fields(model: type[BaseModel]) -> str:
    """Return a table of a model's fields."""
    rows = []
    described = any(field.description for field in model.model_fields.values())
    for name, field in model.model_fields.items():
        row = [code(name), code(kind(model, name)), default(field)]
        rows.append([*row, field.description or ""] if described else row)
    return table(["field", "type", "default", *(["meaning"] if described else [])], rows)
