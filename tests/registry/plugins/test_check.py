"""`abair plugin check`: what a plugin's author hears before anybody adds it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry.conftest import FROST
from tests.support.plugin_package import Plugin, Tiny

from abair.cli import app
from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.plugin_kit.naming import derive_names
from abair.plugin_kit.placeholders import MARK
from abair.plugin_kit.scaffold import Licence, make_package
from abair_registry.plugins import check as plugin_check

pytestmark = pytest.mark.slow

Check = Callable[[str | Path], tuple[int, dict[str, Any], str]]


@pytest.fixture
def check(
    bundle: Path, clean_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Check]:
    """Calls the command with `--json` in this process, the tiny bundle as factory; (exit code, object, stderr)."""
    monkeypatch.setenv("ABAIR_CLEAN_DIR", str(clean_dir))
    monkeypatch.setattr("abair.cli.plugin._checker", lambda: plugin_check.check)
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))

    def call(target: str | Path) -> tuple[int, dict[str, Any], str]:
        code = app.run(["plugin", "check", str(target), "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else {}, said.err

    yield call
    for name in [name for name in sys.modules if name.startswith("abair_frost")]:
        del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, trained: Tiny) -> Path:
    """A package from the template, with a damage of its own and an adapter that undoes it."""
    made = make_package(derive_names("frost"), tmp_path, licence=Licence.mit, author="Ada")
    fill_in(made.folder)
    package = made.folder / "src" / "abair_frost"
    (package / "synthesis.py").write_text(FROST)
    shutil.rmtree(package / "adapters", ignore_errors=True)
    (package / "adapters" / "tiny").mkdir(parents=True)
    (package / "adapters" / "tiny" / CONFIG_FILE).write_text(json.dumps(trained.config))
    shutil.copyfile(trained.adapter, package / "adapters" / "tiny" / WEIGHTS_FILE)
    return made.folder


def fill_in(folder: Path) -> None:
    """Replace what the template leaves to the author."""
    for path in (folder / "README.md", *folder.rglob("*.py")):
        path.write_text(path.read_text(encoding="utf-8").replace(MARK, "Said"), encoding="utf-8")


def refused(told: dict[str, Any]) -> list[str]:
    return [one["name"] for one in told["checks"] if not one["passed"]]


def test_a_good_plugin_passes_every_check_and_nothing_is_installed(check: Check, project: Path, tmp_path: Path) -> None:
    path = list(sys.path)
    code, told, _ = check(project)
    assert (code, refused(told), told["passed"]) == (0, [], True), told
    assert (told["plugin"], told["distribution"], told["version"]) == ("frost", "abair-frost", "0.1.0")
    names = [one["name"] for one in told["checks"]]
    package = ["wheel", "contents", "requirements", "names", "entry points", "placeholders"]
    assert names == [*package, "probe", "card", "efficacy", "against the others"]
    assert sys.path == path
    assert not list(project.glob("*.whl"))


@pytest.mark.exhaustive
def test_a_package_as_the_kit_makes_it_lacks_only_what_its_author_says_with_the_factorys_network(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABAIR_FACTORY")
    monkeypatch.delenv("ABAIR_CLEAN_DIR")
    made = make_package(derive_names("frosted-print"), tmp_path, author="Ada")
    code, told, _ = check(made.folder)
    assert (code, refused(told), told["passed"]) == (1, ["placeholders"], False), told


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("README.md", "README: TODO(plugin): the terms"),
        ("pyproject.toml", "metadata, Summary: TODO(plugin): the terms"),
        ("src/abair_frost/__init__.py", "abair_frost/__init__.py: TODO(plugin): the terms"),
    ],
)
def test_a_placeholder_is_found_in_readme_metadata_and_card(check: Check, project: Path, file: str, found: str) -> None:
    shutil.rmtree(project / "src" / "abair_frost" / "adapters")  # so the checks that take time are left out
    path = project / file
    text = path.read_text(encoding="utf-8")
    for words in ("ABAIR plugin for one degradation", "A plugin of"):
        text = text.replace(words, f"{MARK}: the terms", 1)
    path.write_text(text, encoding="utf-8")
    _, told, _ = check(project)
    assert refused(told) == ["placeholders", "probe"]
    (placeholders,) = (one for one in told["checks"] if one["name"] == "placeholders")
    assert placeholders["found"].startswith(found)
    assert placeholders["advice"] == "replace each text that begins with TODO(plugin)"


@pytest.mark.exhaustive
def test_a_version_of_abair_that_it_is_not_for_is_refused(check: Check, project: Path) -> None:
    described = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(re.sub(r'"abair[><=][^"]*", "torch', '"abair>=9,<10", "torch', described))
    told = check(project)[1]
    assert refused(told) == ["requirements"]
    assert next(one["found"] for one in told["checks"] if one["name"] == "requirements").startswith(
        "abair<10,>=9; this"
    )


def test_two_entry_points_are_one_line(check: Check, project: Path) -> None:
    described = (project / "pyproject.toml").read_text()
    second = '\nfrost = "abair_frost"\nsleet = "abair_sleet"\n'
    (project / "pyproject.toml").write_text(described.replace('\nfrost = "abair_frost"\n', second))
    code, told, said = check(project)
    assert (code, told) == (1, {})
    assert "found 2 entry points in the group abair (frost, sleet); expected one" in said


@pytest.mark.parametrize(
    ("group", "refusals", "found"),
    [
        ("console_scripts", [], "abair; for other programs: console_scripts"),
        ("mlflow.run_context_provider", ["entry points", "probe"], "mlflow.run_context_provider: libraries load these"),
    ],
)
def test_entry_points_in_other_groups_are_told_or_refused(
    check: Check, site: Path, trained: Tiny, group: str, refusals: list[str], found: str
) -> None:
    Plugin(synthesis=FROST, groups=(group,)).make(site, trained)
    told = check("frost")[1]
    assert [name for name in refused(told) if name in {"entry points", "probe"}] == refusals
    assert next(one["found"] for one in told["checks"] if one["name"] == "entry points").startswith(found)


def test_without_an_adapter_it_says_how_to_train_one(check: Check, project: Path) -> None:
    shutil.rmtree(project / "src" / "abair_frost" / "adapters")
    code, told, _ = check(project)
    assert code == 1
    assert refused(told) == ["probe"]
    assert told["checks"][-1]["advice"] == "train one: abair train adapter frost"


@pytest.mark.exhaustive
def test_a_wheel_that_holds_more_than_its_package_is_refused(check: Check, project: Path, tmp_path: Path) -> None:
    tell: list[str] = []
    wheel = plugin_check._build_wheel(project, tmp_path / "wheels", plugin_check.PluginReport("frost"), tell.append)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("abair_frost/tests/test_frost.py", "")
        archive.writestr("abair_frost/adapters/old.pt", b"\x80")
        archive.writestr("elsewhere.py", "")
    code, told, _ = check(wheel)
    assert code == 1
    (contents,) = (one for one in told["checks"] if one["name"] == "contents")
    for part in ("elsewhere.py beside the package abair_frost", "tests: abair_frost/tests", "old.pt, which can run"):
        assert part in contents["found"]


def test_a_wheel_whose_files_lead_out_of_it_is_not_unpacked(check: Check, project: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "abair_frost-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../../escaped.py", "")
    code, told, said = check(wheel)
    assert (code, told) == (1, {})
    assert "expected files inside of the wheel alone" in said


def test_a_project_that_cannot_be_built_is_one_refused_check(check: Check, project: Path) -> None:
    (project / "pyproject.toml").write_text("[build-system]\nrequires = []\nbuild-backend = 'hatchling.build'\n")
    code, told, _ = check(project)
    assert code == 1
    assert refused(told) == ["wheel"]
    assert told["checks"][0]["found"].startswith("cannot be built: ")


@pytest.mark.parametrize(
    ("target", "message"),
    [("no-such-plugin", "no installed distribution has it"), (".", "expected a plugin's project")],
)
def test_what_is_no_plugin_is_one_line(
    check: Check, target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told, said = check(target)
    assert (code, told) == (1, {})
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_people_get_a_line_a_check_and_what_to_do(
    check: Check, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "src" / "abair_frost" / "adapters")
    assert app.run(["plugin", "check", str(project)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("passed   wheel")
    assert any(line.startswith("REFUSED  probe") for line in lines)
    assert lines[-1] == "abair-frost 0.1.0: 7 checks, 1 refused"
