"""Finds a plugin from its metadata, without importing it, and probes it in a process of its own.

What the probe holds: a plugin that fails, hangs, crashes, prints without end or takes memory without end costs one
line; no variable of the caller's environment but those listed here reaches it; no process of it is left behind; its
adapters were judged in a process in which none of its code had run, and are the very files, inside its own folder,
that were hashed when it was found.

What it does not hold: it is no sandbox. The plugin runs as the caller's user, with the network and with every file of
that user (on Linux also `/proc/<parent>/environ`), so it may harm the machine, and code that reads the probe's own
memory may forge the verdict on its synthesiser, which nothing that serves ever runs. The limit on memory is one for
each process, not for all that a plugin starts, and root may lift it. A process that left the
session is found on Linux alone, unless it cleared its environment, too.
Whoever adds a plugin trusts its authors as with any `pip install`.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import importlib
import json
import re
import secrets
import stat
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pydantic import PositiveFloat, TypeAdapter, ValidationError

from abair.contract import Degradation
from abair.discovery import distribution_of, installed_points, said
from abair.errors import AdmissionError, DeploymentError, RegistryError
from abair.tensorfile import read_header
from abair_registry.blobs import file_sha256
from abair_registry.probe import Checked, Message, Refusal, Request, ask

# The names of `abair.lora`, which imports torch; a test holds that they are the same.
CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"

LARGEST_CONFIG: Final = 64 * 1024
LARGEST_WEIGHTS: Final = 256 * 1024**2
"""Bytes of an adapter's two files; one of rank 64 for the largest backbone has less than a fifth of this."""
LARGEST_PLUGIN: Final = 4 * 1024**3
"""Bytes of all files of a plugin, which are read in order to hash them."""
LONGEST_TITLE: Final = 100

_NAME: Final = re.compile(r"[A-Za-z0-9]([\w.-]{0,198}[A-Za-z0-9])?", re.ASCII)
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


@dataclass(frozen=True)
class Limits:
    """What a plugin may take: a wall clock for the whole probe, memory beyond torch's, what it prints, how slow.

    `seconds`: a probe takes 3 s where torch is in the file cache; a cold network disk was seen to need twenty.
    `memory_mib`: crops of 128 pixels need a few; the rest is room for the addresses of libraries such as OpenCV.
    `output_kib`: import warnings take a few; nobody reads more. `crops_per_second`: refitting an estimator draws
    thousands of crops, at ten a second for minutes; the slowest of our own synthesisers makes over a hundred.
    """

    seconds: float = 60
    memory_mib: int = 2048
    output_kib: int = 256
    crops_per_second: float = 10


@dataclass(frozen=True)
class ProbedAdapter:
    """An adapter that fits: the name of the backbone's size, rank, count of numbers, its two files and their hashes."""

    backbone: str
    rank: int
    parameters: int
    config: Path
    weights: Path
    config_sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class ProbedDegradation:
    """A degradation that a plugin declares and that passed; `card` is `abair.Card` as JSON values."""

    name: str
    title: str
    synthesizer: str
    card: dict[str, Any]
    adapters: tuple[ProbedAdapter, ...]
    crops_per_second: float


@dataclass(frozen=True)
class Probed:
    """A plugin that passed the probe, and what it declares."""

    candidate: Candidate
    degradations: tuple[ProbedDegradation, ...]


LIMITS: Final = Limits()
_DEGRADATIONS: Final = TypeAdapter(list[Degradation])
_CHECKED: Final = TypeAdapter(list[list[Checked]])
_SPEEDS: Final = TypeAdapter(list[dict[str, PositiveFloat]])


def installed() -> list[Installed]:
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
                f"distribution {_line(name)}: found {len(own)} plugins in it: {', '.join(_line(p.name) for p in own)}; "
                f"expected the name of one: abair-registry add {_line(own[0].name)}"
            )
        found = [entry for entry in listed if own and entry[0].name == own[0].name]
    if not found:
        raise _unknown(name, [plugin for plugin, _ in listed])
    plugin, distribution = found[0]
    if len(found) > 1:
        owners = [f"{_line(p.distribution)} {_line(p.version)}" for p, _ in found]
        raise AdmissionError(
            f"plugin {_line(plugin.name)}: found in {len(found)} distributions: {', '.join(owners)}; expected one; "
            f"uninstall the others: pip uninstall {_line(found[-1][0].distribution)}"
        )
    for what, text, longest in (
        ("entry point", plugin.name, 200),
        ("distribution", plugin.distribution, 200),
        ("version", plugin.version, 100),
    ):
        if len(text) > longest or not _NAME.fullmatch(text.replace("+", ".").replace("!", ".")):
            raise _refused(plugin, f"found {what} {text!r}, expected letters, digits, dots and hyphens")
    return _hashed(plugin, distribution)


def normalised(distribution: str) -> str:
    """A distribution's name as PEP 503 compares it: `ABAIR_Snow` and `abair-snow` are one."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def probe(candidate: Candidate, backbone: Path, taken: Mapping[str, str], limits: Limits = LIMITS) -> Probed:
    """Import the plugin in a process of its own and hold it to the contract.

    `backbone` is the live network's file, for which each degradation must have an adapter; `taken` maps the names of
    the degradations in the registry to the distributions that own them.

    Raises:
        AdmissionError: one line that names the plugin and why it is refused; nothing of it is left running.
        DeploymentError: `backbone` is not a network's file.
        RegistryError: the machine cannot start the probe.
    """
    size = _backbone_size(backbone)
    deadline = time.monotonic() + limits.seconds
    messages = _run(candidate, "declare", backbone, limits, deadline)
    declared = _declared(candidate, messages[-1].body, taken)
    files = [_adapter_files(candidate, degradation, size) for degradation in declared]
    messages = _run(candidate, "examine", backbone, limits, deadline, declared, [c.parent for c, _ in files])
    checked, speeds = _verdicts(candidate, messages, declared)
    for path, sha256 in candidate.files.items():
        if _sha256(candidate, candidate.root / path) != sha256:
            raise _refused(candidate, f"changed its own file {path} while it was probed; expected it to leave it alone")
    probed = []
    for degradation, (config, weights), fit in zip(declared, files, checked, strict=True):
        adapter = ProbedAdapter(
            backbone=size,
            rank=fit.rank,
            parameters=fit.parameters,
            config=config,
            weights=weights,
            config_sha256=candidate.files[_below(candidate, config)],
            weights_sha256=candidate.files[_below(candidate, weights)],
        )
        card = degradation.card.model_dump(mode="json")
        speed = speeds[degradation.name]
        probed.append(
            ProbedDegradation(
                degradation.name, degradation.title, degradation.synthesizer, card, (adapter,), round(speed, 1)
            )
        )
    return Probed(candidate, tuple(probed))


def _refused(plugin: Installed, reason: str) -> AdmissionError:
    return AdmissionError(_line(f"plugin {plugin.name} (distribution {plugin.distribution}): {reason}"))


def _line(text: str, most: int = 800) -> str:
    """What a stranger wrote, as a part of one line: no control characters, no escape sequences, not without end."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _listed() -> list[tuple[Installed, Distribution]]:
    found = []
    for point in installed_points([]):
        if point.dist is not None:
            found.append((Installed(point.name, point.value, *distribution_of(point)), point.dist))
    return sorted(found, key=lambda entry: (entry[0].name, entry[0].distribution))


def _unknown(name: str, plugins: Sequence[Installed]) -> AdmissionError:
    names = sorted({plugin.name for plugin in plugins} | {normalised(plugin.distribution) for plugin in plugins})
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    there = ", ".join(sorted({_line(plugin.name, 40) for plugin in plugins})[:20])
    return AdmissionError(
        f"plugin {_line(name, 60)}: no installed distribution has it"
        + (f"; did you mean {' or '.join(_line(n, 60) for n in near)}?" if near else f"; found {there or 'none'}")
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
        raise _refused(
            plugin, f"found its module at {origin}, which hides the one that was installed in {root}; remove either"
        )
    else:
        recorded, root = {}, folder.parent
        inside = sorted(folder.rglob("*")) if origin.parent == folder else [origin]
        paths = [p for p in inside if p.is_file() and not p.is_symlink() and "__pycache__" not in p.parts]
    if sum(path.stat().st_size for path in paths if path.is_file()) > LARGEST_PLUGIN:
        raise _refused(plugin, f"found more than {LARGEST_PLUGIN // 1024**3} GiB of files, expected a few MiB")
    files = {path.relative_to(root).as_posix(): _sha256(plugin, path) for path in paths}
    for path, expected in recorded.items():
        if expected and files[path] != expected:
            raise _refused(plugin, f"{root / path} was changed since it was installed; install the distribution again")
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
        raise _refused(plugin, f"its RECORD cannot be read ({said(error)}); install the distribution again") from None
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
        raise _refused(plugin, f"its entry point names the module {name}, which is not there; install it again")
    return Path(spec.origin), folder or Path(spec.origin).parent


def _sha256(plugin: Installed, path: Path) -> str:
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return file_sha256(path)
        reason = "no regular file"
    except OSError as error:
        reason = error.strerror or str(error)
    raise _refused(plugin, f"{path} cannot be read ({reason}); install the distribution again")


def _posix_below(folder: Path, path: Path) -> str | None:
    """The path below a folder, whatever links lead to either; None if it is not below."""
    try:
        return (path.parent.resolve() / path.name).relative_to(folder.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):
        return None


def _backbone_size(backbone: Path) -> str:
    """The name of the size of the network in a file, from its header alone."""
    try:
        name = json.loads(read_header(backbone).metadata["abair.backbone"])["name"]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DeploymentError):
            raise
        name = None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeploymentError(f"{backbone}: found no 'abair.backbone' in its metadata; expected a backbone's file")
    return name


def _run(
    candidate: Candidate,
    task: Literal["declare", "examine"],
    backbone: Path,
    limits: Limits,
    deadline: float,
    degradations: Sequence[Degradation] = (),
    adapters: Sequence[Path] = (),
) -> list[Message]:
    request = Request(
        token=secrets.token_hex(16),
        task=task,
        name=candidate.name,
        value=candidate.module,
        seconds=limits.seconds,
        memory_mib=limits.memory_mib,
        output_kib=limits.output_kib,
        crops_per_second=limits.crops_per_second,
        backbone=backbone.resolve(),
        degradations=tuple(degradations),
        adapters=tuple(adapters),
    )
    try:
        messages = ask(request, deadline)
    except Refusal as refusal:
        raise _refused(candidate, str(refusal)) from None
    except OSError as error:
        raise RegistryError(
            f"the probe of {candidate.name} cannot be started ({error.strerror or error}); expected a temporary "
            "folder that can be written, and room for one more process"
        ) from None
    if messages[-1].kind == "wrong":
        raise DeploymentError(_line(str(messages[-1].body)))
    if messages[-1].kind == "refused":
        raise _refused(candidate, str(messages[-1].body))
    return messages


def _declared(candidate: Candidate, body: object, taken: Mapping[str, str]) -> list[Degradation]:
    """What the probe's process says that the plugin declares, checked anew."""
    try:
        declared = _DEGRADATIONS.validate_python(body)
    except ValidationError as error:
        raise _refused(candidate, f"declares what is no abair.Degradation: {said(error)}") from None
    for degradation in declared:
        card = degradation.card
        texts = [degradation.title, *card.authors, card.licence, card.training_data, card.command, *card.figures]
        if len(degradation.title) > LONGEST_TITLE or not all(" ".join(text.split()).isprintable() for text in texts):
            raise _refused(
                candidate,
                f"{degradation.name}: found a title of over {LONGEST_TITLE} characters, or control characters in the "
                "title or card; expected plain text",
            )
        owner = taken.get(degradation.name)
        if owner is not None and normalised(owner) != normalised(candidate.distribution):
            raise _refused(
                candidate,
                f"declares degradation {degradation.name}, which belongs to distribution {owner}; "
                "expected another name, or remove that one first",
            )
    return declared


def _adapter_files(candidate: Candidate, degradation: Degradation, size: str) -> tuple[Path, Path]:
    """The config and the weights for the backbone: regular files of the plugin, as they were when it was found."""
    folder = degradation.adapters / size
    if not folder.is_absolute():
        raise _refused(candidate, f"{degradation.name}: found adapters {folder.parent}, expected an absolute path")
    _below(candidate, folder)
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    paths = []
    for name, largest in ((CONFIG_FILE, LARGEST_CONFIG), (WEIGHTS_FILE, LARGEST_WEIGHTS)):
        path = folder / name
        key = _below(candidate, path)
        if not path.is_file():
            raise _refused(
                candidate,
                f"{path} is missing: found {', '.join(there) or 'nothing'} there, expected an adapter for backbone "
                f"{size} as safetensors (pickles are never read); train it: abair train adapter {degradation.name}",
            )
        if key not in candidate.files:
            raise _refused(candidate, f"{path} is none of the files that the distribution installed")
        if path.stat().st_size > largest:
            raise _refused(candidate, f"{path}: found {path.stat().st_size} bytes, expected at most {largest}")
        if _sha256(candidate, path) != candidate.files[key]:
            raise _refused(candidate, f"{path} changed while the plugin was probed; expected it to leave it alone")
        paths.append(candidate.root.resolve() / key)
    return paths[0], paths[1]


def _below(candidate: Candidate, path: Path) -> str:
    """Where a path really leads, below the candidate's root."""
    try:
        real = path.resolve()
        real.relative_to(candidate.folder.resolve())
        return real.relative_to(candidate.root.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):  # RuntimeError: links that lead in a circle
        raise _refused(
            candidate, f"{path} leaves the plugin's folder {candidate.folder}; expected adapters inside of it"
        ) from None


def _verdicts(
    candidate: Candidate, messages: Sequence[Message], declared: Sequence[Degradation]
) -> tuple[list[Checked], dict[str, float]]:
    """The verdicts of `examine`: each adapter's, which was sent before any code of the plugin ran, and each speed."""
    bodies = {kind: [m.body for m in messages if m.kind == kind] for kind in ("adapters", "tried")}
    try:
        [checked], [speeds] = _CHECKED.validate_python(bodies["adapters"]), _SPEEDS.validate_python(bodies["tried"])
        if len(checked) != len(declared) or sorted(speeds) != sorted(d.name for d in declared):
            raise ValueError("not one verdict each degradation")
    except ValueError:
        raise _refused(
            candidate, "found an answer that is not the probe's; expected the plugin to leave it alone"
        ) from None
    return checked, speeds
