"""The registry's tables as Markdown: columns, types, keys."""

from __future__ import annotations

from sqlalchemy import Column, Table

from abair_docs.tables import code, table
from abair_registry.db.models import Base


def tables() -> str:
    """Return a section for each table of the schema."""
    found = Base.metadata.tables
    return "\n\n".join(f"### Table `{name}`\n\n{_columns(found[name])}" for name in sorted(found))


def _columns(of: Table) -> str:
    rows = [[code(c.name), code(str(c.type).lower()), _notes(c)] for c in of.columns]
    return table(["column", "type", "notes"], rows)


def _notes(column: Column[object]) -> str:
    notes = ["primary key"] if column.primary_key else []
    notes += [f"references `{key.target_fullname}`" for key in sorted(column.foreign_keys, key=str)]
    notes += ["may be empty"] if column.nullable and not column.primary_key else []
    return ", ".join(notes)
