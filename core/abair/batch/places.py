"""Where photos lie: paths of this machine, and URLs, which fsspec reads and writes."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from abair.errors import ImageError

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
WHOLE_OBJECTS: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Protocols whose files appear complete or not at all; a rename would be a second copy."""


def is_url(place: str) -> bool:
    """Return whether a place is a URL and no path; `C:/photos` is a path."""
    return _URL.match(place) is not None


def as_path(place: str) -> str:
    """Return the path of a `file://` URL, and any other place as it is."""
    return unquote(urlsplit(place).path) if place.lower().startswith("file://") else place


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path there.

    Raises:
        ImageError: fsspec or what it needs for this protocol is missing, or the URL is wrong.
    """
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(url)
    except ImportError as error:
        raise ImageError(f"{url}: cannot be opened ({error}); install what it names") from error
    except Exception as error:  # each protocol raises its own
        raise ImageError(f"{url}: cannot be opened ({_first_line(error)}); expected a URL that fsspec knows") from error
    return system, str(path)


def find_photos(url: str, *, recursive: bool) -> Iterator[tuple[str, str]]:
    """Yield each photo's URL and its path below `url`, sorted by that path.

    A URL of a file gives this file alone, whatever its suffix. In folders only names with a photo's
    suffix count, and hidden files and folders are passed over. Ray's own reader leaves some formats
    out (findings/ray_data_deadly_row.sh).

    Raises:
        ImageError: the URL cannot be listed, or nothing is there.
    """
    from abair.images import OUTPUT_SUFFIXES, SUFFIXES

    system, root = file_system(url)
    try:
        if not system.isdir(root):
            if not system.exists(root):
                raise ImageError(f"{url}: found no such file, expected a photo or a folder; check the URL")
            yield url, PurePosixPath(root).name
            return
        found = system.find(root, maxdepth=None if recursive else 1)
    except ImageError:
        raise
    except Exception as error:  # each protocol raises its own
        raise ImageError(f"{url}: cannot be listed ({_first_line(error)}); check the URL and your rights") from error
    below = sorted(os.path.relpath("/" + path.strip("/"), "/" + root.strip("/")) for path in found)
    for relative in map(PurePosixPath, below):
        hidden = any(part.startswith(".") for part in relative.parts)
        if not hidden and (relative.suffix.lower() in SUFFIXES or relative.suffix.lower() in OUTPUT_SUFFIXES):
            yield join(url, str(relative)), str(relative)


def join(place: str, relative: str) -> str:
    """Return the place below a folder, which may be a URL."""
    return f"{place.rstrip('/')}/{relative}" if is_url(place) else str(Path(place, relative))


def make_folder(folder: Path) -> None:
    """Make a folder of this machine, with those above it, unless it is there.

    Raises:
        ImageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"{folder}: the folder cannot be made ({error.strerror or error}), expected a name that is free in a "
            "writable folder; choose another -o"
        ) from None


def exists(place: str) -> bool:
    """Return whether something is at a path or a URL."""
    if not is_url(place):
        return os.path.lexists(place)
    system, path = file_system(place)
    return bool(system.exists(path))


def is_done(source: str, target: str) -> bool:
    """Return whether an output, which exists, is not older than its photo.

    Where times are unknown, an output that exists is done.
    """
    made, written = _modified(source), _modified(target)
    return made is None or written is None or written >= made


def fetch(url: str, folder: Path) -> Path:
    """Copy the file of a URL into a folder of this machine; it keeps its name.

    Raises:
        ImageError: it cannot be read.
    """
    system, path = file_system(url)
    local = folder / PurePosixPath(path).name
    try:
        system.get_file(path, str(local))
    except FileNotFoundError:
        raise ImageError(f"{url}: found no such file, expected a photo; check the URL") from None
    except Exception as error:  # each protocol raises its own
        raise ImageError(f"{url}: cannot be read ({_first_line(error)}); check your rights and the network") from error
    return local


def put(local: Path, url: str) -> None:
    """Copy a file to a URL, which at every moment holds the whole file or what it held before.

    Raises:
        ImageError: it cannot be written; nothing is left behind then.
    """
    system, path = file_system(url)
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    target = PurePosixPath(path)
    aside = path if protocols & WHOLE_OBJECTS else str(target.with_name(f".abair-{secrets.token_hex(8)}"))
    try:
        if aside != path:
            system.makedirs(str(target.parent), exist_ok=True)
        system.put_file(str(local), aside)
        if aside != path:
            system.mv(aside, path)
    except Exception as error:  # each protocol raises its own
        if aside != path:
            with suppress(Exception):
                system.rm_file(aside)
        raise ImageError(f"{url}: cannot be written ({_first_line(error)}); check your rights") from error


def _modified(place: str) -> float | None:
    if not is_url(place):
        return Path(place).stat().st_mtime
    system, path = file_system(place)
    try:
        when = system.modified(path)
    except Exception:  # many protocols do not know
        return None
    return when.timestamp() if isinstance(when, datetime) else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
