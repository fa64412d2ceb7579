"""Fixtures for the server: one in this process, and one that listens."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("python_multipart", reason="python-multipart is missing; pip install 'abair[serve]'")
pytest.importorskip("prometheus_client", reason="prometheus-client is missing; pip install 'abair[serve]'")
pytest.importorskip("httpx", reason="httpx is missing; pip install 'abair[serve]'")

import uvicorn
from starlette.testclient import TestClient

from abair.serving.app import create_app
from abair.serving.guard import expected_names
from abair.serving.live import LiveRestorer
from abair.serving.options import Limits
from abair.serving.server import listen


def photo_bytes(seed: int = 0, size: tuple[int, int] = (64, 48), kind: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def live(bundle: Path) -> LiveRestorer:
    """The tiny bundle, loaded."""
    return LiveRestorer(str(bundle))


@pytest.fixture
def server(live: LiveRestorer) -> Iterator[TestClient]:
    """A client of a server in this process, without a token."""
    with TestClient(create_app(live, Limits()), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def listening(live: LiveRestorer) -> Iterator[Callable[..., str]]:
    """Starts servers with limits and options of `create_app`, each in a thread; gives their addresses."""
    begun: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(limits: Limits | None = None, *, served: LiveRestorer | None = None, **options: Any) -> str:
        app = create_app(served or live, limits or Limits(), names=expected_names("127.0.0.1", ()), **options)
        listener = listen("127.0.0.1", 0)
        made = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="critical"))
        thread = threading.Thread(target=made.run, args=([listener],))
        thread.start()
        begun.append((made, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for made, thread in begun:
        made.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
