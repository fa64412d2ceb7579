"""The probe's own process, `python -m abair_registry.probe`: what runs in it.

A request goes to its stdin, messages come from its stdout.

Stdout is the probe's alone: its pipe is moved to another descriptor before any plugin runs, and what a plugin prints
goes to stderr. There are two runs, so that nothing a plugin does can touch the verdict on its adapters:

- `declare` imports the plugin, asks its hooks and sends what they declare; torch is not imported.
- `examine` reads the adapters first, in a process in which no line of the plugin has run, and sends the verdict; what
  is in the pipe cannot be taken back. Then it imports the synthesisers and tries them.

The process limits itself before the plugin runs, with hard limits where the platform has them; the rest is held from
outside (`abair_registry.isolation`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from abair.contract import GROUP, Degradation
from abair.discovery import discover, load_synthesizer, said
from abair.errors import AdapterError, DeploymentError, PluginError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from abair.discovery import Synthesizer

OWN: Final = os.getpid()
"""This process; a plugin may fork it."""
CROP: Final = 128
"""Side in pixels of the crops that a synthesiser's speed is measured on: a training crop."""
CROPS: Final = 16
LONGEST_TIMING: Final = 1.0
"""A synthesiser is timed on `CROPS` crops, or for this many seconds."""
LARGEST_FILE: Final = 64 * 1024**2
"""No file that a plugin writes while it is probed gets more bytes than this."""


class Request(BaseModel):
    """What is asked of one run. `token` marks the run's messages; a plugin is not told it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    task: Literal["declare", "examine"]
    name: str
    value: str
    seconds: float
    memory_mib: int
    output_kib: int
    crops_per_second: float
    backbone: Path
    degradations: tuple[Degradation, ...] = ()
    adapters: tuple[Path, ...] = ()


class Message(BaseModel):
    """One line of the answer: `at` says what comes next, `wrong` what the registry itself did wrong.

    The last line of a run is `declared`, `tried`, `refused` or `wrong`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    token: str
    kind: Literal["at", "declared", "adapters", "tried", "refused", "wrong"]
    body: Any

    @property
    def last(self) -> bool:
        """Whether nothing may follow."""
        return self.kind not in ("at", "adapters")


class Checked(BaseModel):
    """An adapter that fits the backbone: its rank and how many numbers it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rank: int = Field(gt=0)
    parameters: int = Field(gt=0)


class Refusal(Exception):  # noqa: N818 - a verdict, no failure of the probe
    """Why a plugin is refused; becomes an `AdmissionError` that names it."""


class Channel:
    """The way back to the parent: what was stdout, at a descriptor of its own that no started program inherits."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # the request cannot be read a second time
        os.close(nothing)

    def send(self, kind: str, body: object) -> None:
        """Write one message."""
        line = (json.dumps({"token": self._token, "kind": kind, "body": body}) + "\n").encode()
        while line:
            line = line[os.write(self._descriptor, line) :]


def declare(request: Request, send: Callable[[str, object], None]) -> list[Any]:
    """Import the plugin, check its hooks, and return what it declares, as JSON values.

    Raises:
        Refusal: discovery has something to complain of, or nothing is declared.
    """
    send("at", f"importing {request.value} and asking for its degradations")
    plugins = discover([EntryPoint(request.name, request.value, GROUP)])
    if plugins.problems:
        raise Refusal(plugins.problems[0].reason)
    if not plugins.found:
        raise Refusal("declares no degradation; expected at least one from abair_degradations()")
    if "torch" in sys.modules:
        raise Refusal(f"importing {request.value} imports torch; expected that only in the synthesiser's module")
    refuse_processes()
    return [json.loads(Degradation.model_dump_json(degradation)) for degradation in plugins.degradations]


def examine(request: Request, send: Callable[[str, object], None]) -> dict[str, float]:
    """Check the adapters, send the verdict on them, then try the synthesisers; returns crops a second of each.

    Raises:
        Refusal: an adapter or a synthesiser is not what the contract says.
        DeploymentError: the backbone's file is damaged, which is not the plugin's fault.
    """
    # Heavy, and not needed to declare.
    import torch

    from abair.backbone import fingerprint, load_backbone
    from abair.lora import read_adapter

    torch.set_num_threads(1)
    backbone = load_backbone(request.backbone)
    mark = fingerprint(backbone)
    confine(request)
    send("at", "reading its adapters")
    checked = []
    try:
        for degradation, folder in zip(request.degradations, request.adapters, strict=True):
            adapter = read_adapter(folder, backbone, mark, degradation.name)
            checked.append(Checked(rank=adapter.rank, parameters=adapter.parameters).model_dump())
    except AdapterError as error:
        raise Refusal(str(error)) from None
    send("adapters", checked)
    speeds = {}
    for degradation in request.degradations:
        send("at", f"trying its synthesiser {degradation.synthesizer}")
        speeds[degradation.name] = try_synthesizer(degradation, request.crops_per_second)
    return speeds


def try_synthesizer(degradation: Degradation, slowest: float) -> float:
    """Hold a synthesiser to its contract and measure it on one thread; returns 128-pixel crops a second.

    Raises:
        Refusal: it cannot be loaded, raises, is slower than `slowest`, or breaks the contract.
    """
    # The suite that authors run on their plugins: what passes there passes here.
    from abair.testing import check_synthesizer

    try:
        degrade = _guarded(degradation.name, load_synthesizer(degradation))
        refuse_processes()
    except PluginError as error:
        raise Refusal(str(error)) from None
    speed = _crops_per_second(degrade)  # first: the suite would take minutes with a slow one
    if speed < slowest:
        raise Refusal(
            f"{degradation.name}: the synthesiser makes {speed:.3g} crops of {CROP}x{CROP} pixels a second, "
            f"expected at least {slowest:g}: training draws thousands"
        )

    try:
        check_synthesizer(degradation.name, degrade)
    except AssertionError as error:
        raise Refusal(f"synthesiser: {error}") from None
    return speed


def confine(request: Request) -> None:
    """Limit this process and those it starts, for good: memory beyond what is mapped now, CPU time, files, no core.

    Only what the platform has is set; macOS ignores limits on address space, Windows has none of them.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": LARGEST_FILE,
        # The parent holds the wall clock; this ends a process that has got away from it.
        "RLIMIT_CPU": int(2 * request.seconds) + 1,
    }
    with contextlib.suppress(OSError, ValueError):
        # What is mapped already does not count: a torch built for GPUs takes gigabytes of addresses, others do not.
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        limits["RLIMIT_AS"] = mapped + request.memory_mib * 1024**2
    for name, limit in limits.items():
        with contextlib.suppress(AttributeError, OSError, ValueError):
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(which, (limit, limit))


def refuse_processes() -> None:
    """End this process if it is a fork that a plugin made; refuse the plugin if the probe's process has children.

    Raises:
        Refusal: the plugin started a process and did not wait for its end.
    """
    if os.getpid() != OWN:
        os._exit(0)
    with contextlib.suppress(ChildProcessError, AttributeError):
        os.waitpid(-1, os.WNOHANG)
        raise Refusal("started a process and left it running; expected none when a hook or synthesiser returns")


def _guarded(name: str, degrade: Synthesizer) -> Synthesizer:
    """`degrade`, whose failures refuse the plugin with a line."""

    def guarded(clean: Tensor, generator: Generator) -> Tensor:
        size = tuple(clean.shape)
        try:
            degraded = degrade(clean, generator)
        except (Exception, SystemExit) as error:
            raise Refusal(f"{name}: the synthesiser failed on a photo of shape {size}: {said(error)}") from None
        refuse_processes()
        return degraded

    return guarded


def _crops_per_second(degrade: Synthesizer) -> float:
    import torch

    def crop(seed: int) -> tuple[Tensor, Generator]:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand((3, CROP, CROP), generator=generator), generator

    degrade(*crop(0))  # what is made once, at the first call, is not what training pays
    done, taken = 0, 0.0
    while done < CROPS and taken < LONGEST_TIMING:
        done += 1
        given = crop(done)
        start = time.perf_counter()
        degrade(*given)
        taken += time.perf_counter() - start
    return done / max(taken, 1e-6)


def main() -> NoReturn:
    """Do what the request on stdin asks, and leave at once: no thread or exit handler of a plugin gets its turn."""
    request = Request.model_validate_json(sys.stdin.buffer.read())
    channel = Channel(request.token)
    if hasattr(signal, "alarm"):
        signal.alarm(int(request.seconds) + 2)  # ends this process if the parent was killed
    kind: str
    body: object
    try:
        if request.task == "declare":
            confine(request)
            kind, body = "declared", declare(request, channel.send)
        else:
            kind, body = "tried", examine(request, channel.send)
    except DeploymentError as error:
        kind, body = "wrong", str(error)
    except Refusal as error:
        kind, body = "refused", str(error)
    except BaseException as error:  # a plugin may raise anything
        kind, body = "refused", f"the probe met {said(error)}"
    if os.getpid() == OWN:
        channel.send(kind, body)
    os._exit(0)


if __name__ == "__main__":
    main()
