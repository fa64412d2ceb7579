"""Probe a plugin in a worker process and hold it to the contract.

The probe guarantees:

- A plugin that fails, hangs, crashes, or prints or takes memory without end costs one line.
- It sees the variables of the caller's environment that `supervisor.INHERITED` lists, and no
  others.
- None of its processes is left behind.
- Its adapters are checked in a process in which none of its code has run. They lie in the plugin's
  own folder and are the files that were hashed when the plugin was found.
- Its distribution asks for nothing that would run its code in other processes of ABAIR: entry
  points that libraries load, or files that Python runs at its start.

The probe is no sandbox. The plugin runs as the caller's user, with the network and all files of
that user (on Linux also `/proc/<parent>/environ`), so it can harm the machine. Code that reads the
worker's memory can forge the verdict on its synthesiser, which no serving process ever runs. The
memory limit holds for each process, not for all of them together, and root can lift it. A process
that leaves the session and clears its environment is not found. Adding a plugin means trusting its
authors, as with any `pip install`.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from packaging.utils import canonicalize_name
from pydantic import PositiveFloat, TypeAdapter, ValidationError

from abair.contract import CONFIG_FILE, WEIGHTS_FILE, Degradation
from abair.errors import AdmissionError, DeploymentError, RegistryError
from abair.foreign_points import run_here
from abair.model.safetensors_io import read_header
from abair.text import describe_error, quote_foreign
from abair_registry.plugins.installed import PLAIN_NAME, Candidate, admission_error, hash_file
from abair_registry.plugins.worker.probe import AdapterSize, Request
from abair_registry.plugins.worker.protocol import Message, Refusal
from abair_registry.plugins.worker.supervisor import run_worker

LARGEST_CONFIG: Final = 64 * 1024
LARGEST_WEIGHTS: Final = 256 * 1024**2
"""Most bytes of an adapter's two files.

Rank 64 for the largest backbone takes less than a fifth of them.
"""
LONGEST_TITLE: Final = 100
_AT_START: Final = frozenset({"sitecustomize.py", "usercustomize.py"})


@dataclass(frozen=True)
class Limits:
    """What a plugin may take.

    Attributes:
        seconds: wall clock of the whole probe. It takes 3 s with torch in the file cache, and took
            20 s from a cold network disk.
        memory_mib: beyond what torch has mapped. Crops of 128 pixels need a few MiB; the rest is
            address space for libraries such as OpenCV.
        output_kib: what it prints. Warnings at import take a few KiB.
        crops_per_second: the least speed of a synthesiser. Refitting an estimator draws thousands
            of crops; the slowest of our own synthesisers makes over a hundred a second.
        degradations: the most that it declares. Each is probed within the same time.
    """

    seconds: float = 60
    memory_mib: int = 2048
    output_kib: int = 256
    crops_per_second: float = 10
    degradations: int = 8


@dataclass(frozen=True)
class ProbedAdapter:
    """An adapter that fits the backbone; `backbone` is the name of the backbone's size."""

    backbone: str
    rank: int
    parameters: int
    config: Path
    weights: Path
    config_sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class ProbedDegradation:
    """A declared degradation that passed; `card` is an `abair.Card` as JSON values."""

    name: str
    title: str
    synthesizer: str
    card: dict[str, Any]
    adapters: tuple[ProbedAdapter, ...]
    crops_per_second: float


@dataclass(frozen=True)
class ProbedPlugin:
    """A plugin that passed the probe, with its degradations."""

    candidate: Candidate
    degradations: tuple[ProbedDegradation, ...]


class MissingAdapterError(AdmissionError):
    """The plugin has no adapter for the backbone, or none as safetensors."""


LIMITS: Final = Limits()
_DEGRADATIONS: Final = TypeAdapter(list[Degradation])
_SIZES: Final = TypeAdapter(list[list[AdapterSize]])
_SPEEDS: Final = TypeAdapter(list[dict[str, PositiveFloat]])


def probe(candidate: Candidate, backbone: Path, owners: Mapping[str, str], limits: Limits = LIMITS) -> ProbedPlugin:
    """Import the plugin in a worker process and hold it to the contract.

    Args:
        candidate: the plugin, found and hashed.
        backbone: the live network's file; each degradation needs an adapter for it.
        owners: the distribution of each degradation in the registry, by the degradation's name.
        limits: what the plugin may take.

    Raises:
        AdmissionError: the plugin is refused, for the reason in the text. No process of it is left.
        MissingAdapterError: it has no adapter for the backbone.
        DeploymentError: `backbone` is not a network's file.
        RegistryError: the machine cannot start the probe.
    """
    size = _backbone_size(backbone)
    _refuse_code_outside(candidate)
    deadline = time.monotonic() + limits.seconds
    messages = _run(candidate, "declare", backbone, limits, deadline)
    declared = _parse_degradations(candidate, messages[-1].body, owners, limits.degradations)
    files = [_adapter_files(candidate, degradation, size) for degradation in declared]
    messages = _run(candidate, "examine", backbone, limits, deadline, declared, [c.parent for c, _ in files])
    sizes, speeds = _parse_results(candidate, messages, declared)
    for path, expected in candidate.files.items():
        if hash_file(candidate, candidate.root / path) != expected:
            raise admission_error(
                candidate, f"changed its own file {path} while it was probed; expected it to leave it alone"
            )
    probed = []
    for degradation, (config, weights), fit in zip(declared, files, sizes, strict=True):
        adapter = ProbedAdapter(
            backbone=size,
            rank=fit.rank,
            parameters=fit.parameters,
            config=config,
            weights=weights,
            config_sha256=candidate.files[_relative_path(candidate, config)],
            weights_sha256=candidate.files[_relative_path(candidate, weights)],
        )
        card = degradation.card.model_dump(mode="json")
        speed = speeds[degradation.name]
        probed.append(
            ProbedDegradation(
                degradation.name, degradation.title, degradation.synthesizer, card, (adapter,), round(speed, 1)
            )
        )
    return ProbedPlugin(candidate, tuple(probed))


def _refuse_code_outside(candidate: Candidate) -> None:
    """Refuse a distribution whose code would run where nobody asked for the plugin.

    Groups that only other programs ask for, such as `console_scripts` and `pytest11`, are allowed.
    """
    if groups := [group for group in candidate.groups if run_here(group)]:
        raise admission_error(
            candidate,
            f"found entry points in {', '.join(groups)}, which libraries load wherever they are used; expected the "
            "group abair alone, or groups of other programs; move them into a distribution of their own",
        )
    if started := [path for path in candidate.files if path in _AT_START or re.fullmatch(r"[^/]+\.pth", path)]:
        raise admission_error(
            candidate, f"found {', '.join(started)}, which Python runs at every start; expected the package alone"
        )


def _backbone_size(backbone: Path) -> str:
    """Return the size's name of the network in a file; reads the header alone."""
    try:
        name = json.loads(read_header(backbone).metadata["abair.backbone"])["name"]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DeploymentError):
            raise
        name = None
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
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
        messages = run_worker("abair_registry.plugins.worker.probe", request, deadline)
    except Refusal as error:
        raise admission_error(candidate, str(error)) from None
    except OSError as error:
        raise RegistryError(
            f"the probe of {candidate.name} cannot be started ({error.strerror or error}); expected a temporary "
            "folder that can be written, and room for one more process"
        ) from None
    if messages[-1].kind == "error":
        raise DeploymentError(quote_foreign(str(messages[-1].body)))
    if messages[-1].kind == "refusal":
        raise admission_error(candidate, str(messages[-1].body))
    return messages


def _parse_degradations(candidate: Candidate, body: object, owners: Mapping[str, str], most: int) -> list[Degradation]:
    """Validate what the worker says that the plugin declares."""
    try:
        declared = _DEGRADATIONS.validate_python(body)
    except ValidationError as error:
        raise admission_error(candidate, f"declares what is no abair.Degradation: {describe_error(error)}") from None
    if len(declared) > most:
        raise admission_error(
            candidate,
            f"declares {len(declared)} degradations, expected at most {most} in one plugin; make several of it",
        )
    for degradation in declared:
        card = degradation.card
        texts = [degradation.title, *card.authors, card.licence, card.training_data, card.command, *card.figures]
        if len(degradation.title) > LONGEST_TITLE or not all(" ".join(text.split()).isprintable() for text in texts):
            raise admission_error(
                candidate,
                f"{degradation.name}: found a title of over {LONGEST_TITLE} characters, or control characters in the "
                "title or card; expected plain text",
            )
        owner = owners.get(degradation.name)
        if owner is not None and canonicalize_name(owner) != canonicalize_name(candidate.distribution):
            raise admission_error(
                candidate,
                f"declares degradation {degradation.name}, which belongs to distribution {owner}; "
                "expected another name, or remove that one first",
            )
    return declared


def _adapter_files(candidate: Candidate, degradation: Degradation, size: str) -> tuple[Path, Path]:
    """Return config and weights for the backbone, unchanged since the plugin was found."""
    folder = degradation.adapters / size
    if not folder.is_absolute():
        raise admission_error(
            candidate, f"{degradation.name}: found adapters {folder.parent}, expected an absolute path"
        )
    _relative_path(candidate, folder)
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    paths = []
    for name, largest in ((CONFIG_FILE, LARGEST_CONFIG), (WEIGHTS_FILE, LARGEST_WEIGHTS)):
        path = folder / name
        key = _relative_path(candidate, path)
        if not path.is_file():
            raise admission_error(
                candidate,
                f"{path} is missing: found {', '.join(there) or 'nothing'} there, expected an adapter for backbone "
                f"{size} as safetensors (pickles are never read); train it: abair train adapter {degradation.name}",
                MissingAdapterError,
            )
        if key not in candidate.files:
            raise admission_error(candidate, f"{path} is none of the files that the distribution installed")
        if path.stat().st_size > largest:
            raise admission_error(candidate, f"{path}: found {path.stat().st_size} bytes, expected at most {largest}")
        if hash_file(candidate, path) != candidate.files[key]:
            raise admission_error(
                candidate, f"{path} changed while the plugin was probed; expected it to leave it alone"
            )
        paths.append(candidate.root.resolve() / key)
    return paths[0], paths[1]


def _relative_path(candidate: Candidate, path: Path) -> str:
    """Return where a path really leads, relative to the candidate's root."""
    try:
        real = path.resolve()
        real.relative_to(candidate.folder.resolve())
        return real.relative_to(candidate.root.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):  # RuntimeError: links that lead in a circle
        raise admission_error(
            candidate, f"{path} leaves the plugin's folder {candidate.folder}; expected adapters inside of it"
        ) from None


def _parse_results(
    candidate: Candidate, messages: Sequence[Message], declared: Sequence[Degradation]
) -> tuple[list[AdapterSize], dict[str, float]]:
    """Validate what `examine` sent: the adapters' sizes and the synthesisers' speeds."""
    bodies = {kind: [m.body for m in messages if m.kind == kind] for kind in ("adapters", "speeds")}
    try:
        [sizes], [speeds] = _SIZES.validate_python(bodies["adapters"]), _SPEEDS.validate_python(bodies["speeds"])
        if len(sizes) != len(declared) or sorted(speeds) != sorted(d.name for d in declared):
            raise ValueError("not one verdict each degradation")
    except ValueError:
        raise admission_error(
            candidate, "found an answer that is not the probe's; expected the plugin to leave it alone"
        ) from None
    return sizes, speeds
