"""Data-parallel training in several processes that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

# Its defaults hold the group that there is when it is imported, and torch.optim imports it in its
# first step: the group would outlive `leave_group`, and its threads might still run at the end of
# the interpreter, which aborts.
import torch.distributed.nn.functional
from torch import Tensor, nn

from abair.errors import TrainingError

Item = TypeVar("Item")


def world_size() -> int:
    """Return the number of processes; 1 unless torchrun started this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_rank_zero() -> bool:
    """Tell whether this process is the one that writes files and messages."""
    return int(os.environ.get("RANK", "0")) == 0


def on_rank_zero(log: Callable[[str], None]) -> Callable[[str], None]:
    """Return `log` in the process of rank zero, and a function that does nothing in the others."""
    return log if is_rank_zero() else lambda _: None


def local_device(device: str) -> str:
    """Return the device of this process: `cuda` becomes the GPU of its local rank.

    Raises:
        TrainingError: one GPU is named for several processes.
    """
    if world_size() == 1 or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise TrainingError(
            f"device {device}: found {world_size()} processes, expected one a GPU; name it --device cuda"
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def join_group(device: str) -> tuple[int, int]:
    """Join the process group, unless that was done before, and return (rank, world size).

    GPUs communicate through NCCL, CPUs through Gloo.
    """
    if world_size() == 1:
        return 0, 1
    if not dist.is_initialized():
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return dist.get_rank(), dist.get_world_size()


def leave_group() -> None:
    """Wait until rank zero has written its files, and end the group and its threads."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def broadcast_weights(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with those of rank zero: modules made without a seed differ."""
    if not dist.is_initialized():
        return
    with torch.no_grad():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def broadcast_flag(flag: bool) -> bool:
    """Return the flag of rank zero: clocks and validations differ, and all must end at one step."""
    if not dist.is_initialized():
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor([int(flag)], device=device)
    dist.broadcast(tensor, 0)
    return bool(tensor.item())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over all processes."""
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    add_up(gradients)
    torch._foreach_div_(gradients, float(dist.get_world_size()))


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace the tensors by their sums over all processes, in one message."""
    if not dist.is_initialized():
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


def share_of(items: Sequence[Item]) -> list[Item]:
    """Return this process's share of work that is divided evenly among all processes."""
    if not dist.is_initialized():
        return list(items)
    return list(items[dist.get_rank() :: dist.get_world_size()])
