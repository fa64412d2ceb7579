"""Start a training in several processes of this machine, one a processor core or GPU.

On several machines `torchrun` does it. It takes options of the training that look like the
beginning of its own, such as --start, for its own, unless `--` stands before the module's name.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

LOGGERS: Final = ("torch.distributed.elastic.agent.server.api", "torch.distributed.elastic.multiprocessing.api")
"""What says that a process ended; the process itself says why."""


def run_in_processes(count: int, arguments: Sequence[str]) -> int:
    """Run `abair` with these arguments in `count` processes; return the exit code.

    Each has one thread, unless OMP_NUM_THREADS says otherwise. If one fails, the others are ended;
    a signal ends all of them.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="abair-train",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "abair", *arguments)
    except ChildFailedError as error:
        return max(1, next(iter(error.failures.values())).exitcode)
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0
