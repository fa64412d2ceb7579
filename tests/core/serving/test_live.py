"""Many clients, other deployments, and the end of a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.core.serving.conftest import photo_bytes

from abair import images
from abair.client import Client
from abair.deployment import read_deployment, write_deployment
from abair.errors import ImageError, ServingError, WeightsError
from abair.serving.guard import expected_names
from abair.serving.live import LiveRestorer
from abair.serving.options import Limits


def publish(bundle: Path, home: Path, name: str) -> None:
    """Put the bundle into a home under another name, as the registry does: its manifest last."""
    for file in bundle.rglob("*"):
        if file.is_file() and file.name != "deployment.json":
            (home / file.relative_to(bundle)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, home / file.relative_to(bundle))
    deployment = read_deployment(bundle).model_copy(update={"name": name})
    write_deployment(deployment, home)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()


def served(url: str) -> str:
    """The deployment that restores a photo."""
    return httpx.post(f"{url}/v1/restore", content=photo_bytes(), timeout=30).headers["ABAIR-Deployment"]


class Gate:
    """Holds readers of photos until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.entered = threading.Event(), threading.Semaphore(0)
        self.count = 0
        read = images.read

        def wait(*given: Any, **options: Any) -> Any:
            self.count += 1
            self.entered.release()
            assert self.opened.wait(20)
            return read(*given, **options)

        monkeypatch.setattr(images, "read", wait)


def test_the_client_restores_estimates_and_raises_the_command_s_errors(
    listening: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(photo_bytes())
    with Client(listening()) as client:
        restored = client.restore(tmp_path / "a.png", weights={"noise": 0.5}, format="webp")
        assert (restored.deployment, restored.media_type, restored.policy) == ("tiny-bundle", "image/webp", "given")
        restored.save(tmp_path / "b.webp")
        assert images.read(tmp_path / "b.webp").pixels.shape == (48, 64, 3)
        assert sum(client.estimate(photo_bytes()).weights.values()) == pytest.approx(1, abs=1e-4)
        assert client.deployment().labels == ("noise", "rain", "low-light", "clean")
        with pytest.raises(ImageError, match=r"^photo: found text, expected"):
            client.restore(b"no photo")
        with pytest.raises(WeightsError, match="unknown label fog"):
            client.restore(photo_bytes(), weights={"fog": 1.0})
    with Client("http://127.0.0.1:9", patience=0) as client, pytest.raises(ServingError, match="cannot be reached"):
        client.deployment()


def test_who_comes_when_the_queue_is_full_is_told_when_to_come_again(
    listening: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    url = listening(Limits(queue=1))
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(httpx.post, f"{url}/v1/estimate", content=photo_bytes(), timeout=30) for _ in range(2)]
        assert gate.entered.acquire(timeout=10)
        while httpx.get(f"{url}/readyz").status_code == 200:
            time.sleep(0.02)
        refused = httpx.post(f"{url}/v1/estimate", content=photo_bytes())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert "found 2 requests under way, expected at most 2" in refused.json()["detail"]
        gate.opened.set()
        assert [done.result().status_code for done in first] == [200, 200]
        # a client that waits gets its turn
        with Client(url) as client:
            assert client.estimate(photo_bytes()).deployment == "tiny-bundle"


def test_work_that_nobody_waits_for_is_not_begun(
    listening: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    url = listening()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{url}/v1/estimate", content=photo_bytes(), timeout=30)
        assert gate.entered.acquire(timeout=10)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/estimate", content=photo_bytes(), timeout=0.3)
        time.sleep(0.6)  # the server looks five times a second
        gate.opened.set()
        assert first.result().status_code == 200
    assert httpx.post(f"{url}/v1/estimate", content=photo_bytes(), timeout=30).status_code == 200
    assert gate.count == 2


def test_a_promoted_deployment_serves_and_no_request_is_lost(
    bundle: Path, listening: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    publish(bundle, home, "first")
    monkeypatch.setenv("ABAIR_HOME", str(home))
    said: list[str] = []
    url = listening(served=LiveRestorer(log=said.append))
    names: list[str] = []
    end = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not end.is_set():
                answer = client.post(f"{url}/v1/restore", content=photo_bytes(), timeout=30)
                assert answer.status_code == 200
                names.append(answer.headers["ABAIR-Deployment"])

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        while len(names) < 4:
            time.sleep(0.01)
        publish(bundle, home, "second")
        assert (
            httpx.post(f"{url}/v1/restore", content=photo_bytes(), timeout=30).headers["ABAIR-Deployment"] == "second"
        )
        (home / "deployment.json").write_text("broken")
        assert (
            httpx.post(f"{url}/v1/restore", content=photo_bytes(), timeout=30).headers["ABAIR-Deployment"] == "second"
        )
        assert "deployment.json: not a deployment" in httpx.get(f"{url}/v1/deployment").json()["problem"]
        publish(bundle, home, "third")
        assert served(url) == "third"
        end.set()
        for one in asking:
            one.result()
    assert names[0] == "first"
    assert set(names) <= {"first", "second", "third"}
    assert "serving second in place of first" in said
    assert sum("going on with second" in text for text in said) == 1


@pytest.mark.parametrize("error", [RuntimeError("not enough memory"), KeyError("size"), OSError("no such file")])
def test_whatever_is_wrong_with_a_new_deployment_the_old_one_goes_on(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    publish(bundle, tmp_path, "first")
    monkeypatch.setenv("ABAIR_HOME", str(tmp_path))
    said: list[str] = []
    live = LiveRestorer(log=said.append, retry_seconds=0.0)
    with monkeypatch.context() as broken:
        broken.setattr("abair.serving.live.Restorer.load", fail)
        publish(bundle, tmp_path, "second")
        assert live.current().deployment.name == "first"
    assert str(error) in live.problem
    assert said == [f"warning: {live.problem}; going on with first"]
    assert live.current().deployment.name == "second"
    assert live.problem == ""


def slowly(parts: list[bytes], seconds: float) -> Iterator[bytes]:
    for part in parts:
        yield part
        time.sleep(seconds)


def test_a_request_that_stops_arriving_is_given_up_and_a_slow_one_is_not(listening: Callable[..., str]) -> None:
    url, photo = listening(Limits(upload_seconds=1.0, slowest_upload=100.0)), photo_bytes()
    parts = [photo[at : at + 2000] for at in range(0, len(photo), 2000)]
    assert len(parts) > 3
    answer = httpx.post(f"{url}/v1/estimate", content=slowly(parts, 0.5), timeout=30)
    assert answer.status_code == 200, answer.text
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as silent:
        silent.sendall(f"POST /v1/estimate HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n".encode())
        answered = silent.recv(4096)
        while b"}" not in answered and (more := silent.recv(4096)):
            answered += more
    assert answered.startswith(b"HTTP/1.1 408")
    assert b"did not arrive in time, expected it within 1 seconds or at 0.1 kB a second" in answered
    assert "abair_queue_waiting 0.0" in httpx.get(f"{url}/metrics").text


def test_a_connection_goes_on_after_head(listening: Callable[..., str]) -> None:
    with httpx.Client(base_url=listening()) as client:
        for _ in range(2):
            assert client.head("/healthz").status_code == 200
            assert client.get("/healthz").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("host", "allowed", "names"),
    [
        ("0.0.0.0", (), set()),  # any name
        ("0.0.0.0", ("Photos.example",), {"photos.example", "localhost", "127.0.0.1", "::1"}),
        ("127.0.0.1", (), {"localhost", "127.0.0.1", "::1"}),
    ],
)
def test_a_server_with_a_name_still_answers_this_machine(host: str, allowed: tuple[str, ...], names: set[str]) -> None:
    assert expected_names(host, allowed) == names


@pytest.mark.slow
def test_a_server_that_is_told_to_end_finishes_what_is_under_way(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "abair", "serve", "--port", "0", "--deployment", str(bundle)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process, ended(process):
        line = process.stderr.readline()
        url = line.split(" on ")[1].split(";")[0]
        with ThreadPoolExecutor(1) as pool:
            photo = photo_bytes(size=(160, 160))
            under_way = pool.submit(httpx.post, f"{url}/v1/restore?quality=best", content=photo, timeout=60)
            while "abair_queue_running 1.0" not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert under_way.result().status_code == 200
        assert process.wait(30) == 143
        assert "stopped by SIGTERM" in process.stderr.read()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_a_port_that_is_taken_is_one_line(
    listening: Callable[..., str], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from abair.cli.app import run

    port = listening().rpartition(":")[2]
    assert run(["serve", "--port", port, "--deployment", str(bundle)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"127.0.0.1:{port}: cannot be listened on (Address already in use), expected" in said[0]


def test_a_token_that_is_too_short_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from abair.cli.app import run

    (tmp_path / "token").write_text("short\n")
    assert run(["serve", "--port", "0", "--token-file", str(tmp_path / "token")]) == 1
    assert "token: found a token of 5 characters, expected at least 16" in capsys.readouterr().err
