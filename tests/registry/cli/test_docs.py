"""`docs/reference/registry.md` is what the program does: its diagram is the models', its outputs are the commands'.

After a change that is meant: `pytest tests/registry/cli/test_docs.py --update-docs`, then read the difference.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Table, UniqueConstraint

from abair_registry.cli import app
from abair_registry.db.models import Base
from abair_registry.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "registry.md"
SHARED = "/srv/abair"
"""A folder that the page speaks of; the test has another."""
MOMENT = "2026-11-23T12:00:00+00:00"
COMMANDS = {
    "add", "list", "show", "disable", "enable", "remove", "rollback", "promote", "history", "verify", "doctor",
    "pull", "push", "db current", "db check", "db upgrade", "db downgrade",
}  # fmt: skip

Replace = Callable[[str, str], None]


MEASURED, DETAIL = r"(?:gain )?-?\d+\.\d\d(?: dB)?", r"(?:gain )?\S+ +to \S+, n=(\d+) +"
VERDICT = re.compile(rf"(?m)^(passed|refused) +(.+?) {{2,}}{MEASURED} +(?:{DETAIL})?(\S+(?: dB)?)$")


@pytest.fixture
def page(request: pytest.FixtureRequest) -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture
def agree(request: pytest.FixtureRequest) -> Replace:
    """Compares a part of the page with what it should be, or with --update-docs makes it so."""

    def compare(found: str, expected: str) -> None:
        if request.config.getoption("--update-docs"):
            PAGE.write_text(PAGE.read_text(encoding="utf-8").replace(found, expected), encoding="utf-8")
        else:
            assert found == expected

    return compare


def kind(column: object) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(column).lower()).strip("_")


def entity(table: Table) -> list[str]:
    lines = [f"    {table.name} {{"]
    rules = [rule for rule in table.constraints if isinstance(rule, UniqueConstraint) and len(rule.columns) == 1]
    alone = {rule.columns.keys()[0] for rule in rules}
    for column in table.columns:
        marks = [mark for mark, holds in (("PK", column.primary_key), ("FK", column.foreign_keys)) if holds]
        marks += ["UK"] if column.name in alone or column.unique else []
        comment = "" if column.nullable is False or column.primary_key else ' "may be empty"'
        lines.append(f"        {kind(column.type)} {column.name} {', '.join(marks)}".rstrip() + comment)
    return [*lines, "    }"]


def diagram() -> str:
    """Mermaid's entity-relationship diagram of all tables."""
    lines = ["erDiagram"]
    tables = [Base.metadata.tables[name] for name in sorted(Base.metadata.tables)]
    for table in tables:
        for column in table.columns:
            for key in sorted(column.foreign_keys, key=lambda key: key.target_fullname):
                many = "||--o{" if not column.nullable else "|o--o{"
                lines.append(f"    {key.column.table.name} {many} {table.name} : {column.name}")
    for table in tables:
        lines += entity(table)
    return "\n".join(lines)


def test_the_diagram_is_the_models(page: str, agree: Replace) -> None:
    (found,) = re.findall(r"```mermaid\n(.*?)\n```", page, re.DOTALL)
    expected = diagram()
    assert expected.count(" {\n") == len(Base.metadata.tables) >= 10
    agree(found, expected)


def test_every_table_is_described_by_its_class(page: str, agree: Replace) -> None:
    (found,) = re.findall(r"<!-- tables -->\n(.*?)<!-- end of tables -->", page, re.DOTALL)
    lines = ["| table | |", "|---|---|"]
    for mapper in sorted(Base.registry.mappers, key=lambda mapper: mapper.local_table.description):
        text = " ".join((mapper.class_.__doc__ or "").split())
        assert text
        lines.append(f"| `{mapper.local_table.description}` | {text} |")
    assert len(lines) == 2 + len(Base.metadata.tables)
    agree(f"<!-- tables -->\n{found}", "<!-- tables -->\n" + "\n".join(lines) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_every_command_says_what_the_page_shows(
    page: str, agree: Replace, environment: dict[str, str], settings: Settings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("ABAIR_CHALLENGER__FIRST_LOOK", "12")
    monkeypatch.setenv("ABAIR_CHALLENGER__HELD_OUT_OF_MIXTURE", "6")
    (tmp_path / "shared").mkdir()
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    shown = set()
    for block in blocks:
        expected = []
        for line in (line for line in block.splitlines() if line.startswith("$ ")):
            _, program, *arguments = shlex.split(line, comments=True)
            assert program == "abair-registry"
            shown.add(" ".join(arguments[: 2 if arguments[0] == "db" else 1]))
            app.run([argument.replace(SHARED, str(tmp_path)) for argument in arguments])
            said = capsys.readouterr()
            output = (said.out + said.err).replace(str(tmp_path), SHARED).replace(f"{SHARED}/home", "~/abair")
            output = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", MOMENT, output)
            output = re.sub(r"\d{8}T\d{6}\.\d{6}", "20261123T120000.000000", output)
            output = re.sub(r"run [0-9a-f]{32}, \d+ s", "run 0123456789abcdef0123456789abcdef, 12 s", output)
            # what is measured, how many samples that takes, and the columns' widths differ between machines
            output = re.sub(r"(?m)^verdict +gate .*$", "verdict  gate  measured  detail  threshold", output)
            output = VERDICT.sub(
                lambda found: "  ".join([found[1], found[2], "…", *(["… to …, n=…"] if found[3] else []), found[4]]),
                output,
            )
            expected += [line, *output.splitlines()]
        agree(block, "\n".join(expected) + "\n")
    assert shown == COMMANDS
