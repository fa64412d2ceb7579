"""The deployment that serves, loaded once and anew when another one goes live."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from abair.deployment import live_warning
from abair.errors import AbairError
from abair.inference.hardware import Precision
from abair.inference.restorer import Restorer
from abair.locations import FILE_NAME, live
from abair.text import describe_error, error_text

RETRY_SECONDS: Final = 5.0
"""After a deployment that could not be loaded."""


class LiveRestorer:
    """A loaded deployment, replaced as a whole when the home's `deployment.json` is another.

    What is asked for by name is loaded once. If another deployment cannot be loaded, the one that
    is loaded goes on, and `problem` says why.
    """

    def __init__(
        self,
        deployment: str | None = None,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        log: Callable[[str], object] = lambda _: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Load the deployment.

        Raises:
            AbairError: it, one of its files, or the device cannot be used.
        """
        self._named, self._device, self._precision, self._log = deployment, device, precision, log
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._tried: tuple[object, float] = (None, 0.0)
        self.problem = ""
        self._seen = self._state()
        self.restorer = self._load()

    @property
    def precision(self) -> str:
        """That of the arithmetic: `auto`, `float32` or `bfloat16`."""
        return self._precision

    @property
    def device(self) -> str:
        """The device of torch that computes."""
        return self._device

    def current(self) -> Restorer:
        """Return the restorer of what is live now; what began with another one ends with it."""
        with self._lock:
            if self._named is None and (state := self._state()) != self._seen:
                self._replace(state)
            return self.restorer

    def _replace(self, state: object) -> None:
        failed, when = self._tried
        if failed == state and time.monotonic() - when < self._retry_seconds:
            return
        before = self.restorer.deployment.name
        try:
            self.restorer = self._load()
        except Exception as error:  # whatever is wrong with the new one, the old one can serve
            problem = error_text(error) if isinstance(error, AbairError | OSError) else describe_error(error)
            if failed != state:
                self._log(f"warning: {problem}; going on with {before}")
            self.problem, self._tried = problem, (state, time.monotonic())
            return
        self._seen, self.problem, self._tried = state, "", (None, 0.0)
        self._log(f"serving {self.restorer.deployment.name} in place of {before}")
        if warning := live_warning():
            self._log(f"warning: {warning}")

    def _load(self) -> Restorer:
        return Restorer.load(self._named, device=self._device, precision=self._precision)

    def _state(self) -> object:
        """Return what changes when another deployment is published."""
        if self._named is not None:
            return None
        try:
            file = live() / FILE_NAME
            found = file.stat()
        except (OSError, AbairError):
            return None
        return str(file), found.st_ino, found.st_mtime_ns, found.st_size
