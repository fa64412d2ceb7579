"""What restoring costs on this machine: time and memory against size, blends against adapters.

Each size is restored by a process of its own, as `abair restore` does it, so its largest memory is
known. The network's time beside the blends is that of a photo of a quarter of a megapixel.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from abair.errors import MissingExtraError
from abair.evaluation.compare_builds import PACKAGE, Build, Measurement, measure_build
from abair.evaluation.speed import interleaved, machine, make_blender, make_peft_model
from abair.inference.tiling import restore_parts
from abair.model.look import context_view

if TYPE_CHECKING:
    from abair.deployment import Deployment
    from abair.inference.restorer import Restorer

ADAPTERS: Final = (5, 20, 100)
"""Numbers of adapters in a blend; a deployment's adapters are repeated to reach them."""
SIDE: Final = 500
"""Side in pixels of the square photo that blends are compared with."""
PRECISIONS: Final = ("float32", "auto")


class Point(BaseModel):
    """One size, number of threads and precision: medians of the rounds.

    `seconds` and `cpu_seconds` are those of an estimate and a restoration.
    """

    model_config = ConfigDict(frozen=True)

    megapixels: float
    threads: int
    precision: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


class BlendCost(BaseModel):
    """A number of adapters: milliseconds to blend all, or two of them, and the network's.

    Those of PEFT are its forward pass with all adapters active, and its merge of them by `cat`;
    None where PEFT is not installed.
    """

    model_config = ConfigDict(frozen=True)

    adapters: int
    all_ms: float
    two_ms: float
    network_ms: float
    peft_forward_ms: float | None
    peft_cat_ms: float | None


class SpeedProfile(BaseModel):
    """All figures of one run, and what they were measured on."""

    model_config = ConfigDict(frozen=True)

    deployment: str
    machine: str
    torch: str
    rounds: int
    points: tuple[Point, ...]
    blends: tuple[BlendCost, ...]


def measure_profile(
    restorer: Restorer,
    *,
    megapixels: Sequence[float],
    threads: Sequence[int],
    rounds: int,
    adapters: Sequence[int] = ADAPTERS,
    precisions: Sequence[str] = PRECISIONS,
    progress: Callable[[int, int, str], None] | None = None,
) -> SpeedProfile:
    """Measure every size with every number of threads and precision, then the blends.

    Rounds are made one after the other over all of them, so that whatever else the machine does
    slows all alike.

    Raises:
        DeploymentError: this build cannot restore with the deployment.
    """
    kinds = list(itertools.product(precisions, threads, megapixels))
    found: dict[tuple[str, int, float], list[Measurement]] = {kind: [] for kind in kinds}
    total = rounds * len(kinds) + len(adapters)
    for done, kind in enumerate(kinds * rounds, 1):
        precision, count, size = kind
        build = Build(sys.executable, PACKAGE.parent)
        found[kind].append(measure_build(build, restorer.deployment.folder, size, count, precision))
        if progress:
            progress(done, total, f"{size:g} MP, {count} threads, {precision}")
    points = [
        Point(
            megapixels=size,
            threads=count,
            precision=precision,
            seconds=median(one.restore.wall for one in measured),
            cpu_seconds=median(one.restore.cpu for one in measured),
            peak_bytes=round(median(one.peak_bytes for one in measured)),
        )
        for (precision, count, size), measured in found.items()
    ]
    blends = []
    for done, count in enumerate(adapters, rounds * len(kinds) + 1):
        blends.append(_blend_cost(restorer, count, max(rounds, 3)))
        if progress:
            progress(done, total, f"{count} adapters")
    return SpeedProfile(
        deployment=restorer.deployment.name,
        machine=machine(),
        torch=torch.__version__,
        rounds=rounds,
        points=tuple(points),
        blends=tuple(blends),
    )


def _blend_cost(restorer: Restorer, count: int, repeats: int) -> BlendCost:
    blender = make_blender(restorer.deployment, count)
    every, two = [1 / count] * count, [0.5, 0.5, *[0.0] * (count - 2)]
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    network = blender.blend(every)

    @torch.inference_mode()
    def restore() -> None:
        context = network.context(context_view(pixels, network.size))
        for _ in restore_parts(network, pixels, context, SIDE):
            pass

    calls: dict[str, Callable[[], object]] = {
        "all": lambda: blender.blend(every),
        "two": lambda: blender.blend(two),
        "network": restore,
    } | _peft_calls(restorer.deployment, count)
    seconds: Mapping[str, float] = interleaved(calls, repeats)
    peft = {name: seconds[name] * 1e3 if name in seconds else None for name in ("forward", "cat")}
    return BlendCost(
        adapters=count,
        all_ms=seconds["all"] * 1e3,
        two_ms=seconds["two"] * 1e3,
        network_ms=seconds["network"] * 1e3,
        peft_forward_ms=peft["forward"],
        peft_cat_ms=peft["cat"],
    )


def _peft_calls(deployment: Deployment, count: int) -> dict[str, Callable[[], object]]:
    """Return PEFT's ways to use several adapters at once; none if it is not installed."""
    try:
        model = make_peft_model(deployment, count)
    except MissingExtraError:
        return {}
    network: nn.Module = model.base_model.model
    names = list(model.peft_config)
    picture = torch.rand(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> None:
        model.base_model.set_adapter(names)
        network(picture)

    def cat() -> None:
        mixed: Any = model.base_model
        mixed.add_weighted_adapter(names, [1 / count] * count, "mixed", combination_type="cat")
        mixed.set_adapter("mixed")
        mixed.merge_adapter()
        mixed.unmerge_adapter()
        mixed.delete_adapter("mixed")

    return {"forward": forward, "cat": cat}
