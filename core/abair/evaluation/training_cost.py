"""The cost of a training run: trained parameters, steps, time, multiply-adds."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict
from torch.utils.flop_counter import FlopCounterMode

from abair.training.task import State, Task


class TrainingCost(BaseModel):
    """The cost of a training run; `multiply_adds` counts all steps, forward and backward."""

    model_config = ConfigDict(frozen=True)

    trained: int
    steps: int
    minutes: float
    multiply_adds: float

    @property
    def cells(self) -> list[str]:
        """The cells of a table under `COST_COLUMNS`."""
        return [f"{self.trained:,}", f"{self.steps:,}", f"{self.multiply_adds / 1e12:.1f}"]


COST_COLUMNS: Final = ("trained parameters", "steps", "10^12 multiply-adds")


def training_cost(task: Task, state: State) -> TrainingCost:
    """Return the cost of a run that has reached `state`."""
    return TrainingCost(
        trained=count_trained_parameters(task),
        steps=state.step,
        minutes=state.seconds / 60,
        multiply_adds=state.step * count_multiply_adds(task),
    )


def count_trained_parameters(task: Task) -> int:
    """Count the parameters that the optimiser changes."""
    return sum(parameter.numel() for parameter in task.module.parameters() if parameter.requires_grad)


def count_multiply_adds(task: Task) -> float:
    """Count the multiply-adds of one step by running one whose gradients are dropped."""
    task.module.train()
    with FlopCounterMode(display=False) as counter:
        loss, _ = task.loss(task.batch(0))
        loss.backward()  # type: ignore[no-untyped-call]
    task.module.zero_grad(set_to_none=True)
    task.module.eval()
    return float(counter.get_total_flops()) / 2
