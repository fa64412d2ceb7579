"""Finds plugins from their metadata and hashes their files, without importing any of them."""

from __future__ import annotations

import contextlib
import csv
import importlib
import re
import stat
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final

from abair.discovery import distribution_of, installed_points
from abair.errors import AdmissionError
from abair.files import file_sha256
from abair.text import describe_error, near_misses, quote_foreign

LARGEST_PLUGIN: Final = 4 * 1024**3
"""Bytes of all files of a plugin, which are read in order to hash them."""
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9]([\w.-]{0,198}[A-Za-z0-9])?", re.ASCII)
_INSTALLERS: Final = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""What an installer writes into a `.dist-info` folder; it tells of the installation, not of the distribution."""


@dataclass(frozen=True)
class Installed:
    """A plugin as its metadata describes it: the entry point's name and value, and the distribution it is from."""

    name: str
    module: str
    distribution: str
    version: str


@dataclass(frozen=True)
class Candidate(Installed):
    """An installed plugin with the SHA-256 of each of its files, by their posix paths below `root`.

    `files` are those that the distribution's RECORD lists, without what the installer adds; for an editable install,
    whose RECORD lists none of the code, those of the package's folder. `folder` is the package's folder.
    """

    files: dict[str, str]
    root: Path
    folder: Path


def installed_plugins() -> list[Installed]:
    """All plugins of the group, in the order of their names; nothing is imported and no file of theirs is read.

    A distribution whose metadata cannot be read is left out; one name may be there twice, from two distributions.
    """
    return [plugin for plugin, _ in _listed()]


def find(name: str) -> Candidate:
    """The plugin whose entry point is called `name`, or that distribution's only one; hashes its files.

    Raises:
        AdmissionError: there is none, or more than one; its metadata or files are damaged, or were changed since it
            was installed; its module is not where the distribution put it.
    """
    importlib.invalidate_caches()
    listed = _listed()
    found = [entry for entry in listed if entry[0].name == name]
    if not found:
        own = [plugin for plugin, _ in listed if normalised(plugin.distribution) == normalised(name)]
        if len(own) > 1:
            raise AdmissionError(
                f"distribution {quote_foreign(name)}: found {len(own)} plugins in it: "
                f"{', '.join(quote_foreign(p.name) for p in own)}; "
                f"expected the name of one: abair-registry add {quote_foreign(own[0].name)}"
            )
        found = [entry for entry in listed if own and entry[0].name == own[0].name]
    if not found:
        raise _unknown(name, [plugin for plugin, _ in listed])
    plugin, distribution = found[0]
    if len(found) > 1:
        owners = [f"{quote_foreign(p.distribution)} {quote_foreign(p.version)}" for p, _ in found]
        raise AdmissionError(
            f"plugin {quote_foreign(plugin.name)}: found in {len(found)} distributions: {', '.join(owners)}; "
            f"expected one; uninstall the others: pip uninstall {quote_foreign(found[-1][0].distribution)}"
        )
    for what, text, longest in (
        ("entry point", plugin.name, 200),
        ("distribution", plugin.distribution, 200),
        ("version", plugin.version, 100),
    ):
        if len(text) > longest or not PLAIN_NAME.fullmatch(text.replace("+", ".").replace("!", ".")):
            raise refused(plugin, f"found {what} {text!r}, expected letters, digits, dots and hyphens")
    return _hashed(plugin, distribution)


def normalised(distribution: str) -> str:
    """A distribution's name as PEP 503 compares it: `ABAIR_Snow` and `abair-snow` are one."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def refused(plugin: Installed, reason: str, kind: type[AdmissionError] = AdmissionError) -> AdmissionError:
    """The error that refuses a plugin: one line that names it."""
    return kind(quote_foreign(f"plugin {plugin.name} (distribution {plugin.distribution}): {reason}"))


def _listed() -> list[tuple[Installed, Distribution]]:
    found = []
    for point in installed_points([]):
        if point.dist is not None:
            found.append((Installed(point.name, point.value, *distribution_of(point)), point.dist))
    return sorted(found, key=lambda entry: (entry[0].name, entry[0].distribution))


def _unknown(name: str, plugins: Sequence[Installed]) -> AdmissionError:
    names = sorted({plugin.name for plugin in plugins} | {normalised(plugin.distribution) for plugin in plugins})
    near = near_misses(name.lower(), names)
    there = ", ".join(sorted({quote_foreign(plugin.name, 40) for plugin in plugins})[:20])
    return AdmissionError(
        f"plugin {quote_foreign(name, 60)}: no installed distribution has it"
        + (
            f"; did you mean {' or '.join(quote_foreign(n, 60) for n in near)}?"
            if near
            else f"; found {there or 'none'}"
        )
        + "; install it with pip, or correct the name"
    )


def _hashed(plugin: Installed, distribution: Distribution) -> Candidate:
    """Hash the files of a plugin; see `Candidate`."""
    origin, folder = _module(plugin)
    root = Path(str(distribution.locate_file("")))
    recorded = _record(plugin, distribution)
    if _posix_below(root, origin) in recorded:
        paths = [root / path for path in recorded]
    elif _posix_below(folder.parent, origin) in recorded:
        raise refused(
            plugin, f"found its module at {origin}, which hides the one that was installed in {root}; remove either"
        )
    else:
        recorded, root = {}, folder.parent
        inside = sorted(folder.rglob("*")) if origin.parent == folder else [origin]
        paths = [p for p in inside if p.is_file() and not p.is_symlink() and "__pycache__" not in p.parts]
    if sum(path.stat().st_size for path in paths if path.is_file()) > LARGEST_PLUGIN:
        raise refused(plugin, f"found more than {LARGEST_PLUGIN // 1024**3} GiB of files, expected a few MiB")
    files = {path.relative_to(root).as_posix(): hash_of(plugin, path) for path in paths}
    for path, expected in recorded.items():
        if expected and files[path] != expected:
            raise refused(plugin, f"{root / path} was changed since it was installed; install the distribution again")
    return Candidate(plugin.name, plugin.module, plugin.distribution, plugin.version, files, root, folder)


def _record(plugin: Installed, distribution: Distribution) -> dict[str, str]:
    """The distribution's own files as its RECORD lists them, with their SHA-256 where it is told; {} without RECORD.

    Left out are compiled files, what the installer writes, and generated programs outside the folder.
    """
    files = {}
    try:
        for path, told, *_ in filter(None, csv.reader((distribution.read_text("RECORD") or "").splitlines())):
            parts = PurePosixPath(path).parts
            made = len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] in _INSTALLERS
            if path.startswith("/") or ".." in parts or "__pycache__" in parts or made:
                continue
            kind, _, digest = told.partition("=")
            known = kind == "sha256"
            files[PurePosixPath(path).as_posix()] = urlsafe_b64decode(f"{digest}===").hex() if known else ""
    except (ValueError, csv.Error, OSError) as error:  # binascii's and Unicode's errors are ValueErrors
        raise refused(
            plugin, f"its RECORD cannot be read ({describe_error(error)}); install the distribution again"
        ) from None
    return files


def _module(plugin: Installed) -> tuple[Path, Path]:
    """Where the plugin's module lies, and its package's folder, found without importing either."""
    name = plugin.module.partition(":")[0].strip()
    parts, spec, folder = name.split("."), None, None
    with contextlib.suppress(ImportError, ValueError):
        spec = find_spec(parts[0]) if len(plugin.module) <= 300 and all(part.isidentifier() for part in parts) else None
    for depth, _ in enumerate(parts[1:], 2):
        if spec is not None and spec.origin and spec.submodule_search_locations and folder is None:
            folder = Path(spec.origin).parent
        within = spec.submodule_search_locations if spec is not None else None
        spec = PathFinder.find_spec(".".join(parts[:depth]), list(within)) if within else None
    if spec is None or not spec.has_location or not spec.origin or not Path(spec.origin).is_file():
        raise refused(plugin, f"its entry point names the module {name}, which is not there; install it again")
    return Path(spec.origin), folder or Path(spec.origin).parent


def hash_of(plugin: Installed, path: Path) -> str:
    """The SHA-256 of a plugin's file.

    Raises:
        AdmissionError: it is no regular file, or cannot be read.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return file_sha256(path)
        reason = "no regular file"
    except OSError as error:
        reason = error.strerror or str(error)
    raise refused(plugin, f"{path} cannot be read ({reason}); install the distribution again")


def _posix_below(folder: Path, path: Path) -> str | None:
    """The path below a folder, whatever links lead to either; None if it is not below."""
    try:
        return (path.parent.resolve() / path.name).relative_to(folder.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):
        return None
