"""Keep libtiff from writing to stderr: the photo's own line says once what is wrong."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path

import PIL
from PIL import Image


@lru_cache
def silence() -> None:
    """Take away the functions of Pillow's libtiff that print errors and warnings.

    This holds for the whole process. Where libtiff is no file of its own, as on Windows, nothing
    changes.
    """
    try:
        libraries = _find_libraries()
    except OSError:  # no /proc
        return
    for library in libraries:
        try:
            loaded = ctypes.CDLL(library)  # the one that Pillow has loaded, not another copy
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                set_handler = getattr(loaded, name)
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)
        except (OSError, AttributeError):
            continue


def _find_libraries() -> set[str]:
    Image.preinit()
    if sys.platform == "linux":
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        return {line.split(maxsplit=5)[5] for line in lines if "libtiff" in line}
    package = Path(PIL.__file__).parent
    return {str(path) for path in (package / ".dylibs").glob("libtiff*")}
