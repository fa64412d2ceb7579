"""What the registry reads from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from abair_registry.settings import Settings


@pytest.mark.parametrize("name", ["home", "clean_dir"])
def test_a_folder_is_found_from_every_working_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"ABAIR_{name.upper()}", "somewhere/below")
    assert getattr(Settings(), name) == tmp_path / "somewhere" / "below"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(f"ABAIR_{name.upper()}", "~/photos")
    assert getattr(Settings(), name) == tmp_path / "photos"
