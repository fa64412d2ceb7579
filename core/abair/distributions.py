"""Read the metadata of all installed distributions, however damaged that of one of them is.

`importlib.metadata.entry_points` ends at the first `entry_points.txt` that cannot be parsed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import Distribution, EntryPoints, distributions
from pathlib import Path, PurePath
from typing import Final

_VALID_NAME: Final = re.compile(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", re.ASCII | re.IGNORECASE)


def installed_distributions() -> Iterator[tuple[str, Distribution]]:
    """Yield the installed distributions with their normalised names.

    As pip does, it takes a name from the metadata's folder and leaves out invalid ones. An
    interrupted pip leaves `~name-1.0.dist-info` behind. Of several distributions with one name it
    yields the first on the path, which is the one that Python imports.
    """
    seen = set()
    for distribution in distributions():
        name = _folder_name(distribution)
        if name and name not in seen:
            seen.add(name)
            yield name, distribution


def read_entry_points(distribution: Distribution) -> EntryPoints:
    """Return the entry points of one distribution.

    Raises:
        Exception: its `entry_points.txt` cannot be opened, decoded or parsed; Python's own errors
            differ between versions.
    """
    points = distribution.entry_points
    folder = _folder(distribution)
    if not points and isinstance(folder, Path):
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / "entry_points.txt").read_bytes()  # Python takes a file that it may not open for a missing one
    return points


def read_record(distribution: Distribution) -> str:
    """Return the RECORD of one distribution; empty if it has none.

    Raises:
        Exception: it cannot be opened or decoded.
    """
    text, folder = distribution.read_text("RECORD"), _folder(distribution)
    if text is None and isinstance(folder, Path):
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / "RECORD").read_bytes()  # Python takes a file that it may not open for a missing one
    return text or ""


def normalise_name(name: str) -> str:
    """Return a distribution's name in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def metadata_text(distribution: Distribution | None, key: str) -> str:
    """Return a field of a distribution's metadata; empty where it is missing or damaged."""
    with suppress(Exception):
        return str(distribution.metadata[key] or "") if distribution is not None else ""
    return ""


def may_be_read(distribution: Distribution) -> bool:
    """Return whether this user may read the metadata of a distribution, or there are none."""
    folder = _folder(distribution)
    path = None if folder is None else Path(folder) / "METADATA"
    return path is None or not path.exists() or os.access(path, os.R_OK)


def _folder(distribution: Distribution) -> PurePath | None:
    """Return the folder of the metadata, by the attribute that pip uses, too."""
    return getattr(distribution, "_path", None)


def _folder_name(distribution: Distribution) -> str:
    """Return the normalised name of a distribution; empty where there is no valid one."""
    stem, _, suffix = getattr(_folder(distribution), "name", "").rpartition(".")
    named = suffix in {"dist-info", "egg-info"}
    name = stem.partition("-")[0] if named else metadata_text(distribution, "Name")
    return normalise_name(name) if _VALID_NAME.fullmatch(name) else ""
