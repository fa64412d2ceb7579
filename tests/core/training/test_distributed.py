"""Several processes train as one would that saw all their batches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.toy_task import Toy, make_module, make_settings

from abair.training import distributed, loop
from abair.training.loop import train
from abair.training.report import read_history
from abair.training.task import Batch


class _Shared(Toy):
    """In double precision, so that sums in another order do not show."""

    def __init__(self, seed: int, *, both: bool = False) -> None:
        super().__init__(module=make_module(seed, width=24).double())
        self.both = both

    def batch(self, index: int) -> Batch:
        """One rank's batch, or what two ranks have in the step of this number."""
        if self.both:
            x = torch.cat([super(_Shared, self).batch(2 * index + rank)[0] for rank in range(2)])
        else:
            x = super().batch(index)[0]
        return x.double(), x.double().flip(1)


def _train_rank(folder: str, out: str, optimizer: str) -> None:
    """Run in one process of the group; each makes its module from a seed of its own."""
    torch.set_num_threads(1)
    task = _Shared(seed=int(os.environ["RANK"]))
    train(task, make_settings(steps=6, optimizer=optimizer), Path(folder), quiet=True)
    save_file({name: p.detach().contiguous() for name, p in task.module.named_parameters()}, out)
    group = weakref.ref(torch.distributed.group.WORLD)
    distributed.leave_group()
    assert group() is None, "the group and its threads are still there when the interpreter ends, which may abort it"


def _start_rank(tmp_path: Path, rank: int, port: int, optimizer: str) -> subprocess.Popen[bytes]:
    """Start one process of two, as torchrun does."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(loop.__file__).parents[2]), str(Path(__file__).parents[3])]),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='rank')['_train_rank'](*sys.argv[2:])"
    arguments = [__file__, str(tmp_path / "rank"), str(tmp_path / f"{rank}.safetensors"), optimizer]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


@pytest.mark.exhaustive
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_processes_end_with_the_weights_of_one_that_saw_both_their_batches(optimizer: str, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [_start_rank(tmp_path, rank, port, optimizer) for rank in range(2)]
    try:
        single = _Shared(seed=0, both=True)
        train(single, make_settings(steps=6, optimizer=optimizer), tmp_path / "single", quiet=True)
        assert [process.wait(timeout=120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert all(torch.allclose(first[name], p, atol=1e-9) for name, p in single.module.named_parameters())
    assert [entry["step"] for entry in read_history(tmp_path / "rank")] == [3, 6]
