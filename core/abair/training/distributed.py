"""Several processes, started by torchrun, as one training run: who this one is, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist

# Its defaults hold the group that there is when it is imported, and torch.optim imports it in its first step: the group
# would outlive `leave`, and its threads might be caught at work by the end of the interpreter, which aborts.
import torch.distributed.nn.functional
from torch import Tensor, nn

from abair.errors import TrainingError


def count() -> int:
    """How many processes there are; 1 unless torchrun started this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def own_device(device: str) -> str:
    """The device of this process: `cuda` becomes the GPU of its local number.

    Raises:
        TrainingError: one GPU is named for several processes.
    """
    if count() == 1 or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise TrainingError(f"device {device}: found {count()} processes, expected one a GPU; name it --device cuda")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def join(device: str) -> tuple[int, int]:
    """(rank, number of processes); joins the group the first time. GPUs talk through NCCL, CPUs through Gloo."""
    if count() == 1:
        return 0, 1
    if not dist.is_initialized():
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return dist.get_rank(), dist.get_world_size()


def leave() -> None:
    """Wait until the first process has written its files, and end the group and its threads."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def share_start(tensors: Iterable[Tensor]) -> None:
    """All processes start from the first one's weights: a module that was made without a seed differs in each."""
    if not dist.is_initialized():
        return
    with torch.no_grad():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def as_first(told: bool) -> bool:
    """What the first process says, in all of them: clocks and validations differ, and all must end at one step."""
    if not dist.is_initialized():
        return told
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    flag = torch.tensor([int(told)], device=device)
    dist.broadcast(flag, 0)
    return bool(flag.item())


def share_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Each process gets the mean of all gradients."""
    if not dist.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(dist.get_world_size())
