"""The plugin kit: names derived or refused, a package that is whole and works untouched, the preview's sheet."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from abair import discovery
from abair.cli import app
from abair.contract import Card, Degradation
from abair.errors import PluginError
from abair.plugin_kit import preview, scaffold
from abair.plugin_kit.naming import OURS, Names, derive_names
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


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ABAIR_DEBUG", raising=False)


@pytest.fixture
def abair(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Calls the command line; gives the exit code and the lines on stdout and on stderr."""

    def call(*arguments: str) -> SimpleNamespace:
        code = app.run(arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return SimpleNamespace(code=code, out=said.out.splitlines(), err=said.err.splitlines())

    return call


def written(folder: Path) -> list[str]:
    """The files below a folder, the trained adapters left out."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if "/adapters/" not in name)


# Names


def test_all_names_are_derived_from_one() -> None:
    names = Names("film-grain", "abair-film-grain", "abair_film_grain", "Film grain", "TestFilmGrain")
    assert derive_names("film-grain") == names


def test_a_name_that_is_a_keyword_will_do_behind_the_prefix() -> None:
    assert derive_names("class").module == "abair_class"


def test_the_longest_name_that_the_contract_allows_is_allowed() -> None:
    assert len(LONGEST) == 40
    assert derive_names(LONGEST).name == LONGEST
    with pytest.raises(PluginError, match="would do"):
        derive_names(LONGEST + "-x")


@pytest.mark.parametrize(
    ("name", "would_do"),
    [
        ("Film Grain", "film-grain"),
        ("film_grain", "film-grain"),
        ("FilmGrain", "film-grain"),
        ("Éclat!", "eclat"),
        ("abair-rain", "rain"),
        ("a--b", "a-b"),
        ("long-" * 8 + "name", "long-" * 7 + "long"),
        ("clean", ""),
        ("", ""),
        ("1-bit", ""),
        ("снег", ""),
        ("registry", ""),
    ],
)
def test_a_wrong_name_is_refused_with_the_rule_and_a_name_that_would_do(abair, name: str, would_do: str) -> None:
    done = abair("plugin", "new", "--", name)
    assert done.code == 2
    assert len(done.err) == 1
    assert repr(name) in done.err[0]
    assert "expected" in done.err[0]
    assert (f"; {would_do} would do" if would_do else "") in done.err[0]
    assert ("would do" in done.err[0]) == bool(would_do)
    assert list(Path().iterdir()) == []


def test_no_plugin_may_take_the_name_of_a_package_of_the_platform() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {Path(name).name for name in config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert {f"abair_{name}" for name in OURS} == packages - {"abair"}


# The package


def test_a_package_is_made_and_the_next_commands_are_said(abair) -> None:
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


def test_json_is_one_object_that_names_every_file(abair) -> None:
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


def test_a_folder_that_exists_is_refused_and_left_alone(abair) -> None:
    Path("abair-snow").mkdir()
    Path("abair-snow/notes").write_text("mine")
    done = abair("plugin", "new", "snow")
    assert done.code == 1
    assert len(done.err) == 1
    assert "abair-snow" in done.err[0]
    assert written(Path()) == ["abair-snow/notes"]


def test_nothing_is_left_where_a_package_cannot_be_finished(abair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    done = abair("plugin", "new", "snow")
    assert done.code == 1
    assert len(done.err) == 1
    assert "No space left" in done.err[0]
    assert list(Path().iterdir()) == []


def test_the_name_of_an_installed_plugin_is_warned_of(abair, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_an_author_that_is_no_name_is_refused(abair, author: str) -> None:
    done = abair("plugin", "new", "snow", "--author", author)
    assert done.code == 2
    assert len(done.err) == 1
    assert list(Path().iterdir()) == []


def test_without_an_author_it_is_gits_user_or_nobody_in_particular(abair, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_only_files_named_so_are_rendered_the_others_are_copied_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = b"\x00\xff[[ names.name ]]\r\n"
    folder = tmp_path / "template" / "src" / "module" / "adapters" / "nano"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "note.txt.jinja").write_text("{a}: [[ names.name ]]\n")
    monkeypatch.setattr(scaffold, "TEMPLATE", tmp_path / "template")
    nano = "src/abair_snow/adapters/nano"
    assert render(derive_names("snow")) == {
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


def _texts(**given: Any) -> dict[str, bytes]:
    return render(derive_names("film-grain"), **given)


# The preview


def darken(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Darker by a random amount: the simplest synthesiser that has a severity."""
    return clean * (1 - 0.9 * torch.rand((), generator=generator))


@pytest.fixture
def dusk(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An installed plugin `dusk`, whose synthesiser is what stands under `degrade`."""
    card = Card(authors=("a",), licence="l", training_data="t")
    degradation = Degradation(name="dusk", title="Dusk", synthesizer="dusk:degrade", adapters=Path("none"), card=card)
    found = discovery.Found(degradation, "abair-dusk", "1.2")
    plugin: dict[str, Any] = {"degrade": darken, "found": found}
    plugins = discovery.Plugins(None, found={"dusk": found})  # type: ignore[arg-type]
    monkeypatch.setattr(discovery, "discover", lambda: plugins)
    monkeypatch.setattr(discovery, "load_synthesizer", lambda degradation: plugin["degrade"])
    return plugin


def photo(name: str, size: tuple[int, int] = (300, 200)) -> Path:
    pixels = np.random.default_rng(0).integers(60, 250, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(name)
    return Path(name)


def test_the_sheet_shows_each_photo_clean_and_damaged_from_mild_to_strong(abair, dusk) -> None:
    photo("a.png")
    photo("b.png", (40, 90))
    done = abair("plugin", "preview", "dusk", "a.png", "b.png", "-o", "dusk.png", "--seeds", "4")
    assert (done.code, done.err) == (0, ["abair: written: dusk.png"])
    drawn = np.asarray(Image.open("dusk.png"))
    width, height = preview.CELL
    cells = [preview._MARGIN + column * (width + preview._GAP) for column in range(5)]
    for row, name in enumerate(("a.png", "b.png")):
        top = preview._HEAD + row * (height + preview._LABEL)
        shown = [drawn[top : top + height, left : left + width].astype(float) for left in cells]
        clean = np.asarray(ImageOps.fit(Image.open(name), preview.CELL))
        assert np.array_equal(shown[0], clean)  # pixel by pixel: a sheet that resamples would hide noise
        light = [float(cell.mean()) for cell in shown]
        assert light == sorted(light, reverse=True)
        assert light[1] > 0.9 * light[0]
        assert light[-1] < 0.25 * light[0]


def test_the_samples_shown_spread_evenly_over_the_range() -> None:
    pixels = np.zeros((1, 1, 3), np.float32)
    drawn = [10.0, 11.0, 11.5, 12.0, 19.0, 21.0, 30.0, 30.1]
    samples = [preview.Sample(seed, value, pixels) for seed, value in enumerate(drawn)]
    assert [sample.psnr for sample in preview.spread(samples, 3)] == [30.1, 21.0, 10.0]
    assert sorted(sample.psnr for sample in preview.spread(samples, 8)) == drawn


def test_quartiles_are_told_over_enough_samples_even_for_one_photo(dusk) -> None:
    seeds = []

    def counted(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return darken(clean, generator)

    preview.preview(dusk["found"], counted, {"a": np.full((9, 9, 3), 90, np.uint8)}, 2)
    assert sorted(seeds) == list(range(preview.FEWEST))


def test_an_existing_sheet_is_replaced_only_when_that_is_asked_for(abair, dusk) -> None:
    photo("a.png")
    Path("sheet.png").write_text("mine")
    done = abair("plugin", "preview", "dusk", "a.png", "--seeds", "2")
    assert done.code == 1
    assert len(done.err) == 1
    assert "--overwrite" in done.err[0]
    assert Path("sheet.png").read_text() == "mine"
    assert abair("plugin", "preview", "dusk", "a.png", "--seeds", "2", "--overwrite").code == 0
    assert Image.open("sheet.png").width > 2 * preview.CELL[0]


def test_a_photo_that_cannot_be_read_is_one_line_and_the_others_are_shown(abair, dusk) -> None:
    photo("a.png")
    Path("b.png").write_text("no photo")
    done = abair("plugin", "preview", "dusk", "b.png", "a.png", "missing.png", "--seeds", "2")
    assert done.code == 1
    assert [line.split(":")[1].strip() for line in done.err] == ["b.png", "missing.png", "written"]
    assert Path("sheet.png").is_file()


def test_no_sheet_is_written_when_no_photo_can_be_read(abair, dusk) -> None:
    done = abair("plugin", "preview", "dusk", "missing.png")
    assert done.code == 1
    assert len(done.err) == 1
    assert not Path("sheet.png").exists()


def _raises(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    raise ZeroDivisionError("no light")


def _exits(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    sys.exit(3)


@pytest.mark.parametrize(
    ("degrade", "words"),
    [
        (_raises, "failed: ZeroDivisionError: no light"),
        (_exits, "failed: SystemExit: 3"),
        (lambda clean, generator: None, "returned NoneType"),
        (lambda clean, generator: clean[:1], "returned shape (1, 192, 256)"),
        (lambda clean, generator: clean * float("nan"), "expected finite values"),
    ],
)
def test_a_synthesiser_that_fails_is_one_line_that_names_it(abair, dusk, degrade: Any, words: str) -> None:
    photo("a.png")
    dusk["degrade"] = degrade
    done = abair("plugin", "preview", "dusk", "a.png")
    assert done.code == 1
    (line,) = done.err
    assert "plugin dusk (distribution abair-dusk): dusk:degrade" in line
    assert words in line
    assert not Path("sheet.png").exists()


def test_a_plugin_that_is_not_installed_is_one_line(abair, dusk) -> None:
    done = abair("plugin", "preview", "hail")
    assert done.code == 1
    (line,) = done.err
    assert "hail" in line
    assert "dusk" in line
