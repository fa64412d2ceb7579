"""The probe's own process, `python -m abair_registry.plugins.worker.probe`: what runs in it.

There are two runs, so that nothing a plugin does can touch the verdict on its adapters:

- `declare` imports the plugin, asks its hooks and sends what they declare; torch is not imported.
- `examine` reads the adapters first, in a process in which no line of the plugin has run, and sends the verdict; what
  is in the pipe cannot be taken back. Then it imports the synthesisers and tries them.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from abair.contract import GROUP, Degradation
from abair.data.synthesizers import load_synthesizer
from abair.discovery import discover
from abair.errors import AdapterError, PluginError
from abair.text import describe_error
from abair_registry.plugins.worker.protocol import Asked, Refusal, Send
from abair_registry.plugins.worker.runtime import answer, confine, refuse_processes

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from abair.data.synthesizers import Synthesizer

CROP: Final = 128
"""Side in pixels of the crops that a synthesiser's speed is measured on: a training crop."""
CROPS: Final = 16
LONGEST_TIMING: Final = 1.0
"""A synthesiser is timed on `CROPS` crops, or for this many seconds."""


class Request(Asked):
    """What is asked of one run of the probe."""

    task: Literal["declare", "examine"]
    name: str
    value: str
    crops_per_second: float
    backbone: Path
    degradations: tuple[Degradation, ...] = ()
    adapters: tuple[Path, ...] = ()


class Checked(BaseModel):
    """An adapter that fits the backbone: its rank and how many numbers it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rank: int = Field(gt=0)
    parameters: int = Field(gt=0)


def declare(request: Request, send: Send) -> list[Any]:
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


def examine(request: Request, send: Send) -> dict[str, float]:
    """Check the adapters, send the verdict on them, then try the synthesisers; returns crops a second of each.

    Raises:
        Refusal: an adapter or a synthesiser is not what the contract says.
        DeploymentError: the backbone's file is damaged, which is not the plugin's fault.
    """
    # Heavy, and not needed to declare.
    import torch

    from abair.model.backbone import fingerprint, load_backbone
    from abair.model.lora import read_adapter

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


def _guarded(name: str, degrade: Synthesizer) -> Synthesizer:
    """`degrade`, whose failures refuse the plugin with a line."""

    def guarded(clean: Tensor, generator: Generator) -> Tensor:
        size = tuple(clean.shape)
        try:
            degraded = degrade(clean, generator)
        except (Exception, SystemExit) as error:
            raise Refusal(
                f"{name}: the synthesiser failed on a photo of shape {size}: {describe_error(error)}"
            ) from None
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


def work(request: Request, send: Send) -> tuple[str, object]:
    """One of the two runs; the kind of its last message and what that says."""
    if request.task == "declare":
        confine(request)
        return "declared", declare(request, send)
    return "tried", examine(request, send)


if __name__ == "__main__":
    answer(TypeAdapter(Request), work)
