"""`abair plugin new`: a complete package that keeps this repository's rules and works."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.support.command import Abair

from abair import discovery
from abair.plugin_kit.naming import derive_names
from abair.plugin_kit.placeholders import find_placeholders
from abair.plugin_kit.scaffold import Licence, make_package, render

ROOT = Path(__file__).parents[3]
FILES = [
    ".github/workflows/ci.yml",
    ".gitignore",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/abair_film_grain/__init__.py",
    "src/abair_film_grain/py.typed",
    "src/abair_film_grain/synthesis.py",
    "tests/test_contract.py",
    "tests/test_synthesis.py",
]
LONGEST = "a-name-of-as-many-letters-as-are-allowed"


def written(folder: Path) -> list[str]:
    """The files below a folder, the trained adapters left out."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if "/adapters/" not in name)


def test_a_package_is_made_and_the_next_commands_are_said(abair: Abair) -> None:
    done = abair("plugin", "new", "film-grain", "--dir", "my plugins")
    assert done.code == 0
    assert done.err == []
    assert written(Path("my plugins")) == [f"abair-film-grain/{name}" for name in FILES]
    commands = [shlex.split(line) for line in done.out[done.out.index("next:") + 1 :]]
    folder = "./my plugins/abair-film-grain"
    assert commands == [
        ["pip", "install", "-e", folder],
        ["pytest", folder],
        ["abair", "plugin", "preview", "film-grain"],
        ["abair", "train", "adapter", "film-grain"],
        ["abair", "plugin", "check", folder],
    ]


def test_json_is_one_object_that_names_every_file(abair: Abair) -> None:
    done = abair("plugin", "new", "film-grain", "--json")
    (line,) = done.out
    made = json.loads(line)
    files = made.pop("files")
    assert made == {
        "name": "film-grain",
        "distribution": "abair-film-grain",
        "module": "abair_film_grain",
        "folder": "abair-film-grain",
    }
    assert set(files) >= set(FILES)
    assert all(Path("abair-film-grain", name).is_file() for name in files)


def test_a_folder_that_exists_is_refused_and_left_alone(abair: Abair) -> None:
    Path("abair-snow").mkdir()
    Path("abair-snow/notes").write_text("mine")
    done = abair("plugin", "new", "snow")
    assert done.code == 1
    assert len(done.err) == 1
    assert "abair-snow" in done.err[0]
    assert written(Path()) == ["abair-snow/notes"]


def test_nothing_is_left_where_a_package_cannot_be_finished(abair: Abair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    done = abair("plugin", "new", "snow")
    assert done.code == 1
    assert len(done.err) == 1
    assert "No space left" in done.err[0]
    assert list(Path().iterdir()) == []


def test_the_name_of_an_installed_plugin_is_warned_of(abair: Abair, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("snow", "abair_snow", "abair")
    monkeypatch.setattr(discovery, "installed_points", lambda problems: [point])
    monkeypatch.setattr(discovery, "distribution_of", lambda point: ("abair-snow", "1.2"))
    done = abair("plugin", "new", "snow")
    assert done.code == 0
    (line,) = done.err
    assert line.startswith("abair: warning: plugin snow is installed already (distribution abair-snow 1.2)")


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("Apache-2.0", "Apache License"),
        ("MIT", "Permission is hereby granted"),
        ("BSD-3-Clause", "Redistribution and use"),
    ],
)
def test_the_licence_is_in_its_file_the_project_and_the_card(licence: str, words: str) -> None:
    files = {
        name: data.decode()
        for name, data in _texts(licence=Licence(licence), author="Ada").items()
        if "/adapters/" not in name
    }
    assert words in files["LICENSE"]
    assert tomllib.loads(files["pyproject.toml"])["project"]["license"] == licence
    assert f'licence="{licence}"' in files["src/abair_film_grain/__init__.py"]
    assert f"{licence} for the code" in files["README.md"]
    if licence == "Apache-2.0":
        assert files["LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    else:
        assert "Ada" in files["LICENSE"]


@pytest.mark.parametrize(
    "author", ["Ada Lovelace", "O'Brien", 'Sam "S" Lee', "a 'b' \"c\" \\", "Łukasz [[ names ]] {x}"]
)
def test_an_authors_name_arrives_as_it_was_given(author: str) -> None:
    files = _texts(author=author)
    assert tomllib.loads(files["pyproject.toml"].decode())["project"]["authors"] == [{"name": author}]
    strings = [
        node.value
        for node in ast.walk(ast.parse(files["src/abair_film_grain/__init__.py"].decode()))
        if isinstance(node, ast.Constant)
    ]
    assert author in strings


@pytest.mark.parametrize("author", ["", "  ", "a\nb", "x" * 81])
def test_an_author_that_is_no_name_is_refused(abair: Abair, author: str) -> None:
    done = abair("plugin", "new", "snow", "--author", author)
    assert done.code == 2
    assert len(done.err) == 1
    assert list(Path().iterdir()) == []


def test_without_an_author_it_is_gits_user_or_nobody_in_particular(
    abair: Abair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def author(folder: str) -> Any:
        assert abair("plugin", "new", "snow", "--dir", folder).code == 0
        config = tomllib.loads(Path(folder, "abair-snow", "pyproject.toml").read_text(encoding="utf-8"))
        return config["project"]["authors"]

    answers = [SimpleNamespace(stdout="Grace Hopper\n"), FileNotFoundError(), subprocess.CalledProcessError(1, "git")]

    def git(command: list[str], **options: Any) -> Any:
        assert command == ["git", "config", "user.name"]
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(subprocess, "run", git)
    assert [author(folder) for folder in "abc"] == [
        [{"name": name}] for name in ("Grace Hopper", "The authors", "The authors")
    ]


def test_it_asks_for_this_minor_version_of_abair_and_abairs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    monkeypatch.setattr("abair.__version__", "1.4.2")
    (ours, torchs) = tomllib.loads(_texts()["pyproject.toml"].decode())["project"]["dependencies"]
    assert ours == "abair>=1.4,<1.5"
    assert torchs in platform


def test_only_files_named_so_are_rendered_the_others_are_copied_byte_for_byte(tmp_path: Path) -> None:
    weights = b"\x00\xff[[ names.name ]]\r\n"
    folder = tmp_path / "template" / "src" / "module" / "adapters" / "nano"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "note.txt.jinja").write_text("{a}: [[ names.name ]]\n")
    nano = "src/abair_snow/adapters/nano"
    assert render(derive_names("snow"), template=tmp_path / "template") == {
        f"{nano}/adapter_model.safetensors": weights,
        f"{nano}/note.txt": b"{a}: snow\n",
    }


def test_the_card_has_a_place_for_the_figures() -> None:
    card = _texts()["README.md"].decode()
    assert card.index("## Figures") < card.index("<!-- figures -->") < card.index("<!-- /figures -->")


@pytest.mark.parametrize("name", ["x", LONGEST])
def test_its_code_is_formatted_and_keeps_this_repositorys_rules(name: str, tmp_path: Path) -> None:
    made = make_package(derive_names(name), tmp_path)
    rules = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    for command in (["format", "--check", *rules], ["check", *rules], ["format", "--check", "-n"], ["check", "-n"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=made.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert len((made.folder / "src" / made.names.module / "__init__.py").read_text().splitlines()) < 40


@pytest.mark.exhaustive
def test_its_wheel_passes_its_own_tests_untouched(tmp_path: Path) -> None:
    made = make_package(derive_names("film-grain"), tmp_path)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=made.folder, capture_output=True, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / "abair_film_grain" / "py.typed").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=made.folder,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


def test_the_templates_own_subject_is_in_its_synthesiser_alone() -> None:
    subject = re.compile(r"fad(e|ing)|old colour|print\b(?!\()|\bdyes?\b|contrast fell", re.IGNORECASE)
    texts = {name: data.decode() for name, data in _texts().items() if "/adapters/" not in name}
    found = {name for name, text in texts.items() if subject.search(text)}
    assert found == {"src/abair_film_grain/synthesis.py"}


def test_what_is_left_to_the_author_is_marked_in_readme_card_and_synthesiser() -> None:
    texts = {name: data.decode() for name, data in _texts().items() if "/adapters/" not in name}
    marked = {name: len(find_placeholders(text)) for name, text in texts.items() if find_placeholders(text)}
    assert marked == {
        "README.md": 4, "src/abair_film_grain/__init__.py": 1, "src/abair_film_grain/synthesis.py": 1,
    }  # fmt: skip


def _dropped(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Another damage: a share of the pixels is lost."""
    share = torch.rand((), generator=generator)
    return clean * (torch.rand(clean.shape[-2:], generator=generator) > share)


def test_another_synthesiser_breaks_no_test_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, contents in {"abair_film_grain": {}, "abair_film_grain.synthesis": {"degrade": _dropped}}.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    names: dict[str, Any] = {}
    exec(_texts()["tests/test_synthesis.py"].decode(), names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    for test in tests:
        test()
    assert len(tests) == 2


def _texts(**given: Any) -> dict[str, bytes]:
    return render(derive_names("film-grain"), **given)
