"""What strangers wrote into the metadata of their packages is shown as text, and in bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.foreign_package import write_info

from abair_registry.cli import app, common

pytestmark = pytest.mark.slow

Run = Callable[..., list[str]]

ODD = {
    "escape sequences": "\x1b[2Jfrost",
    "signs from right to left": "\u202etsorf",
    "no end": 99_999 * "f",
    "several lines": "frost\x85deployment 9 is live",
}


@pytest.fixture
def run(
    environment: dict[str, str],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Calls a command that looks, with packages of `tmp_path / "site"` installed; the lines that it prints."""
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def call(*arguments: str) -> list[str]:
        code = app.run(arguments)
        said = capsys.readouterr()
        assert code == 0, said
        return (said.out + said.err).split("\n")

    return call


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_metadata_is_listed_as_text_in_bounds(run: Run, tmp_path: Path, text: str) -> None:
    write_info(tmp_path / "site", "named-1.0.dist-info", "named", f"[abair]\n{text} = frost\n".encode())
    info = write_info(tmp_path / "site", "numbered-1.0.dist-info", "numbered", b"[abair]\nnumbered = frost\n")
    (info / "METADATA").write_text(f"Name: numbered\nVersion: 1{text}\n", encoding="utf-8")
    lines = run("list")
    assert any("numbered" in line for line in lines)
    assert all(line.isprintable() and len(line) < 400 for line in lines)
    assert not any(line.startswith("deployment 9") for line in lines)
    assert all(line.isprintable() for line in run("list", "--json"))


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_flood_of_plugins_is_one_line(run: Run, tmp_path: Path) -> None:
    points = "".join(f"frost{number:04} = frost\n" for number in range(3000))
    write_info(tmp_path / "site", "flood-1.0.dist-info", "flood", f"[abair]\n{points}".encode())
    lines = run("list")
    assert sum(line.startswith("frost") for line in lines) == 20
    assert "abair-registry: note: flood has 2980 more plugins; --json lists them" in lines
    rows = [json.loads(line) for line in run("list", "--json") if line.startswith("{")]
    assert sum(row["distribution"] == "flood" for row in rows) == 3000


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_live_plugin_that_another_distribution_has_too_is_told(run: Run, tmp_path: Path) -> None:
    write_info(tmp_path / "site", "winter-1.0.dist-info", "winter", b"[abair]\nnoise = winter\n")
    (row,) = (row for row in map(json.loads, filter(None, run("list", "--json"))) if row["name"] == "noise")
    assert (row["state"], row["distribution"]) == ("live", "abair-noise")
    assert row["problem"].startswith("installed by distribution winter, too; its own gate and notice are left out")


def test_shells_complete_no_name_that_could_not_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    points = "[abair]\nzfrost = frost\nz\x1b[2J = frost\nz frost = frost\n"
    write_info(tmp_path / "site", "named-1.0.dist-info", "named", points.encode())
    assert common._names("z") == ["zfrost"]
