"""Probes a plugin in a process of its own and holds it to the contract.

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

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import PositiveFloat, TypeAdapter, ValidationError

from abair.contract import CONFIG_FILE, WEIGHTS_FILE, Degradation
from abair.errors import AdmissionError, DeploymentError, RegistryError
from abair.model.safetensors_io import read_header
from abair.text import describe_error, quote_foreign
from abair_registry.plugins.installed import PLAIN_NAME, Candidate, hash_of, normalised, refused
from abair_registry.plugins.worker.probe import Checked, Request
from abair_registry.plugins.worker.runtime import Message, Refusal
from abair_registry.plugins.worker.supervisor import ask

LARGEST_CONFIG: Final = 64 * 1024
LARGEST_WEIGHTS: Final = 256 * 1024**2
"""Bytes of an adapter's two files; one of rank 64 for the largest backbone has less than a fifth of this."""
LONGEST_TITLE: Final = 100


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


class MissingAdapterError(AdmissionError):
    """The plugin has no adapter for the backbone: its files are not there, or are no safetensors."""


LIMITS: Final = Limits()
_DEGRADATIONS: Final = TypeAdapter(list[Degradation])
_CHECKED: Final = TypeAdapter(list[list[Checked]])
_SPEEDS: Final = TypeAdapter(list[dict[str, PositiveFloat]])


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
    for path, expected in candidate.files.items():
        if hash_of(candidate, candidate.root / path) != expected:
            raise refused(candidate, f"changed its own file {path} while it was probed; expected it to leave it alone")
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


def _backbone_size(backbone: Path) -> str:
    """The name of the size of the network in a file, from its header alone."""
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
        messages = ask("abair_registry.plugins.worker.probe", request, deadline)
    except Refusal as refusal:
        raise refused(candidate, str(refusal)) from None
    except OSError as error:
        raise RegistryError(
            f"the probe of {candidate.name} cannot be started ({error.strerror or error}); expected a temporary "
            "folder that can be written, and room for one more process"
        ) from None
    if messages[-1].kind == "wrong":
        raise DeploymentError(quote_foreign(str(messages[-1].body)))
    if messages[-1].kind == "refused":
        raise refused(candidate, str(messages[-1].body))
    return messages


def _declared(candidate: Candidate, body: object, taken: Mapping[str, str]) -> list[Degradation]:
    """What the probe's process says that the plugin declares, checked anew."""
    try:
        declared = _DEGRADATIONS.validate_python(body)
    except ValidationError as error:
        raise refused(candidate, f"declares what is no abair.Degradation: {describe_error(error)}") from None
    for degradation in declared:
        card = degradation.card
        texts = [degradation.title, *card.authors, card.licence, card.training_data, card.command, *card.figures]
        if len(degradation.title) > LONGEST_TITLE or not all(" ".join(text.split()).isprintable() for text in texts):
            raise refused(
                candidate,
                f"{degradation.name}: found a title of over {LONGEST_TITLE} characters, or control characters in the "
                "title or card; expected plain text",
            )
        owner = taken.get(degradation.name)
        if owner is not None and normalised(owner) != normalised(candidate.distribution):
            raise refused(
                candidate,
                f"declares degradation {degradation.name}, which belongs to distribution {owner}; "
                "expected another name, or remove that one first",
            )
    return declared


def _adapter_files(candidate: Candidate, degradation: Degradation, size: str) -> tuple[Path, Path]:
    """The config and the weights for the backbone: regular files of the plugin, as they were when it was found."""
    folder = degradation.adapters / size
    if not folder.is_absolute():
        raise refused(candidate, f"{degradation.name}: found adapters {folder.parent}, expected an absolute path")
    _below(candidate, folder)
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    paths = []
    for name, largest in ((CONFIG_FILE, LARGEST_CONFIG), (WEIGHTS_FILE, LARGEST_WEIGHTS)):
        path = folder / name
        key = _below(candidate, path)
        if not path.is_file():
            raise refused(
                candidate,
                f"{path} is missing: found {', '.join(there) or 'nothing'} there, expected an adapter for backbone "
                f"{size} as safetensors (pickles are never read); train it: abair train adapter {degradation.name}",
                MissingAdapterError,
            )
        if key not in candidate.files:
            raise refused(candidate, f"{path} is none of the files that the distribution installed")
        if path.stat().st_size > largest:
            raise refused(candidate, f"{path}: found {path.stat().st_size} bytes, expected at most {largest}")
        if hash_of(candidate, path) != candidate.files[key]:
            raise refused(candidate, f"{path} changed while the plugin was probed; expected it to leave it alone")
        paths.append(candidate.root.resolve() / key)
    return paths[0], paths[1]


def _below(candidate: Candidate, path: Path) -> str:
    """Where a path really leads, below the candidate's root."""
    try:
        real = path.resolve()
        real.relative_to(candidate.folder.resolve())
        return real.relative_to(candidate.root.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):  # RuntimeError: links that lead in a circle
        raise refused(
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
        raise refused(
            candidate, "found an answer that is not the probe's; expected the plugin to leave it alone"
        ) from None
    return checked, speeds
