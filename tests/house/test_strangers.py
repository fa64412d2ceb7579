"""`benchmarks/strangers/run.py`: a package that is complete, a page that says what was found, one whole way."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from tests.conftest import pictures
from tests.support.few_samples import FEW_SAMPLES

from abair.plugin_kit.naming import derive_names
from abair.plugin_kit.placeholders import find_placeholders
from abair.plugin_kit.scaffold import Licence, make_package

STRANGERS = Path(__file__).parents[2] / "benchmarks" / "strangers"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("strangers_run", STRANGERS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def added(outcome: str, clean: str, **gates: float) -> dict[str, Any]:
    told = [{"name": name, "passed": False, "measured": value, "threshold": 0.1} for name, value in gates.items()]
    return {"clean": clean, "outcome": outcome, "route": "features", "gates": told, "said": "", "cpu_seconds": 80.4}


def result(name: str, expected: str, *additions: dict[str, Any], figures: dict[str, Any] | None = None) -> Any:
    return {
        "name": name, "expected": expected, "training": {"minutes": 5.6, "steps": 1000}, "additions": list(additions),
        "figures": figures,
    }  # fmt: skip


def test_the_page_counts_verdicts_and_shows_figures_and_reasons(program: ModuleType) -> None:
    figures = {
        "photos": 24, "recognised": 22, "taken for": {"noise": 2}, "damaged": 21.5, "before": 21.0, "after": 30.25,
        "own adapter": 30.5, "losses": {"noise": 0.0, "haze": 0.04}, "backbone": "tiny",
    }  # fmt: skip
    page = program.page([
        result("impulse", "live", added("live", "one"), added("live", "two"), figures=figures),
        result("moire", "live", added("live", "one"), added("rejected", "two", **{"haze: loss": 0.42})),
        result("useless", "refused", added("rejected", "one", recall=0.1), added("failed", "two")),
    ])  # fmt: skip
    assert "Of 2 good ones go live: 2 with one, 1 with two." in page
    assert "Of 1 bad ones are refused: 1 with one, 0 with two." in page  # one failed otherwise
    assert "--clean path/to/one --clean path/to/two\n" in page
    assert "The verdicts of 1 of 3 agree" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| impulse")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "impulse", "good", "live (one); live (two)", "22 of 24", "21.50", "21.00", "30.25", "30.50", "0.04 (haze)",
        "6", "80, 80",
    ]  # fmt: skip
    assert "- moire (two): haze: loss 0.42 (threshold 0.1)" in page
    assert "- useless (two): no reason was told" in page


def test_the_package_of_a_stranger_has_its_damage_and_nothing_left_to_fill_in(
    program: ModuleType, tmp_path: Path
) -> None:
    package = make_package(derive_names("impulse"), tmp_path, licence=Licence.apache, author="A stranger").folder
    damage = (STRANGERS / "damage" / "impulse.py").read_text(encoding="utf-8")
    program.complete(package, damage)
    module = package / "src" / "abair_impulse"
    assert (module / "synthesis.py").read_text(encoding="utf-8") == damage
    for path in (package / "README.md", module / "__init__.py"):
        assert find_placeholders(path.read_text(encoding="utf-8")) == []
    compile((module / "__init__.py").read_text(encoding="utf-8"), "__init__.py", "exec")


def test_every_stranger_that_is_to_be_refused_is_there(program: ModuleType) -> None:
    assert len(list((STRANGERS / "damage").glob("*.py"))) >= 12
    assert all((STRANGERS / "damage" / f"{name}.py").is_file() for name in program.BAD)


@pytest.mark.exhaustive
@pytest.mark.rare
def test_a_stranger_goes_the_whole_way_and_is_not_done_again(bundle: Path, tmp_path: Path) -> None:
    for place, picture in enumerate(pictures(range(20, 32)).photos):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{place:02}.png")
    command = [
        sys.executable, str(STRANGERS / "run.py"), "--data", str(tmp_path / "photos"), "--clean",
        str(tmp_path / "photos"), "--minutes", "0.05", "--only", "colour_cast", "--photos", "2", "--old-photos", "1",
        "--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md"),
    ]  # fmt: skip
    environment = os.environ | FEW_SAMPLES | {"ABAIR_FACTORY": str(bundle), "OMP_NUM_THREADS": "1"}
    for turn in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert ("colour_cast: " in done.stderr) == (turn == 0)
    found = json.loads((tmp_path / "out" / "colour_cast" / "result.json").read_text(encoding="utf-8"))
    (addition,) = found["additions"]
    assert addition["outcome"] in {"live", "rejected"}
    assert addition["cpu_seconds"] > 0
    assert "| colour-cast" in (tmp_path / "page.md").read_text(encoding="utf-8")
