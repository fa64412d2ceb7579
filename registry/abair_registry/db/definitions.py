"""What the schema consists of, read from the database and compared with what the migrations make.

Alembic compares neither triggers nor CHECKs nor the conditions of indexes. What is expected lies in
`abair_migrations/schema/`, because a database that is only looked at cannot be migrated to see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, TypeAlias

from sqlalchemy import Connection, text

from abair_registry.db.models import Base

Definitions: TypeAlias = dict[str, dict[str, str]]
"""SQL by item, such as `trigger tr_event_delete`, by table; functions belong to the table ``."""

# comments, strings, quoted names, words, and other characters one by one
_TOKEN: Final = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[\w+\]|\w+|[^\w\s]", re.DOTALL
)
_UNNAMED: Final = ("CHECK", "FOREIGN", "PRIMARY", "UNIQUE")
"""First words of table constraints without a name."""
_RISKS: Final = {
    "BEFORE UPDATE": "rows could be changed",
    "BEFORE DELETE": "rows could be deleted",
    "BEFORE TRUNCATE": "all rows could be deleted",
    "UNIQUE": "rows could be repeated",
    "CHECK": "wrong values could be written",
    "FOREIGN KEY": "rows could refer to others that do not exist",
}
_MENDABLE: Final = ("function", "index", "trigger")

_POSTGRESQL: Final = text("""
WITH ours AS (
    SELECT oid, relname AS name FROM pg_class
    WHERE relkind IN ('r', 'p') AND relname = ANY(:tables) AND pg_table_is_visible(oid)
)
SELECT name, 'column ' || attname, format_type(atttypid, atttypmod)
    || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END || coalesce(' DEFAULT ' || pg_get_expr(adbin, adrelid), '')
FROM ours JOIN pg_attribute ON attrelid = ours.oid LEFT JOIN pg_attrdef ON adrelid = ours.oid AND adnum = attnum
WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT name, 'constraint ' || conname, pg_get_constraintdef(pg_constraint.oid, true)
FROM ours JOIN pg_constraint ON conrelid = ours.oid WHERE contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL
SELECT name, 'index ' || relname, pg_get_indexdef(indexrelid, 0, true)
    || CASE WHEN indisvalid THEN '' ELSE ' (invalid)' END
FROM ours JOIN pg_index ON indrelid = ours.oid JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = indrelid)
UNION ALL
SELECT name, 'trigger ' || tgname, pg_get_triggerdef(pg_trigger.oid, true)
    || CASE tgenabled WHEN 'D' THEN ' (disabled)' WHEN 'R' THEN ' (enabled for replicas alone)' ELSE '' END
FROM ours JOIN pg_trigger ON tgrelid = ours.oid WHERE NOT tgisinternal
UNION ALL
SELECT '', 'function ' || proname, replace(pg_get_functiondef(pg_proc.oid), nspname || '.' || proname, proname)
FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
WHERE starts_with(proname, 'abair_') AND pg_function_is_visible(pg_proc.oid)
""")


@dataclass(frozen=True)
class Difference:
    """An item of the schema that is not as the migrations make it; printed, one line for people.

    `table` is empty for a function. Of a missing table `item` is empty.
    """

    table: str
    item: str
    found: str | None
    expected: str | None

    @property
    def mendable(self) -> bool:
        """Whether it can be made again whatever the tables hold; a unique index may not fit."""
        return self.expected is not None and self.item.startswith(_MENDABLE)

    @property
    def name(self) -> str:
        """What it is about, for people."""
        return " of ".join(filter(None, (self.item, self.table and f"table {self.table}")))

    def __str__(self) -> str:
        if self.expected is None:
            return f"{self.name}: found {self.found}, expected none; find out who made it, and drop it"
        (risk, *_) = (*(risk for words, risk in _RISKS.items() if words in self.expected), "ABAIR could fail")
        advice = "run: abair-registry db upgrade" if self.mendable else "restore the database from a backup"
        if self.found is not None:
            return f"{self.name}: found {self.found}, expected {self.expected}; {risk}; {advice}"
        expected = "" if self.mendable or not self.item else f"; expected {self.expected}"
        return f"{self.name} is missing: {risk}{expected}; {advice}"


def read(connection: Connection) -> Definitions:
    """Return what ABAIR's tables in this database consist of; other tables are left out."""
    found: Definitions = {}
    rows = _postgresql_items(connection) if connection.dialect.name == "postgresql" else _sqlite_items(connection)
    for table, item, sql in rows:
        found.setdefault(table, {})[item] = " ".join(sql.split())
    return found


def expected(dialect: str) -> Definitions:
    """Return what the migrations make on `sqlite` or `postgresql`."""
    found: Definitions = json.loads((files("abair_migrations") / "schema" / f"{dialect}.json").read_text("utf-8"))
    return found


def compare(found: Definitions, wanted: Definitions) -> list[Difference]:
    """Return what is missing, different or too much, whatever the spaces and quotes of names."""
    differences = []
    for table in sorted(found.keys() | wanted.keys()):
        if table and table not in found:
            differences.append(Difference(table, "", None, ""))
            continue
        here, there = found.get(table, {}), wanted.get(table, {})
        differences += [
            Difference(table, item, here.get(item), there.get(item))
            for item in sorted(here.keys() | there.keys())
            if _normal(here.get(item)) != _normal(there.get(item))
        ]
    return differences


def differences(connection: Connection) -> list[Difference]:
    """Compare a database at the newest revision with what the migrations make; writes nothing."""
    return compare(read(connection), expected(connection.dialect.name))


def _postgresql_items(connection: Connection) -> Iterator[tuple[str, str, str]]:
    for table, item, sql in connection.execute(_POSTGRESQL, {"tables": list(Base.metadata.tables)}):
        yield table, item, _without_comments(sql)


def _sqlite_items(connection: Connection) -> Iterator[tuple[str, str, str]]:
    rows = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    for kind, name, table, sql in rows:
        if table not in Base.metadata.tables:
            continue
        if kind != "table":
            yield table, f"{kind} {name}", _without_comments(sql)
            continue
        for clause in _clauses(_without_comments(sql)):
            first, *others = (token[0] for token in _TOKEN.finditer(clause))
            rest = clause[len(first) :].strip()
            if first.upper() == "CONSTRAINT":
                yield table, f"constraint {_unquoted(others[0])}", rest[len(others[0]) :].strip()
            elif first.upper() in _UNNAMED:
                yield table, f"constraint {clause}", clause
            else:
                yield table, f"column {_unquoted(first)}", rest


def _clauses(create: str) -> Iterator[str]:
    """Yield the columns and constraints of a CREATE TABLE, then its options if it has any."""
    depth, start = 0, 0
    for token in _TOKEN.finditer(create):
        if token[0] == "(":
            depth += 1
            start = token.end() if depth == 1 else start
        elif depth == 1 and token[0] in {",", ")"}:
            yield " ".join(create[start : token.start()].split())
            start = token.end()
        depth -= token[0] == ")"
    if options := create[start:].strip():
        yield f"CONSTRAINT options {options}"


def _without_comments(sql: str) -> str:
    return _TOKEN.sub(lambda token: " " if token[0].startswith(("--", "/*")) else token[0], sql)


def _unquoted(name: str) -> str:
    return name.strip('"`[]')


def _normal(sql: str | None) -> list[str] | None:
    """Return the words, names without quotes, all but strings in lower case."""
    if sql is None:
        return None
    tokens = (token[0] for token in _TOKEN.finditer(sql))
    return [token if token[0] == "'" else _unquoted(token).casefold() for token in tokens]
