"""Plugins are found among what is installed, with their files, and nothing of them runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.plugin_package import SYNTHESIS, Plugin, Tiny, write_metadata

from abair.errors import AdmissionError
from abair_registry.plugins.installed import find, installed_plugins

pytestmark = pytest.mark.slow


def test_finding_and_listing_run_nothing_of_a_plugin(site: Path, tiny: Tiny) -> None:
    mark = site / "it-ran"
    Plugin(module=f"open({str(mark)!r}, 'w').close()\nraise RuntimeError").make(site, tiny)
    assert "frost" in {plugin.name for plugin in installed_plugins()}
    assert find("frost").module == "abair_frost"
    assert not mark.exists()
    assert "abair_frost" not in sys.modules


def test_finding_needs_neither_torch_nor_sqlalchemy() -> None:
    program = (
        "import sys, abair_registry.plugins.admission, abair_registry.plugins.installed as c; c.installed_plugins(); "
        "print(sorted({'torch', 'numpy', 'sqlalchemy', 'alembic', 'mlflow'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_a_plugin_whose_metadata_cannot_be_read_is_told_when_it_is_asked_for(site: Path, tiny: Tiny) -> None:
    Plugin().make(site, tiny)
    (site / "abair_frost-1.0.dist-info" / "entry_points.txt").write_text("[abair]\nfrost\n")
    with pytest.raises(AdmissionError, match=r"distribution abair-frost: its entry_points\.txt cannot be read"):
        find("frost")


def test_a_plugins_files_are_hashed(site: Path, tiny: Tiny) -> None:
    folder = Plugin().make(site, tiny)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "synthesis.pyc").write_bytes(b"0")
    found = find("frost")
    assert set(found.files) == {
        "abair_frost/__init__.py",
        "abair_frost/synthesis.py",
        "abair_frost/adapters/tiny/adapter_config.json",
        "abair_frost/adapters/tiny/adapter_model.safetensors",
        "abair_frost-1.0.dist-info/METADATA",
        "abair_frost-1.0.dist-info/entry_points.txt",
    }
    assert found.files["abair_frost/synthesis.py"] == sha256(SYNTHESIS.encode()).hexdigest()


def test_our_own_plugins_are_found() -> None:
    ours = {plugin.name for plugin in installed_plugins() if plugin.distribution == f"abair-{plugin.name}"}
    assert ours >= {"noise", "rain", "haze", "blur", "low-light"}
    for name in ours:
        found = find(name)
        assert found == find(found.distribution)
        assert any(path.endswith("/synthesis.py") for path in found.files)


def test_a_distributions_name_finds_its_only_plugin(site: Path, tiny: Tiny) -> None:
    Plugin().make(site, tiny)
    assert find("abair-frost") == find("ABAIR_Frost") == find("frost")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("forst", "did you mean frost"),
        ("abair-frsot", "did you mean abair-frost"),
        ("xyzzy", "; found "),
        ("\x1b[2J" + "x" * 5000, "no installed distribution has it"),
        ("", "no installed distribution has it"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_near_ones(name: str, says: str, site: Path, tiny: Tiny) -> None:
    Plugin().make(site, tiny)
    with pytest.raises(AdmissionError) as refusal:
        find(name)
    assert says in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 1000


def test_one_name_in_two_distributions_is_refused_naming_both(site: Path, tiny: Tiny) -> None:
    Plugin().make(site, tiny)
    write_metadata(site, "abair-hoar", {"frost": "abair_hoar"}, [])
    for name in ("frost", "abair-hoar"):
        with pytest.raises(AdmissionError, match=r"abair-frost 1\.0, abair-hoar 1\.0; expected one"):
            find(name)
    assert [plugin.distribution for plugin in installed_plugins() if plugin.name == "frost"] == [
        "abair-frost",
        "abair-hoar",
    ]


def test_a_distribution_with_several_plugins_lists_them(site: Path, tiny: Tiny) -> None:
    folders = [Plugin().make(site, tiny)]
    (site / "abair_frost-1.0.dist-info").rename(site.parent / "away")
    write_metadata(site, "abair-winter", {"frost": "abair_frost", "sleet": "abair_frost"}, folders)
    with pytest.raises(AdmissionError, match=r"found 2 plugins in it: frost, sleet; expected .*add frost"):
        find("abair-winter")
    assert find("frost").distribution == "abair-winter"


def _changed(site: Path) -> None:
    (site / "abair_frost" / "synthesis.py").write_text("x = 1")


def _missing(site: Path) -> None:
    (site / "abair_frost" / "synthesis.py").unlink()


def _no_module(site: Path) -> None:
    (site / "abair_frost").rename(site / "other")


def _odd_module(site: Path) -> None:
    (site / "abair_frost-1.0.dist-info" / "entry_points.txt").write_text("[abair]\nfrost = ../../x y\n")


def _standard_module(site: Path) -> None:
    (site / "abair_frost-1.0.dist-info" / "entry_points.txt").write_text("[abair]\nfrost = sys\n")


def _damaged_record(site: Path) -> None:
    (site / "abair_frost-1.0.dist-info" / "RECORD").write_text("abair_frost/__init__.py\n")


def _folder_as_record(site: Path) -> None:
    record = site / "abair_frost-1.0.dist-info" / "RECORD"
    record.unlink()
    record.mkdir()


def _odd_version(site: Path) -> None:
    (site / "abair_frost-1.0.dist-info" / "METADATA").write_text("Name: abair-frost\nVersion: \x1b[2J 1\n")


def _hidden(site: Path) -> None:
    other = site.parent / "first"
    (other / "abair_frost").mkdir(parents=True)
    (other / "abair_frost" / "__init__.py").write_text("")
    sys.path.insert(0, str(other))  # the fixture puts sys.path back


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_changed, "synthesis.py was changed since it was installed"),
        (_missing, r"synthesis.py cannot be read \(No such file"),
        (_no_module, "names the module abair_frost, which is not there"),
        (_odd_module, "which is not there"),
        (_standard_module, "which is not there"),
        (_damaged_record, "its RECORD cannot be read"),
        (_folder_as_record, "its RECORD cannot be read"),
        (_odd_version, "found version"),
        (_hidden, "which hides the one that was installed in"),
    ],
)
def test_a_damaged_installation_is_refused(
    damage: Callable[[Path], None], says: str, site: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    Plugin().make(site, tiny)
    damage(site)
    with pytest.raises(AdmissionError, match=says) as refusal:
        find("frost")
    assert str(refusal.value).isprintable()


def test_a_plugin_without_a_record_is_hashed_by_its_folder(site: Path, tiny: Tiny) -> None:
    Plugin().make(site, tiny)
    (site / "abair_frost-1.0.dist-info" / "RECORD").unlink()
    assert len(find("frost").files) == 4


def test_a_module_in_a_namespace_is_found_without_importing_its_parents(site: Path) -> None:
    folder = site / "winter" / "frost"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError")
    (folder / "plugin.py").write_text("raise RuntimeError")
    write_metadata(site, "winter-frost", {"frost": "winter.frost.plugin"}, [folder])
    assert find("frost").folder == folder
    assert "winter" not in sys.modules
