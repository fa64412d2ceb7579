"""Keep libraries from loading what other packages offer them as entry points.

Libraries load plugins of their own from entry points, so every installed package could run code
where photos are restored. pydantic, PyTorch and scikit-image have a variable that switches this
off. MLflow, Alembic, fsspec, OpenTelemetry and NetworkX have none. They ask
`importlib.metadata.entry_points`, which therefore answers here with the library's own entry points
only. A distribution whose list cannot be read is left out, where Python would raise an error.

A user turns a library's plugins on by that library's variable, or by naming the distributions in
`ABAIR_LIBRARY_PLUGINS`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import Any, Final

from abair.distributions import installed_distributions, normalise_name, read_entry_points

SWITCHES: Final = {
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    "SKIMAGE_NO_DISPATCHING": "1",
}
"""The variables that keep libraries from loading plugins, and the values that do."""
ALLOWED: Final = "ABAIR_LIBRARY_PLUGINS"
"""The variable with the distributions, separated by commas, that libraries may load plugins of."""
_ASKED: Final = {
    "alembic.": {"alembic"},
    "fsspec.": {"fsspec"},
    "mlflow.": {"mlflow", "mlflow-skinny", "mlflow-tracing"},
    "networkx.": {"networkx"},
    "opentelemetry_": {"opentelemetry-api", "opentelemetry-sdk"},
    "torch_dynamo_": {"torch"},
    "torchrun.": {"torch"},
}
"""How the groups begin that libraries without a switch ask for, and these libraries."""
_FURTHER: Final = ("matplotlib.", "skimage_", "sqlalchemy.")
"""How further groups begin: of a library with a switch, or loaded only if something names them."""


def run_here(group: str) -> bool:
    """Return whether ABAIR or a library may load a group's entry points in a process of ABAIR.

    The group `abair`, from which only plugins' own processes and training load, is none of these.
    """
    return group in {"pydantic", "torch.backends"} or group.startswith(("abair.", *_ASKED, *_FURTHER))


class _State:
    """How many callers keep foreign entry points out at the moment, and what was there before."""

    lock = threading.Lock()
    depth = 0
    switched: tuple[str, ...] = ()
    real: Callable[..., Any] = metadata.entry_points


def keep_foreign_out() -> None:
    """Keep foreign entry points out of this process for good: for programs, not for libraries.

    Variables that are set keep their values. Processes that are started later inherit them.
    """
    with _State.lock:
        _State.depth += 1
        if _State.depth == 1:
            _State.switched = tuple(name for name in SWITCHES if name not in os.environ)
            os.environ |= {name: SWITCHES[name] for name in _State.switched}
            _State.real = metadata.entry_points
            metadata.entry_points = _own_entry_points


@contextmanager
def foreign_kept_out() -> Iterator[None]:
    """Keep foreign entry points out for a while, such as that of an import.

    Afterwards everything is as it was: a program that imports ABAIR decides on its own libraries.
    """
    keep_foreign_out()
    try:
        yield
    finally:
        with _State.lock:
            _State.depth -= 1
            if _State.depth == 0:
                for name in _State.switched:
                    os.environ.pop(name, None)
                metadata.entry_points = _State.real


def _own_entry_points(**params: Any) -> Any:  # noqa: ANN401 - in Python 3.11 the type depends on `params`
    """Answer as `importlib.metadata.entry_points`, without foreign entry points of libraries."""
    if _State.depth == 0:  # a module that was imported meanwhile has kept this function
        return _State.real(**params)
    allowed = {normalise_name(name.strip()) for name in os.environ.get(ALLOWED, "").split(",")}
    points: list[metadata.EntryPoint] = []
    for name, distribution in installed_distributions():
        with suppress(Exception):
            own = read_entry_points(distribution)
            points += own if name in allowed else [point for point in own if _belongs(point.group, name)]
    groups: Any = getattr(metadata, "SelectableGroups", None)  # of Python 3.11
    return (groups.load(points) if groups else metadata.EntryPoints(points)).select(**params)


def _belongs(group: str, distribution: str) -> bool:
    """Return whether a library that asks for a group gets the entry points of a distribution."""
    return all(distribution in libraries for start, libraries in _ASKED.items() if group.startswith(start))
