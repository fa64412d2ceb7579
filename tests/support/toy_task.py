"""A small task for the training loop, and the settings and helpers that tests of the loop share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from abair.data.seeds import generator_from
from abair.model.backbone import fingerprint
from abair.training.loop import train
from abair.training.settings import BackboneSettings
from abair.training.task import Batch

EVERY_STEP = 1e-9
"""A checkpoint after every step, in minutes."""


class KilledError(Exception):
    """Stands for a kill in the middle of a step."""


@dataclass
class Toy:
    """A small regression; stops as if killed when its loss is asked for the `stop`-th time."""

    name: str = "toy"
    stop: int = -1
    poison: int = -1
    module: nn.Module = field(default_factory=lambda: make_module())
    depends: dict[str, str] = field(default_factory=lambda: {"data": "numbers"})
    calls: int = 0
    rates: list[float] = field(default_factory=list)

    def batch(self, index: int) -> Batch:
        generator = generator_from(7, index)
        x = torch.rand(4, 3, 6, 6, generator=generator)
        return x, x.flip(1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        if self.calls == self.stop:
            raise KilledError
        loss = (self.module(batch[0]) - batch[1]).square().mean()
        if self.calls == self.poison:
            loss = loss * math.nan
        self.calls += 1
        return loss, {"mse": float(loss.detach())}

    def validate(self) -> dict[str, float]:
        assert not self.module.training
        return {"psnr": float(next(self.module.parameters()).detach().double().sum())}


def make_module(seed: int = 0, width: int = 8) -> nn.Module:
    """Return the same small network for the same seed; from a width of 16 on it has a matrix."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, 3, 3, padding=1))
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def make_settings(**changes: Any) -> BackboneSettings:
    """Return the settings of a run of eight steps, with changes."""
    values: dict[str, Any] = {"steps": 8, "batch": 4, "crop": 16, "learning_rate": 1e-2, "warmup": 2, "decay": 0.5}
    values |= {"ema_decay": 0.9, "precision": "float32", "workers": 0, "validate_every": 3, "checkpoint_minutes": 10.0}
    return BackboneSettings(**values | changes)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Tell whether two networks have equal weights."""
    return fingerprint(first) == fingerprint(second)


def train_toy(folder: Path, settings: BackboneSettings | None = None, **options: Any) -> Toy:
    """Train a new toy in a folder and return it."""
    task = Toy(**options)
    train(task, settings or make_settings(), folder, quiet=True)
    return task
