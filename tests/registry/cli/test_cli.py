"""`abair-registry` as an administrator meets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.registry.conftest import complaints

from abair.deployment import read_deployment
from abair_registry.cli import app, changes
from abair_registry.plugins import installed
from abair_registry.registry import open_registry
from abair_registry.settings import Settings, Thresholds

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    environment: dict[str, str], bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Calls the command in this process, with the tiny bundle as factory; (exit code, stdout, stderr)."""
    monkeypatch.setenv("ABAIR_FACTORY", str(bundle))

    def call(*arguments: str) -> tuple[int, str, str]:
        code = app.run(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_first_list_shows_what_is_live_and_what_is_available(run: Run) -> None:
    code, out, err = run("list", "--json")
    rows = {row["name"]: row for row in lines(out)}
    assert (code, err) == (0, "")
    assert list(rows) == sorted(rows)
    assert {name: row["state"] for name, row in rows.items()} == {
        "bitdepth": "available", "blur": "available", "haze": "available", "jpeg": "available", "low-light": "live",
        "noise": "live", "rain": "live", "snow": "available",
    }  # fmt: skip
    assert list(rows["rain"]) == [
        "name", "distribution", "version", "installed_version", "state", "live", "adapters", "problem",
    ]  # fmt: skip
    assert rows["rain"]["version"] == rows["rain"]["installed_version"] == "0.1.0"
    assert rows["rain"]["live"] is True
    (adapter,) = rows["rain"]["adapters"]
    assert (adapter["backbone"], len(adapter["sha256"])) == ("tiny", 64)
    assert adapter["parameters"] > 100
    assert rows["blur"]["version"] is None
    assert rows["blur"]["adapters"] == []


def test_what_people_are_told_begins_with_the_command_they_typed(run: Run) -> None:
    assert run("show", "nothing")[2].startswith("abair-registry: plugin nothing: neither recorded")
    assert run("show")[2].startswith("abair-registry: Missing argument")


def test_a_number_that_no_database_holds_is_a_deployment_that_is_not_there(run: Run) -> None:
    for command in (("promote",), ("rollback", "--to")):
        code, _, err = run(*command, "99999999999999999999999")
        assert (code, err.count("\n")) == (1, 1)
        assert "deployment 99999999999999999999999: there is none; expected 1 to 1" in err


@pytest.mark.parametrize("option", ["--reason", "--actor"])
def test_a_reason_that_no_database_holds_is_refused(run: Run, option: str) -> None:
    code, _, err = run("rollback", option, os.fsdecode(b"n\xff"))
    assert (code, err) == (1, f"abair-registry: {option}: found b'n\\xff'; expected text in UTF-8\n")


def test_a_list_that_nobody_can_see_is_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it where stdout is closed at the start
    code = app.run(("history",))
    monkeypatch.undo()
    assert code == 0


def test_what_was_removed_and_uninstalled_is_still_shown_by_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("remove", "rain", "--yes", "--force", "--reason", "smears")[0] == 0
    monkeypatch.setattr(installed, "installed_plugins", list)
    assert "rain" not in {row["name"] for row in lines(run("list", "--json")[1])}
    code, out, _ = run("show", "rain", "--json")
    assert (code, lines(out)[0]["state"]) == (0, "removed")


def test_nobody_is_asked_about_a_plugin_that_is_not_there(run: Run) -> None:
    for action in ("disable", "remove"):
        code, _, err = run(action, "nothing")  # without --yes, and there is no terminal to ask on
        assert (code, err.count("\n")) == (1, 1)
        assert "plugin nothing: never added; found low-light, noise, rain" in err


def test_people_get_tables(run: Run) -> None:
    for command in ("list", "history"):
        code, out, _ = run(command)
        assert code == 0
        assert out.splitlines()[0].split()[0] in {"name", "deployment"}
    assert "low-light" in run("list")[1]


def test_disable_goes_into_the_history_with_who_and_why(run: Run, settings: Settings) -> None:
    code, out, err = run("disable", "rain", "--actor", "ada", "--reason", "streaks stay", "--yes", "--json")
    (told,) = lines(out)
    assert (code, complaints(err)) == (
        0,
        [f"abair-registry: run {told['run_id']}, {told['seconds']:.0f} s; to look at it: abair-registry ui"],
    )
    assert (told["outcome"], told["deployment"], told["route"]) == ("live", 2, "features")
    rows = lines(run("history", "--json")[1])
    assert list(rows[0]) == [
        "deployment",
        "created",
        "actor",
        "reason",
        "labels",
        "live",
        "run_id",
        "gates",
        "went_live",
    ]
    assert (rows[0]["deployment"], rows[0]["actor"], rows[0]["reason"], rows[0]["live"]) == (
        2,
        "ada",
        "streaks stay",
        True,
    )
    assert rows[0]["labels"] == ["noise", "low-light", "clean"]
    assert read_deployment(settings.home).name == "2"
    assert [row["state"] for row in lines(run("list", "--json")[1]) if row["name"] == "rain"] == ["disabled"]


def test_history_tells_when_by_whom_and_why_each_deployment_went_live(run: Run) -> None:
    run("disable", "rain", "--review", "--actor", "ada", "--reason", "look first", "--yes")
    (row, _) = lines(run("history", "--json")[1])
    assert row["went_live"] == [], "it waits for review"
    run("promote", "--actor", "bob", "--reason", "looked at the pictures")
    run("rollback", "--actor", "eve", "--reason", "faces look waxen")
    run("promote", "2", "--actor", "bob", "--reason", "it was right")
    newest, first = lines(run("history", "--json")[1])
    told = [[(one["actor"], one["action"], one["reason"]) for one in row["went_live"]] for row in (newest, first)]
    assert told[0] == [("bob", "promote", "looked at the pictures"), ("bob", "promote", "it was right")]
    assert told[1][1:] == [("eve", "rollback", "faces look waxen")]
    assert newest["reason"] == "look first"
    _, out, _ = run("history")
    _, second = out.split("\n\n")
    assert second.split("\n")[0].split() == ["went", "live", "deployment", "by", "actor", "reason"]
    shown = [line.split(maxsplit=4)[1:] for line in second.splitlines()[1:4]]
    assert shown == [
        ["2", "promote", "bob", "it was right"],
        ["1", "rollback", "eve", "faces look waxen"],
        ["2", "promote", "bob", "looked at the pictures"],
    ]


def test_doctor_says_that_it_made_a_copied_store_the_homes_own(
    run: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("disable", "rain", "--yes")
    copy = tmp_path / "copy"
    shutil.copytree(settings.home, copy)
    monkeypatch.setenv("ABAIR_HOME", str(copy))
    code, out, _ = run("doctor", "--json")
    (told,) = lines(out)
    assert (code, told["mended"]) == (
        0,
        ["MLflow's store: it named another home's files; as it was, it is mlflow.db.before-move"],
    )
    assert lines(run("doctor", "--json")[1])[0]["mended"] == []


def test_a_wrong_number_is_named(run: Run) -> None:
    code, _, err = run("promote", "abc")
    assert (code, "Invalid value for 'number': found 'abc', expected a valid integer" in err) == (2, True), err
    code, _, err = run("rollback", "1")
    assert (code, "to go back to that deployment: abair-registry rollback --to 1" in err) == (2, True), err


@pytest.mark.parametrize("command", [("disable", "rain"), ("remove", "rain"), ("db", "downgrade", "base")])
def test_what_destroys_needs_yes_where_nobody_can_be_asked(
    run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("list")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert "--yes" in err
    assert "no terminal" in err
    assert len(lines(run("history", "--json")[1])) == 1


def test_a_question_that_is_denied_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert run("disable", "rain")[0] == 1
    assert len(lines(run("history", "--json")[1])) == 1


def test_show_tells_releases_and_events(run: Run) -> None:
    code, out, _ = run("show", "rain", "--json")
    (told,) = lines(out)
    assert code == 0
    assert [release["version"] for release in told["releases"]] == ["0.1.0"]
    assert [event["action"] for event in told["events"]] == ["record"]
    code, out, _ = run("show", "abair-rain")
    assert code == 0
    assert "abair-rain" in out


def test_an_unknown_name_is_one_line_with_near_misses(run: Run) -> None:
    for command in (("show", "rian"), ("disable", "rian", "--yes")):
        code, out, err = run(*command)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert "did you mean rain" in err


def test_verify_and_doctor_find_and_mend(run: Run, settings: Settings) -> None:
    assert run("verify") == (0, "9 files, all as recorded\n", "")
    assert run("doctor")[0] == 0  # which begins the registry
    assert run("verify") == (0, "9 files, all as recorded\n", "")
    (settings.home / "deployment.json").write_text("{}")
    assert run("doctor")[0] == 0  # every command writes the file anew
    assert read_deployment(settings.home).name == "1"
    blob = next((settings.home / "blobs").glob("??/*"))
    blob.chmod(0o644)
    blob.write_bytes(b"changed")
    code, _, err = run("verify")
    assert code == 1
    assert "was changed: found SHA-256" in err


def test_the_schemas_commands(run: Run, settings: Settings) -> None:
    assert run("db", "current")[1] == "found none, this program's is 0002\n"
    assert run("db", "upgrade")[1] == "the schema's revision is 0002\n"
    assert run("db", "check")[1] == "revision 0002, all tables as expected\n"
    code, _, err = run("db", "upgrade", "0001")
    assert code == 1
    assert "found 0002, expected a newer one; for this one run: abair-registry db downgrade 0001" in err
    assert not list(settings.home.glob("**/*.backup"))
    code, out, _ = run("db", "downgrade", "base", "--yes")
    assert (code, out) == (0, "the schema's revision is none\n")
    code, _, err = run("db", "downgrade", "0001", "--yes")
    assert code == 1
    assert "found none, expected an older one; for this one run: abair-registry db upgrade 0001" in err
    assert run("db", "upgrade", "77")[0] == 1


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_factory_that_is_no_bundle_leaves_no_registry_behind(
    run: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABAIR_FACTORY", str(tmp_path))
    code, out, err = run("list")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "ABAIR_FACTORY: found " in err
    assert not (settings.home / "registry.db").exists()


def test_the_help_of_gate_names_every_threshold() -> None:
    (option,) = changes.Gate.__metadata__
    assert [name for name in Thresholds.model_fields if name not in option.help] == []


def test_another_schema_stops_every_command_with_what_to_do(run: Run, settings: Settings) -> None:
    run("list")
    with open_registry(settings) as registry, registry.database.write() as session:
        session.execute(text("UPDATE abair_alembic_version SET version_num = '9999'"))
    for command in (("list",), ("history",), ("show", "rain"), ("verify",), ("doctor",), ("disable", "rain", "--yes")):
        code, out, err = run(*command)
        assert (code, out) == (1, ""), command
        assert "found schema revision 9999, expected 0002" in err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url at all", "found something that is no URL (not shown: it may hold a password)"),
        ("mysql://u:secret@h/d", "found mysql://u:***@h/d; expected postgresql://"),
        ("postgresql://u:secret@127.0.0.1:1/d", "postgresql+psycopg://u:***@127.0.0.1:1/d: cannot be used"),
        ("mysql://h/d?password=secret", "found mysql://h/d?password=***; expected postgresql://"),
        ("postgresql://u@127.0.0.1:1/d?password=secret", "u@127.0.0.1:1/d?password=***: cannot be used"),
        ("sqlite:////no/such/folder/registry.db", "/no/such/folder is no folder"),
    ],
)
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_database_that_cannot_be_used_is_one_line_without_the_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setenv("ABAIR_REGISTRY_URL", url)
    code, out, err = run("list")
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert "secret" not in err


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_setting_that_cannot_be_and_a_file_that_is_no_database_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("ABAIR_GATES__LOSS", "abc")
        code, out, err = run("list")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "ABAIR_GATES__LOSS: found 'abc', expected a valid number; correct or unset it" in err
    with monkeypatch.context() as patched:
        patched.setenv("ABAIR_CHALLENGER__STEPS", "3")
        assert "ABAIR_CHALLENGER__STEPS: found '3'; there is no such setting; correct or unset it" in run("list")[2]
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "registry.db").write_text("no database, whatever it is called")
    code, out, err = run("list")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "is damaged (file is not a database); nothing was changed; there is no backup" in err


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_home_that_is_no_folder_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path / "file"))
    code, _, err = run("list")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "set ABAIR_HOME to one" in err


LIST = """
import sys
from abair_registry.cli.app import run
code = run(["list", "--json"])
heavy = sorted({"torch", "mlflow", "alembic", "numpy", "peft"} & set(sys.modules))
print(heavy, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_list_imports_nothing_heavy_and_no_plugin(run: Run, environment: dict[str, str], tmp_path: Path) -> None:
    run("list")
    info = tmp_path / "site" / "evil-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[abair]\nevil = evil\n")
    (tmp_path / "site" / "evil.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch(); 1 / 0")
    done = subprocess.run(
        [sys.executable, "-c", LIST],
        env=environment | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert {row["name"]: row["state"] for row in lines(done.stdout)}["evil"] == "available"
    assert not (tmp_path / "site" / "ran").exists()


MISTYPED = """
import sys
from abair_registry.cli.app import run
codes = [run([command, "nosie"]) for command in ("add", "disable", "enable")]
print(codes, sorted({"torch", "mlflow", "numpy", "peft"} & set(sys.modules)))
"""


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_mistyped_name_is_told_before_anything_heavy_is_imported(run: Run, environment: dict[str, str]) -> None:
    run("doctor")  # which begins the registry
    done = subprocess.run(
        [sys.executable, "-c", MISTYPED], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "[1, 1, 1] []\n"
    assert done.stderr.count("did you mean noise") == 3


def test_help_has_an_example_for_every_command(run: Run) -> None:
    commands = ["add", "list", "show", "disable", "enable", "remove", "history", "verify", "doctor", "pull", "push"]
    for command in commands:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"Example: abair-registry {command}" in " ".join(out.split())
    for command in ("upgrade", "downgrade", "current", "check"):
        assert f"Example: abair-registry db {command}" in " ".join(run("db", command, "--help")[1].split())
