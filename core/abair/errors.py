"""Every error of ABAIR that a user can cause or meet.

Each text says what the thing is, what was found, what was expected and what to do; the command
lines print it as one line. A child also inherits the builtin a caller would catch.
"""

from __future__ import annotations


class AbairError(Exception):
    """Base of all errors that ABAIR raises on purpose."""


class ImageError(AbairError, ValueError):
    """An image file cannot be read, written, or is refused (format, size, damage)."""


class PluginError(AbairError, RuntimeError):
    """A plugin cannot be imported or does not keep the contract."""


class AdapterError(AbairError, ValueError):
    """An adapter's files are unsafe, incomplete, or made for another backbone."""


class DeploymentError(AbairError, ValueError):
    """A deployment cannot be read, or its files are not the ones it names."""


class WeightsError(AbairError, ValueError):
    """Blending weights are not finite numbers in [0, 1] over known labels."""


class TrainingError(AbairError, RuntimeError):
    """A training run cannot start or go on with the settings and data it was given."""


class ExportError(AbairError, RuntimeError):
    """A network cannot be written for other programs, or its file does not give the same images."""


class MissingExtraError(AbairError, ImportError):
    """An optional dependency is needed; the text names the pip command that brings it."""


class AdmissionError(AbairError, ValueError):
    """A plugin is not admitted to the registry: it cannot be found, or the probe refused it."""


class RegistryError(AbairError, RuntimeError):
    """The registry cannot be read or written, or what was asked does not fit the state it is in."""


class ServingError(AbairError, RuntimeError):
    """A server refuses a request or cannot begin, or a client cannot reach one.

    `status` is that of HTTP; `retry_after` is in seconds, where it makes sense to ask again.
    """

    def __init__(self, text: str, status: int = 500, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after
