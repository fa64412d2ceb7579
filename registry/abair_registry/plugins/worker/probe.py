"""The program that probes a plugin: `python -m abair_registry.plugins.worker.probe`.

It runs twice, so that nothing a plugin does can touch the verdict on its adapters:

- `declare` imports the plugin, calls its hooks and sends what they declare. Torch is not imported.
- `examine` reads the adapters first, in a process in which no plugin code has run, and sends the
  verdict. What is in the pipe cannot be taken back. Then it imports and tries the synthesisers.
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
from abair.data.synthesizers import import_synthesizer
from abair.discovery import discover
from abair.errors import AdapterError, PluginError
from abair.text import describe_error
from abair_registry.plugins.worker.protocol import Refusal, Send, WorkerRequest
from abair_registry.plugins.worker.runtime import confine, refuse_child_processes, serve_request

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from abair.data.synthesizers import Synthesizer

CROP: Final = 128
"""Side in pixels of the crops that a synthesiser is timed on: a training crop."""
SCENE: Final = 512
"""Side in pixels of the largest scene that an operation damages."""
CROPS: Final = 16
LONGEST_TIMING: Final = 1.0
"""Most seconds that a synthesiser is timed, if `CROPS` crops take longer."""


class Request(WorkerRequest):
    """One run of the probe: which plugin, and what to do with it."""

    task: Literal["declare", "examine"]
    name: str
    value: str
    crops_per_second: float
    backbone: Path
    degradations: tuple[Degradation, ...] = ()
    adapters: tuple[Path, ...] = ()


class AdapterSize(BaseModel):
    """Rank and parameter count of an adapter that fits the backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rank: int = Field(gt=0)
    parameters: int = Field(gt=0)


def declare(request: Request, send: Send) -> list[Any]:
    """Import the plugin, check its hooks, and return what it declares, as JSON values.

    Raises:
        Refusal: discovery reports a problem, nothing is declared, or the import brings torch.
    """
    send("stage", f"importing {request.value} and asking for its degradations")
    plugins = discover([EntryPoint(request.name, request.value, GROUP)])
    if plugins.problems:
        raise Refusal(plugins.problems[0].reason)
    if not plugins.found:
        raise Refusal("declares no degradation; expected at least one from abair_degradations()")
    if "torch" in sys.modules:
        raise Refusal(f"importing {request.value} imports torch; expected that only in the synthesiser's module")
    refuse_child_processes()
    return [json.loads(Degradation.model_dump_json(degradation)) for degradation in plugins.degradations]


def examine(request: Request, send: Send) -> dict[str, float]:
    """Check the adapters, send the verdict on them, then try the synthesisers.

    Returns:
        Crops a second of each degradation's synthesiser.

    Raises:
        Refusal: an adapter or a synthesiser breaks the contract.
        DeploymentError: the backbone's file is damaged, which is not the plugin's fault.
    """
    # heavy, and not needed to declare
    import torch

    from abair.model.backbone import fingerprint, load_backbone
    from abair.model.lora import read_adapter

    torch.set_num_threads(1)
    backbone = load_backbone(request.backbone)
    expected = fingerprint(backbone)
    confine(request)
    send("stage", "reading its adapters")
    sizes = []
    try:
        for degradation, folder in zip(request.degradations, request.adapters, strict=True):
            adapter = read_adapter(folder, backbone, expected, degradation.name)
            sizes.append(AdapterSize(rank=adapter.rank, parameters=adapter.parameters).model_dump())
    except AdapterError as error:
        raise Refusal(str(error)) from None
    send("adapters", sizes)
    speeds = {}
    for degradation in request.degradations:
        send("stage", f"trying its synthesiser {degradation.synthesizer}")
        speeds[degradation.name] = try_synthesizer(degradation, request.crops_per_second)
    return speeds


def try_synthesizer(degradation: Degradation, slowest: float) -> float:
    """Hold a synthesiser to its contract; returns 128-pixel crops a second on one thread.

    A large scene may take no longer a pixel than the slowest crops.

    Raises:
        Refusal: it cannot be loaded, raises, is slower than `slowest`, or breaks the contract.
    """
    # the suite that authors run on their plugins: what passes there passes here
    from abair.testing import check_synthesizer

    try:
        degrade = _refuse_failures(degradation.name, import_synthesizer(degradation))
        refuse_child_processes()
    except PluginError as error:
        raise Refusal(str(error)) from None
    speed = _crops_per_second(degrade)  # first, because the suite would take minutes with a slow one
    if speed < slowest:
        raise Refusal(
            f"{degradation.name}: the synthesiser makes {speed:.3g} crops of {CROP}x{CROP} pixels a second, "
            f"expected at least {slowest:g}: training draws thousands"
        )
    seconds, most = _seconds_for(SCENE, degrade), (SCENE / CROP) ** 2 / slowest
    if seconds > most:
        raise Refusal(
            f"{degradation.name}: the synthesiser takes {seconds:.3g} s for a scene of {SCENE}x{SCENE} pixels, "
            f"expected at most {most:.3g}, as for as many pixels in crops: samples are made of whole scenes"
        )

    try:
        check_synthesizer(degradation.name, degrade)
    except AssertionError as error:
        raise Refusal(f"synthesiser: {error}") from None
    return speed


def _refuse_failures(name: str, degrade: Synthesizer) -> Synthesizer:
    """Wrap a synthesiser so that its failures refuse the plugin."""

    def guarded(clean: Tensor, generator: Generator) -> Tensor:
        size = tuple(clean.shape)
        try:
            degraded = degrade(clean, generator)
        except (Exception, SystemExit) as error:
            raise Refusal(
                f"{name}: the synthesiser failed on a photo of shape {size}: {describe_error(error)}"
            ) from None
        refuse_child_processes()
        return degraded

    return guarded


def _crops_per_second(degrade: Synthesizer) -> float:
    _seconds_for(CROP, degrade)  # what the first call sets up is not what training pays
    count, seconds = 0, 0.0
    while count < CROPS and seconds < LONGEST_TIMING:
        count += 1
        seconds += _seconds_for(CROP, degrade, count)
    return count / max(seconds, 1e-6)


def _seconds_for(side: int, degrade: Synthesizer, seed: int = 0) -> float:
    """Return how long a call takes with a square of noise."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand((3, side, side), generator=generator)
    start = time.perf_counter()
    degrade(clean, generator)
    return time.perf_counter() - start


def work(request: Request, send: Send) -> tuple[str, object]:
    """Do one of the two runs; returns kind and body of its last message."""
    if request.task == "declare":
        confine(request)
        return "declarations", declare(request, send)
    return "speeds", examine(request, send)


if __name__ == "__main__":
    serve_request(TypeAdapter(Request), work)
