"""What a training costs: parameters that are trained, and the multiply-adds of a step, forward and backward."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from abair.training.loop import Task


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
