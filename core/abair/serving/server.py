"""Listen: a socket, uvicorn, and an orderly end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection

import torch
import uvicorn

from abair.errors import ServingError
from abair.inference.memory import set_up_memory
from abair.serving.app import create_app
from abair.serving.guard import expected_names
from abair.serving.live import LiveRestorer
from abair.serving.options import Limits


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a host's port; 0 is a free one.

    Raises:
        ServingError: there is no such host, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise ServingError(
            f"{host}:{port}: cannot be listened on ({reason}), expected an address of this machine and a free port; "
            "choose another --port, or 0 for any"
        ) from None


def serve(
    live: LiveRestorer,
    limits: Limits,
    listener: socket.socket,
    *,
    token: str | None,
    allowed: Collection[str],
    grace: int,
    log: Callable[[str], object],
    log_error: Callable[[Exception], object],
) -> None:
    """Answer requests until a signal; then finish what is under way within `grace` seconds.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM was received, and all is in order.
    """
    set_up_memory()
    if limits.workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // limits.workers))
    host, port = listener.getsockname()[:2]
    names = expected_names(host, allowed)
    app = create_app(live, limits, token=token, names=names, log_error=log_error)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        timeout_graceful_shutdown=grace,
        timeout_keep_alive=15,
    )
    shown = f"[{host}]" if ":" in host else host
    log(f"serving {live.restorer.deployment.name} on http://{shown}:{port}; Ctrl-C ends it")
    with listener:
        uvicorn.Server(config).run([listener])
