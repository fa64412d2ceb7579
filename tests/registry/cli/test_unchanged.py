"""What is so already is no failure, and no operation; a script may ask for it again and again."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select
from tests.registry.conftest import Run, complaints
from tests.support.outcomes import sqlite

from abair_registry.db.engine import Database
from abair_registry.db.models import EventRow, OperationRow
from abair_registry.settings import Settings

pytestmark = pytest.mark.slow


def records(settings: Settings) -> tuple[int, int]:
    """How many operations and events there are."""
    database = Database(settings, read_only=True)
    with database.read() as session:
        counts = [session.scalar(select(func.count()).select_from(kind)) or 0 for kind in (OperationRow, EventRow)]
    database.close()
    return counts[0], counts[1]


def expect_unchanged(run: Run, settings: Settings, why: str, *arguments: str) -> None:
    before = records(settings)
    code, (told,), err = run(*arguments)
    assert (code, told["operation"], told["outcome"], told["unchanged"]) == (0, None, "live", why)
    assert complaints(err) == [f"abair-registry: {why}; nothing was to be done"]
    assert records(settings) == before
    assert run("resume")[1] == [{"operation": None, "outcome": "nothing to resume"}]


@sqlite
def test_what_is_live_already_is_no_failure(run: Run, settings: Settings) -> None:
    assert run("doctor")[0] == 0  # makes the registry
    expect_unchanged(run, settings, "plugin rain: is live already", "enable", "rain")
    expect_unchanged(run, settings, "deployment 1: is live already", "promote", "1")
    expect_unchanged(run, settings, "deployment 1: is live already", "rollback", "--to", "1")


@sqlite
def test_what_is_disabled_or_removed_already_is_no_failure(run: Run, settings: Settings) -> None:
    assert run("disable", "rain", "--yes", "--force", "--reason", "a test")[0] == 0
    expect_unchanged(run, settings, "plugin rain: is disabled already", "disable", "rain", "--yes")
    code, (told,), _ = run("remove", "rain", "--yes")
    assert (code, told["unchanged"]) == (0, "plugin rain: is removed now, and was not live")
    expect_unchanged(run, settings, "plugin rain: is removed already", "remove", "rain", "--yes")
    code, told, err = run("disable", "rain", "--yes")
    assert (code, told) == (1, [])
    assert complaints(err) == [
        "abair-registry: plugin rain: is removed; expected one that is live or disabled; see: abair-registry list"
    ]


@pytest.mark.rare
@pytest.mark.exhaustive
@sqlite
def test_a_version_that_is_live_is_not_probed_again_and_another_one_is(
    run: Run, team: Path, settings: Settings
) -> None:
    code, (told,), err = run("add", "frost", "--force", "--reason", "a test")
    assert (code, told["outcome"]) == (0, "live"), err
    expect_unchanged(run, settings, "plugin frost: version 1.0 is live already", "add", "frost")
    synthesis = team / "abair_frost" / "synthesis.py"
    synthesis.write_text(synthesis.read_text() + "# changed")
    code, _, err = run("add", "frost")
    assert (code, "was changed since it was installed" in err) == (1, True)
