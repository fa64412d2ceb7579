"""The speed of restoring: the blended network, the bare backbone, and PEFT with the same adapters.

All variants are timed in one run, in turn, many times, and their medians are compared. So whatever
else the machine does slows all of them alike.
"""

from __future__ import annotations

import gc
import itertools
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from abair.contract import CONFIG_FILE, WEIGHTS_FILE
from abair.errors import MissingExtraError
from abair.inference.hardware import fast_bf16_on_cpu
from abair.model.backbone import Backbone, load_backbone
from abair.model.lora import Blender, read_adapter_files
from abair.text import markdown_table

if TYPE_CHECKING:
    from abair.deployment import AdapterRef, Deployment
    from abair.inference.restorer import Restorer

SIDES: Final = (512, 1000)
"""Sides of the square pictures in pixels: 0.26 and 1 megapixel."""

BACKBONE, BLENDED, PEFT = "bare backbone", "blended", "PEFT, all adapters active"


class NetworkSpeed(BaseModel):
    """One size and precision: the median seconds of each variant of the network.

    PEFT is among them if it is installed.
    """

    model_config = ConfigDict(frozen=True)

    side: int
    precision: str
    seconds: dict[str, float]

    @property
    def megapixels_per_second(self) -> dict[str, float]:
        """The speed of each variant."""
        return {name: self.side**2 / 1e6 / seconds for name, seconds in self.seconds.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """The time of each variant as a multiple of the bare backbone's."""
        return {name: seconds / self.seconds[BACKBONE] for name, seconds in self.seconds.items()}


class SpeedReport(BaseModel):
    """All measurements of one run; milliseconds are medians.

    `estimator_ms` maps a picture's side to the estimator's time. `largest_difference` between the
    outputs of the blend and of PEFT in fp32 shows that both did the same work.
    """

    model_config = ConfigDict(frozen=True)

    deployment: str
    fingerprint: str
    adapters: tuple[str, ...]
    repeats: int
    threads: int
    machine: str
    torch: str
    blend_ms: float
    estimator_ms: dict[int, float]
    networks: tuple[NetworkSpeed, ...]
    largest_difference: float | None
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """Return the measurements as a table, with the conditions below it."""
        rows = []
        for network in self.networks:
            for name, seconds in network.seconds.items():
                speed, ratio = network.megapixels_per_second[name], network.ratios[name]
                cells = [f"{network.side} x {network.side}", network.precision, name]
                rows.append([*cells, f"{speed:.2f}", f"{seconds * 1e3:.0f}", f"{ratio:.2f}x"])
        columns = ["picture", "precision", "variant", "MP/s", "ms", "time / bare backbone"]
        lines = [markdown_table(columns, rows, left=(0, 1, 2)), ""]
        lines.append(f"- blend of {len(self.adapters)} adapters: {self.blend_ms:.1f} ms per picture of any size")
        lines += [f"- estimator, {side} x {side}: {cost:.1f} ms" for side, cost in self.estimator_ms.items()]
        if self.largest_difference is not None:
            lines.append(f"- largest difference between the blend's and PEFT's output: {self.largest_difference:.1e}")
        lines += [
            f"- deployment {self.deployment}, adapters {', '.join(self.adapters) or 'none'}",
            f"- backbone's fingerprint {self.fingerprint}",
            f"- {self.machine}, {self.threads} threads, torch {self.torch}",
            f"- medians of {self.repeats} repeats, all variants in turn",
            *(f"- {note}" for note in self.notes),
        ]
        return "\n".join(lines) + "\n"


def measure_speed(
    restorer: Restorer,
    *,
    sides: Sequence[int] = SIDES,
    repeats: int = 5,
    progress: Callable[[int, int, str], None] | None = None,
) -> SpeedReport:
    """Time the network's variants, the estimator and the blend, on the CPU with torch's threads.

    Raises:
        DeploymentError: a file of the deployment is missing or was changed.
        AdapterError: an adapter's files are invalid.
    """
    deployment = restorer.deployment
    backbone = load_backbone(deployment.find(deployment.backbone.file))
    blender = make_blender(deployment, backbone=backbone)
    notes = []
    # equal weights that sum to 1; PEFT has none, and the cost does not depend on their values
    weights = [1 / max(1, len(deployment.adapters))] * len(deployment.adapters)
    variants: dict[str, nn.Module] = {BACKBONE: backbone, BLENDED: blender.blend(weights)}
    difference = None
    try:
        variants[PEFT] = make_peft_model(deployment).base_model.model
    except MissingExtraError as error:
        notes.append(f"not compared with PEFT: {error}")
    else:
        difference = _largest_difference(blender.blend([1.0] * len(weights)), variants[PEFT])
    precisions = [torch.float32]
    if fast_bf16_on_cpu():
        precisions.append(torch.bfloat16)
    else:
        notes.append("bf16 not measured: this processor does not multiply bf16 in hardware")
    networks: list[NetworkSpeed] = []
    total = len(precisions) * len(sides) + 2
    for precision in precisions:
        for side in sides:
            picture = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(side))
            picture = picture.contiguous(memory_format=torch.channels_last)
            calls = {name: _call(network, picture, precision) for name, network in variants.items()}
            name = str(precision).removeprefix("torch.")
            networks.append(NetworkSpeed(side=side, precision=name, seconds=interleaved(calls, repeats)))
            if progress:
                progress(len(networks), total, f"{side} x {side}, {name}")
    estimator = _estimator_seconds(restorer, sides, max(repeats, 7))
    if progress:
        progress(total - 1, total, "estimator")
    fresh = make_blender(deployment)
    blend = interleaved({BLENDED: lambda: fresh.blend(weights)}, max(repeats, 9))[BLENDED]
    if progress:
        progress(total, total, "blend")
    return SpeedReport(
        deployment=deployment.name,
        fingerprint=deployment.backbone.fingerprint,
        adapters=tuple(adapter.degradation for adapter in deployment.adapters),
        repeats=repeats,
        threads=torch.get_num_threads(),
        machine=machine(),
        torch=torch.__version__,
        blend_ms=blend * 1e3,
        estimator_ms={side: seconds * 1e3 for side, seconds in estimator.items()},
        networks=tuple(networks),
        largest_difference=difference,
        notes=tuple(notes),
    )


def interleaved(calls: Mapping[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """Return the median seconds of every call; each runs once to warm up, then all in turn.

    Every second of the `repeats` rounds runs in reverse, so no call always follows the same one.
    """
    for call in calls.values():
        call()
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for repeat in range(repeats):
            for name in list(calls) if repeat % 2 == 0 else reversed(list(calls)):
                started = time.perf_counter()
                calls[name]()
                seconds[name].append(time.perf_counter() - started)
    finally:
        if collecting:
            gc.enable()
    return {name: median(values) for name, values in seconds.items()}


def make_blender(deployment: Deployment, count: int | None = None, backbone: Backbone | None = None) -> Blender:
    """Return a blender of the deployment's adapters; with `count`, so many: they are repeated.

    Raises:
        DeploymentError: a file is missing or was changed.
        AdapterError: an adapter's files are invalid.
    """
    backbone = load_backbone(deployment.find(deployment.backbone.file)) if backbone is None else backbone
    fingerprint = deployment.backbone.fingerprint
    return Blender(
        backbone,
        [
            read_adapter_files(
                deployment.find(a.config), deployment.find(a.weights), backbone, fingerprint, a.degradation
            )
            for a in _repeated(deployment, count)
        ],
    )


def make_peft_model(deployment: Deployment, count: int | None = None) -> Any:  # noqa: ANN401 - PEFT is an extra
    """Load a second backbone with every adapter active through PEFT, not merged.

    With `count`, so many adapters: the deployment's, repeated.

    Raises:
        MissingExtraError: PEFT is not installed, or the deployment has no adapters for it.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingExtraError("PEFT is not installed; pip install 'abair[train]'") from None
    if not deployment.adapters:
        raise MissingExtraError(f"deployment {deployment.name} has no adapters; train one (abair train adapter)")
    backbone = load_backbone(deployment.find(deployment.backbone.file))
    model: Any = None
    with tempfile.TemporaryDirectory(prefix="abair-speed-") as scratch:
        for index, adapter in enumerate(_repeated(deployment, count)):
            # PEFT wants a folder with its own file names; a bundle may name its files otherwise
            folder = Path(scratch) / str(index)
            folder.mkdir()
            shutil.copyfile(deployment.find(adapter.config), folder / CONFIG_FILE)
            shutil.copyfile(deployment.find(adapter.weights), folder / WEIGHTS_FILE)
            if model is None:
                model = PeftModel.from_pretrained(backbone, str(folder), adapter_name=f"adapter{index}")
            else:
                model.load_adapter(str(folder), adapter_name=f"adapter{index}")
    model.base_model.set_adapter(list(model.peft_config))
    model.eval().requires_grad_(False)
    return model


def _repeated(deployment: Deployment, count: int | None) -> list[AdapterRef]:
    every = list(deployment.adapters)
    return every if count is None else list(itertools.islice(itertools.cycle(every), count))


@torch.inference_mode()
def _largest_difference(ours: nn.Module, theirs: nn.Module) -> float:
    picture = torch.rand((1, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    return float((ours(picture) - theirs(picture)).abs().max())


def _call(network: nn.Module, picture: Tensor, precision: torch.dtype) -> Callable[[], Tensor]:
    """Return a function that runs the network as `Restorer` does: lower precisions by autocast."""

    @torch.inference_mode()
    def call() -> Tensor:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            result: Tensor = network(picture)
        return result

    return call


def _estimator_seconds(restorer: Restorer, sides: Sequence[int], repeats: int) -> dict[Any, float]:
    rng = np.random.default_rng(0)
    pictures = {side: rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides}
    return interleaved({side: lambda p=picture: restorer.estimate(p) for side, picture in pictures.items()}, repeats)  # type: ignore[misc]


def machine() -> str:
    """Return the processor's name, or its architecture where the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
