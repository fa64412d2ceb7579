"""Serve MLflow's page on the registry's store, with one worker, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from abair.errors import RegistryError
from abair_registry.processes.guardian import guarded
from abair_registry.processes.marked import MARK, end_marked
from abair_registry.settings import Settings
from abair_registry.tracking.connection import QUIET
from abair_registry.tracking.mlflow_client import Runs
from abair_registry.tracking.training import close_trainings

STARTING: Final = 90.0
"""Seconds until the server must answer; importing MLflow takes most of them."""
ENDING: Final = 5.0
"""Seconds that the server has to end by itself."""


def serve(settings: Settings, port: int, notify: Callable[[str], None], *, browser: bool) -> None:
    """Serve until Ctrl-C or SIGTERM, which end the server, too; so does the death of this process.

    If `MLFLOW_TRACKING_URI` names a server, open that server's page instead.

    Raises:
        RegistryError: the port is taken, the store cannot be used, or the server ended by itself.
    """
    runs = Runs(settings)
    if runs.uri.startswith(("http://", "https://")):
        runs.experiment()  # raises if it cannot be reached
        notify(f"the runs are at {runs.display_uri}")
        if browser:
            webbrowser.open(runs.uri)
        return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RegistryError(f"port {port}: is taken; expected a free one; name another: --port {port + 1}")
    experiment = runs.experiment()  # creates the store if there is none
    close_trainings(runs)
    # without this parameter a browser's first session opens the page's side for language models
    url = f"http://127.0.0.1:{port}/#/experiments/{experiment}?workflowType=machine_learning"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", runs.uri, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--default-artifact-root", runs.artifacts]
    mark = secrets.token_hex(16)
    with guarded(mark):
        server = subprocess.Popen(
            command,
            env=os.environ | QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # one process group with all that it starts, which is ended as one
        )
        try:
            _wait_for(server, port)
            with suppress(KeyboardInterrupt):
                notify(f"the runs are at {url} (Ctrl-C ends it)")
                if browser:
                    webbrowser.open(url)
                code = server.wait()
                raise RegistryError(f"MLflow's server ended by itself (exit code {code}); see: python -m mlflow server")
        finally:
            _end(server, mark)


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + STARTING
    while time.monotonic() < until:
        if (code := server.poll()) is not None:
            raise RegistryError(f"MLflow's server ended at once (exit code {code}); see: python -m mlflow server")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RegistryError(f"MLflow's server did not answer on port {port} in {STARTING:.0f} s; try again")


def _end(server: subprocess.Popen[bytes], mark: str) -> None:
    """End the server and everything that it started: by asking, after some seconds by force."""
    with suppress(OSError, AttributeError):
        os.killpg(server.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(ENDING)
    end_marked(mark)
    server.wait()
