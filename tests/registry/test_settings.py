"""What the registry reads from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from abair.errors import AbairError, DeploymentError
from abair.locations import factory_folder
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


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ABAIR_HOME", "ABAIR_CLEAN_DIR", "ABAIR_SHARED_URL", "ABAIR_GATES", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("ABAIR_REGISTRY_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = Settings()
    assert found.home != tmp_path  # not the working directory, which is what pydantic makes of nothing
    assert (found.clean_dir, found.shared_url, found.tracking_uri) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ABAIR_REGISTRY_URL", "", "ABAIR_REGISTRY_URL: found nothing, expected the URL"),
        ("ABAIR_GATES", "foo", "ABAIR_GATES: found no JSON object, expected one such as"),
        ("ABAIR_GATES", "5", "ABAIR_GATES: found 5, expected"),
        ("ABAIR_HOME", "~nosuchuser/x", "ABAIR_HOME: found ~nosuchuser/x; expected a folder, or ~ of a user"),
        ("ABAIR_CLEAN_DIR", "~nosuchuser/x", "ABAIR_CLEAN_DIR: found ~nosuchuser/x; expected a folder, or ~ of a user"),
        (
            "ABAIR_HOME",
            os.fsdecode(b"/tmp/abair-\xff"),
            "ABAIR_HOME: found b'/tmp/abair-\\xff'; expected a path in UTF-8",
        ),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(AbairError) as told:
        Settings()
    assert str(told.value).startswith(said)


@pytest.mark.parametrize("value", ["~nosuchuser/x", os.fsdecode(b"/tmp/\xff")])
def test_a_wrong_factory_is_told_by_its_variable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABAIR_FACTORY", value)
    with pytest.raises(DeploymentError, match=r"ABAIR_FACTORY: found .*; expected a "):
        factory_folder()
