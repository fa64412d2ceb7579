"""Find plugins by their metadata and hash their files, without importing any of them."""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import re
import stat
import sys
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.utils import canonicalize_name

from abair.contract import CONFIG_FILE, GROUP
from abair.discovery import Problem, distribution_of, installed_points
from abair.distributions import installed_distributions, normalise_name, read_entry_points, read_record
from abair.errors import AdmissionError
from abair.files import file_sha256
from abair.text import describe_error, near_misses, quote_foreign

LARGEST_PLUGIN: Final = 4 * 1024**3
"""Most bytes of all files of a plugin, which are all read for their hashes."""
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9]([\w.-]{0,198}[A-Za-z0-9])?", re.ASCII)
_OURS: Final = frozenset({"abair", "abair_registry", "abair_migrations"})
_INSTALLERS: Final = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
"""What an installer writes into a `.dist-info` folder, and the distribution does not."""


@dataclass(frozen=True)
class InstalledPlugin:
    """A plugin by the metadata of its entry point and its distribution."""

    name: str
    module: str
    distribution: str
    version: str


@dataclass(frozen=True)
class Candidate(InstalledPlugin):
    """An installed plugin with the SHA-256 of each of its files, by their posix paths below `root`.

    `files` are those in the distribution's RECORD, without what the installer adds. The RECORD of
    an editable install lists no code, so `files` are then those of the package's folder, `folder`.
    `groups` are the distribution's groups of entry points besides `abair`.
    """

    files: dict[str, str]
    root: Path
    folder: Path
    groups: tuple[str, ...] = ()


def installed_plugins() -> list[InstalledPlugin]:
    """Return all plugins by name, without importing them or reading their files.

    A distribution with unreadable metadata is left out. A name may occur twice, from two
    distributions.
    """
    return [plugin for plugin, _ in plugins_with_metadata()]


def plugins_with_metadata() -> list[tuple[InstalledPlugin, Distribution]]:
    """Return all plugins by name, each with the metadata of its distribution."""
    return _list_plugins([])


def unreadable_distributions() -> list[str]:
    """Return a line for each distribution that is left out because its metadata cannot be read."""
    problems: list[Problem] = []
    installed_points(problems)
    return [str(problem) for problem in problems]


def changed_files(plugin: InstalledPlugin, distribution: Distribution, recorded: Mapping[str, str]) -> list[str]:
    """Return the files of a plugin that differ from those that were recorded when it was added.

    One that cannot be compared, because its installation is damaged, counts with the reason.
    """
    try:
        now = _hash_files(plugin, distribution).files
    except AdmissionError as error:
        return [quote_foreign(str(error).partition("): ")[2], 200)]
    return sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))


def is_installed(name: str) -> bool:
    """Return whether a plugin of this name is installed; reads no file of it."""
    return any(plugin.name == name for plugin in installed_plugins())


def has_adapter(plugin: InstalledPlugin, size: str) -> bool:
    """Return whether the plugin's package holds an adapter for a backbone of this size's name.

    Its files are looked at, not imported.
    """
    try:
        _, folder = _locate_module(plugin)
    except AdmissionError:
        return False
    return any(path.parent.name == size for path in folder.rglob(CONFIG_FILE))


def find(name: str) -> Candidate:
    """Return the plugin with this entry point, or the only one of this distribution.

    Hashes its files.

    Raises:
        AdmissionError: there is none, or more than one; its metadata or files are damaged, or were
            changed after the installation; its module is not where the distribution put it.
    """
    importlib.invalidate_caches()
    unreadable: list[Problem] = []
    listed = _list_plugins(unreadable)
    found = [entry for entry in listed if entry[0].name == name]
    if not found:
        own = [plugin for plugin, _ in listed if canonicalize_name(plugin.distribution) == canonicalize_name(name)]
        if len(own) > 1:
            raise AdmissionError(
                f"distribution {quote_foreign(name)}: found {len(own)} plugins in it: "
                f"{', '.join(quote_foreign(p.name) for p in own)}; "
                f"expected the name of one: abair-registry add {quote_foreign(own[0].name)}"
            )
        found = [entry for entry in listed if own and entry[0].name == own[0].name]
    if not found:
        raise _not_found(name, [plugin for plugin, _ in listed], unreadable)
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
            raise admission_error(plugin, f"found {what} {text!r}, expected letters, digits, dots and hyphens")
    return _hash_files(plugin, distribution)


def admission_error(
    plugin: InstalledPlugin, reason: str, kind: type[AdmissionError] = AdmissionError
) -> AdmissionError:
    """Return the error that refuses a plugin: one line that names it and its distribution."""
    return kind(quote_foreign(f"plugin {plugin.name} (distribution {plugin.distribution}): {reason}"))


def _list_plugins(problems: list[Problem]) -> list[tuple[InstalledPlugin, Distribution]]:
    found = []
    for point in installed_points(problems):
        if point.dist is not None:
            found.append((InstalledPlugin(point.name, point.value, *distribution_of(point)), point.dist))
    return sorted(found, key=lambda entry: (entry[0].name, entry[0].distribution))


def _not_found(name: str, plugins: Sequence[InstalledPlugin], unreadable: Sequence[Problem]) -> AdmissionError:
    names = sorted({plugin.name for plugin in plugins} | {canonicalize_name(plugin.distribution) for plugin in plugins})
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
        + "".join(f"; {problem}" for problem in unreadable)
    )


def _hash_files(plugin: InstalledPlugin, distribution: Distribution) -> Candidate:
    """Hash the files of a plugin, as `Candidate` describes them."""
    origin, folder = _locate_module(plugin)
    root = Path(str(distribution.locate_file("")))
    recorded = _read_record(plugin, distribution)
    if _relative_path(root, origin) in recorded:
        paths = [root / path for path in recorded]
    elif _relative_path(folder.parent, origin) in recorded:
        raise admission_error(
            plugin, f"found its module at {origin}, which hides the one that was installed in {root}; remove either"
        )
    else:
        _refuse_module_of_others(plugin, distribution, origin)
        recorded, root = {}, folder.parent
        inside = sorted(folder.rglob("*")) if origin.parent == folder else [origin]
        paths = [p for p in inside if p.is_file() and not p.is_symlink() and "__pycache__" not in p.parts]
    if sum(path.stat().st_size for path in paths if path.is_file()) > LARGEST_PLUGIN:
        raise admission_error(plugin, f"found more than {LARGEST_PLUGIN // 1024**3} GiB of files, expected a few MiB")
    files = {path.relative_to(root).as_posix(): hash_file(plugin, path) for path in paths}
    for path, expected in recorded.items():
        if expected and files[path] != expected:
            raise admission_error(
                plugin, f"{root / path} was changed since it was installed; install the distribution again"
            )
    groups = tuple(sorted({point.group for point in read_entry_points(distribution)} - {GROUP}))
    return Candidate(plugin.name, plugin.module, plugin.distribution, plugin.version, files, root, folder, groups)


def _refuse_module_of_others(plugin: InstalledPlugin, distribution: Distribution, origin: Path) -> None:
    """Refuse a plugin whose entry point names a module that is not its distribution's own.

    Such a module is Python's, ABAIR's, in the RECORD of another distribution, or in the project of
    another one that is installed as editable.

    Raises:
        AdmissionError: it is somebody else's.
    """
    top = plugin.module.partition(":")[0].strip().partition(".")[0]
    owner = "Python" if top in sys.stdlib_module_names else "abair" if top in _OURS else None
    deepest = len(_editable_project(distribution, origin))
    for name, other in installed_distributions() if owner is None else ():
        if name == normalise_name(plugin.distribution):
            continue
        if _records(other, origin) or len(_editable_project(other, origin)) > deepest:
            owner = name
            break
    if owner is not None:
        raise admission_error(
            plugin, f"its entry point names the module {top}, which belongs to {owner}; expected a module of its own"
        )


def _records(distribution: Distribution, origin: Path) -> bool:
    """Return whether a file is in the distribution's RECORD."""
    with contextlib.suppress(Exception):  # metadata may be damaged in any way
        path = _relative_path(Path(str(distribution.locate_file(""))), origin)
        return path is not None and f"\n{path}," in f"\n{distribution.read_text('RECORD') or ''}"
    return False


def _editable_project(distribution: Distribution, origin: Path) -> str:
    """Return the project's folder if the distribution is installed from it and holds a module."""
    with contextlib.suppress(Exception):  # metadata may be damaged in any way
        told = json.loads(distribution.read_text("direct_url.json") or "{}")
        if told.get("dir_info", {}).get("editable"):
            folder = Path(url2pathname(urlsplit(told["url"]).path)).resolve()
            return str(folder) if origin.resolve().is_relative_to(folder) else ""
    return ""


def _read_record(plugin: InstalledPlugin, distribution: Distribution) -> dict[str, str]:
    """Return the files in the distribution's RECORD and their SHA-256, "" where there is none.

    Without a RECORD there are no files.

    Compiled files, the installer's own and generated programs outside the folder are left out.
    """
    files = {}
    try:
        for path, digest, *_ in filter(None, csv.reader(read_record(distribution).splitlines())):
            parts = PurePosixPath(path).parts
            by_installer = len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] in _INSTALLERS
            if path.startswith("/") or ".." in parts or "__pycache__" in parts or by_installer:
                continue
            kind, _, encoded = digest.partition("=")
            known = kind == "sha256"
            files[PurePosixPath(path).as_posix()] = urlsafe_b64decode(f"{encoded}===").hex() if known else ""
    except (ValueError, csv.Error, OSError) as error:  # binascii's and Unicode's errors are ValueErrors
        raise admission_error(
            plugin, f"its RECORD cannot be read ({describe_error(error)}); install the distribution again"
        ) from None
    return files


def _locate_module(plugin: InstalledPlugin) -> tuple[Path, Path]:
    """Return the module's file and its package's folder, without importing either."""
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
        raise admission_error(plugin, f"its entry point names the module {name}, which is not there; install it again")
    return Path(spec.origin), folder or Path(spec.origin).parent


def hash_file(plugin: InstalledPlugin, path: Path) -> str:
    """Return the SHA-256 of a plugin's file.

    Raises:
        AdmissionError: it is no regular file, or cannot be read.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return file_sha256(path)
        reason = "no regular file"
    except OSError as error:
        reason = error.strerror or str(error)
    raise admission_error(plugin, f"{path} cannot be read ({reason}); install the distribution again")


def _relative_path(folder: Path, path: Path) -> str | None:
    """Return the path below a folder with all links resolved but the last, None if outside."""
    try:
        return (path.parent.resolve() / path.name).relative_to(folder.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):
        return None
