"""Start a training in several processes of this machine, one a processor core or GPU.

On several machines `torchrun` does it. It takes options of the training that look like the
beginning of its own, such as --start, for its own, unless `--` stands before the module's name.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from abair.errors import TrainingError
from abair.signals import HOW, LAUNCHER, Terminated

LOGGERS: Final = ("torch.distributed.elastic.agent.server.api", "torch.distributed.elastic.multiprocessing.api")
"""What says that a process ended; the process itself says why."""


def run_in_processes(count: int, arguments: Sequence[str]) -> int:
    """Run `abair` with these arguments in `count` processes; return the exit code.

    Each has one thread, unless OMP_NUM_THREADS says otherwise. If one fails, the others are ended;
    a signal, or the death of this process, ends all of them.

    Raises:
        TrainingError: a process was killed.
        KeyboardInterrupt: Ctrl-C was pressed; SIGTERM and SIGHUP raise its child `Terminated`.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[LAUNCHER] = str(os.getpid())
    # Newer versions of torch leave the other signals to our handlers, which raise here, and end the
    # processes by SIGTERM. Python answers that in silence even while it starts, unlike SIGINT.
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGQUIT")
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
        rank, failure = next(iter(error.failures.items()))
        killed_by = -failure.exitcode if failure.exitcode < 0 else failure.exitcode - 128
        if killed_by > 0:
            raise TrainingError(
                f"training process {rank} of {count}: was ended by {signal.Signals(killed_by).name}; expected "
                "it to go on; the others were ended; run the command again, it goes on from the last checkpoint"
            ) from None
        return failure.exitcode
    except SignalException as stopped:  # torch's own handlers
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise Terminated(f"stopped by {HOW.get(stopped.sigval, stopped.sigval.name)}") from None
    finally:
        del os.environ[LAUNCHER]  # this process says how it ended
    return 0
