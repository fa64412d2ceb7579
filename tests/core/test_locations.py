"""Bundles are found where they lie, and by no name that two of them have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from abair.deployment import read_deployment
from abair.errors import DeploymentError
from abair.locations import FACTORY, live, shipped_names


def test_without_a_path_the_factory_deployment_is_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))
    assert read_deployment().name == "tiny-bundle"


@pytest.mark.parametrize("there", [True, False])
def test_a_factory_that_is_no_bundle_is_named_with_its_variable(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABAIR_FACTORY", str(tmp_path if there else tmp_path / "none"))
    with pytest.raises(DeploymentError, match=r"ABAIR_FACTORY: found .*, which holds no deployment\.json; expected"):
        read_deployment()


def test_a_bundle_that_comes_along_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_names() == ["factory", "paper"]
    for name in shipped_names():
        assert read_deployment(name).name == name
        monkeypatch.setenv("ABAIR_FACTORY", name)
        assert read_deployment().name == name


def test_a_folder_of_the_name_of_a_bundle_that_comes_along_is_told_apart(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("paper").mkdir()
    assert read_deployment("paper").name == "paper"  # what is no bundle is not meant
    shutil.copytree(bundle, "paper", dirs_exist_ok=True)
    with pytest.raises(DeploymentError, match=r"paper: found a bundle in this folder and one that comes.*use \./paper"):
        read_deployment("paper")
    assert read_deployment("./paper").name == read_deployment(Path("paper")).name == "tiny-bundle"


def test_the_live_bundle_is_the_homes_or_else_the_factorys(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path / "home"))
    assert live() == FACTORY
    shutil.copytree(bundle, tmp_path / "home")
    assert live() == tmp_path / "home"
    assert read_deployment().name == "tiny-bundle"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything is readable to root")
def test_a_home_that_may_not_be_read_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path / "home" / "inside"))
    (tmp_path / "home").mkdir(mode=0)
    with pytest.raises(DeploymentError, match=r"inside: cannot be read \(Permission denied\); expected a folder that"):
        read_deployment()
    (tmp_path / "home").chmod(0o700)
