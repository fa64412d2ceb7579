"""What a phase brings to the training loop, and where a run stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from torch import Tensor, nn

from abair.training.settings import Settings

BETTER: Final = 0.01
"""By how much a validation's score must rise to count as better: dB of PSNR, or hundredths of the
accuracy."""

Batch = tuple[Tensor, ...]


class Task(Protocol):
    """What is trained, how the batch of a number is made, and what its loss is."""

    @property
    def name(self) -> str:
        """What is trained, in one word or two; a checkpoint belongs to one name."""
        ...

    @property
    def module(self) -> nn.Module:
        """The network: its parameters that require gradients are trained, the rest is frozen."""
        ...

    @property
    def depends(self) -> dict[str, str]:
        """What the weights depend on besides the settings, each as a short text."""
        ...

    def batch(self, index: int) -> Batch:
        """Make the batch of this number, on the CPU.

        It is called in worker processes, so it depends on `index` alone.
        """
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss to minimise, and metrics to display."""
        ...

    def validate(self) -> dict[str, float]:
        """Return metrics of held-out samples; `psnr`, or else `accuracy`, is the score."""
        ...


@dataclass
class State:
    """Where a run stands: steps done, training time, and the weights' moving average.

    Where patience is limited, `best` are the averaged weights of the best validation, `best_score`
    its score, and `stale` the number of validations since then.
    """

    step: int = 0
    seconds: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = float("-inf")
    stale: int = 0

    def record_validation(self, metrics: dict[str, float]) -> None:
        """Keep the averaged weights if a validation's score is better than all before."""
        score = metrics["psnr"] if "psnr" in metrics else metrics["accuracy"]
        if score >= self.best_score + BETTER:
            self.best_score, self.stale = score, 0
            self.best = {name: tensor.clone() for name, tensor in self.average.items()}
        else:
            self.stale += 1

    def position(self, settings: Settings) -> float:
        """Return how far the run is, in steps; time passed counts as its share of the steps."""
        by_time = self.seconds / (60 * settings.minutes) if settings.minutes else 0.0
        return max(float(self.step), by_time * settings.steps)

    def is_finished(self, settings: Settings) -> bool:
        """Tell whether the run has used up its steps, its time, or its patience."""
        out_of_patience = bool(settings.patience) and self.stale >= settings.patience
        return out_of_patience or self.position(settings) >= settings.steps
