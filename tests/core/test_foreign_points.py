"""Libraries are given their own entry points only; what a whole program loads is in tests/house."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from tests.support.foreign_package import GROUPS, write_damaged, write_trap

from abair.contract import GROUP
from abair.foreign_points import ALLOWED, foreign_kept_out, run_here


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a package in all groups."""
    write_trap(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(ALLOWED, raising=False)
    return tmp_path


def asked(group: str) -> set[str]:
    """The modules that a library gets which asks for a group."""
    return {point.module for point in importlib.metadata.entry_points(group=group)}


def test_every_group_but_the_plugins_and_other_programs_own_runs_here() -> None:
    assert [group for group in GROUPS if not run_here(group)] == ["abair", "pytest11"]
    assert not any(
        map(run_here, (GROUP, "console_scripts", "gui_scripts", "pydantic_ai", "torchvision.models", "mlflowers"))
    )


def test_a_library_without_a_switch_gets_its_own_entry_points_only(trap: Path) -> None:
    with foreign_kept_out():
        for group in ("alembic.plugins", "fsspec.specs", "mlflow.tracking_store", "torchrun.handlers"):
            assert asked(group) == set()
        assert "mlflow.server.auth" in asked("mlflow.app")
        assert asked("opentelemetry_context") == {"opentelemetry.context.contextvars_context"}


def test_one_answer_for_all_groups_is_filtered_too(trap: Path) -> None:
    with foreign_kept_out():
        everything = importlib.metadata.entry_points()
        assert not [point for point in everything.select(group="fsspec.specs") if point.module.startswith("trap")]
        assert [point for point in everything.select(group="pytest11") if point.module.startswith("trap")]


def test_a_distribution_that_the_user_names_is_asked(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "abair-noise, TRAP")
    with foreign_kept_out():
        assert len(asked("fsspec.specs")) == 1


def test_a_list_that_cannot_be_read_does_not_end_the_question(trap: Path) -> None:
    write_damaged(trap)
    with foreign_kept_out():
        assert asked("opentelemetry_context") == {"opentelemetry.context.contextvars_context"}
