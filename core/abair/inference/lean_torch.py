"""Import torch without what only its compiler and exporter need: a third of the time it takes.

`import torch` runs modules that restoring never uses. Here a few of them are put off until
something is asked of them, or until torch's compiler is imported. This is for programs that restore
and then end. What is put off runs in another order than usual, so only versions of torch that were
tested are imported so; others as usual.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final, Literal

TESTED: Final = frozenset({"2.13"})
"""Versions of torch, major and minor, whose modules may be put off."""
PUT_OFF: Final = (
    "torch.distributions",
    "torch.quantization",
    "torch.masked",
    "torch.export",
    "torch._meta_registrations",
)
"""Modules that nothing else of `import torch` asks for anything, in the order of running them."""
NEEDS_ALL: Final = frozenset({"torch._decomp", "torch._dynamo", "torch._export", "torch._inductor", "torch._prims"})
"""Parts of the compiler, which expect that all of torch was imported before them."""
_LOADING: Final = threading.RLock()


def import_torch() -> None:
    """Import torch, with the modules `PUT_OFF` put off; do nothing if it is imported already.

    Raises:
        ImportError: torch is not installed, or cannot be imported.
    """
    if "torch" not in sys.modules and _version() in TESTED:
        sys.meta_path.insert(0, _Finder())
    import_module("torch")


def _version() -> str:
    """Return the major and minor version of the torch that is installed, or nothing."""
    try:
        return ".".join(metadata.version("torch").split(".")[:2])
    except metadata.PackageNotFoundError:
        return ""


class _Finder(MetaPathFinder):
    """Finds the modules that are put off as Python does, with a loader that does not run them.

    When a module of `NEEDS_ALL` is looked for, those that were put off run first.
    """

    _woken = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in NEEDS_ALL and not self._woken:
            self._woken = True
            for module in map(sys.modules.get, PUT_OFF):
                if module is not None and isinstance(module.__loader__, _Loader):
                    module.__loader__.run(module)
        spec = PathFinder.find_spec(fullname, path, target) if fullname in PUT_OFF and not self._woken else None
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Makes a module that runs its source when something is asked of it."""

    state: Literal["waits", "runs", "done"] = "waits"

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing yet."""

    def run(self, module: ModuleType) -> None:
        """Run the module, unless it was or is being run; it is a usual one then."""
        with _LOADING:
            if self.state == "waits":
                self.state = "runs"
                super().exec_module(module)
                module.__class__ = ModuleType
                self.state = "done"


class _Module(ModuleType):
    """A module that has not run yet."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as of any module
        """Run the module and return its attribute.

        What Python has set without running it, such as its file, is no reason to run it.

        Raises:
            AttributeError: it has none of this name.
        """
        loader = self.__dict__.get("__loader__")
        with _LOADING:  # which waits for another thread that runs it
            if not isinstance(loader, _Loader) or name.startswith("__") or loader.state == "runs":
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
            loader.run(self)
        return getattr(self, name)
