"""What a training costs: parameters that are trained, steps, time, and multiply-adds, forward and backward."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from torch.utils.flop_counter import FlopCounterMode

from abair.training.task import State, Task


class Effort(BaseModel):
    """What a training cost; `multiply_adds` are those of all steps, forward and backward."""

    model_config = ConfigDict(frozen=True)

    trained: int
    steps: int
    minutes: float
    multiply_adds: float

    @property
    def cells(self) -> str:
        """For a row of a table: trained parameters, steps, 10^12 multiply-adds."""
        return f"{self.trained:,} | {self.steps:,} | {self.multiply_adds / 1e12:.1f}"


def spent(task: Task, state: State) -> Effort:
    """What a run cost."""
    return Effort(
        trained=trained_parameters(task),
        steps=state.step,
        minutes=state.seconds / 60,
        multiply_adds=state.step * multiply_adds(task),
    )


def trained_parameters(task: Task) -> int:
    """How many numbers the optimiser changes."""
    return sum(parameter.numel() for parameter in task.module.parameters() if parameter.requires_grad)


def multiply_adds(task: Task) -> float:
    """Of one step, counted on a step that changes nothing."""
    task.module.train()
    with FlopCounterMode(display=False) as counter:
        loss, _ = task.loss(task.batch(0))
        loss.backward()  # type: ignore[no-untyped-call]
    task.module.zero_grad(set_to_none=True)
    task.module.eval()
    return float(counter.get_total_flops()) / 2
