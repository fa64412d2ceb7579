"""Photos restored by the workers of a Ray cluster, which may be this machine alone.

Ray Data hands planned photos to actors that hold one loaded restorer each. It repeats what a worker
or a node that died had begun; the ledger keeps what was done.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from abair.batch.ledger import Attempt, MemoryLedger
from abair.batch.worker import Orders, PhotoWorker, Task
from abair.deployment import Deployment, write_deployment
from abair.errors import AbairError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow

    from abair.inference.hardware import Precision
    from abair.inference.restorer import Restorer

LARGEST_BLOCK: Final = 64
"""Photos that one call of a worker gets: what a dead worker's successor is given at most."""
CALLS: Final = 8
"""Calls that each worker gets at least, if there are enough photos."""
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray's telemetry
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


class Loadable(Protocol):
    """What a worker loads its restorer from; it is pickled once."""

    def load(self) -> Restorer:
        """Return a restorer."""


@dataclass(frozen=True)
class Bundle:
    """A deployment and its files by their paths below its folder, to be loaded elsewhere."""

    deployment: Deployment
    files: dict[str, bytes]
    device: str
    precision: Precision

    @classmethod
    def read(cls, deployment: Deployment, device: str, precision: Precision) -> Bundle:
        """Read what serving needs, and compare each file with its hash.

        Raises:
            DeploymentError: a file is missing or changed.
        """
        needed = [file for file in deployment.files() if file != deployment.replay]
        files = {file.path: deployment.find(file).read_bytes() for file in needed}
        return cls(deployment, files, device, precision)

    def load(self) -> Restorer:
        """Return a restorer; its files lie on this machine only meanwhile.

        Raises:
            AbairError: the deployment or the device cannot be used.
        """
        from abair.inference.memory import set_up_memory
        from abair.inference.restorer import Restorer

        set_up_memory()
        with TemporaryDirectory(prefix="abair-") as folder:
            for name, data in self.files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            file = write_deployment(self.deployment.model_copy(), Path(folder))
            return Restorer.load(file, device=self.device, precision=self.precision)


def _fetch(reference: object) -> object:
    """Wait for a result of Ray and return it."""
    import ray

    get: Any = ray.get
    return get(reference)


class _Method(Protocol):
    def remote(self, *arguments: object) -> object: ...


class _Actor(Protocol):
    begin: _Method
    finish: _Method


class _RemoteLedger:
    """The ledger as a worker sees it: an actor beside the program that was called."""

    def __init__(self, actor: _Actor) -> None:
        self._actor = actor

    def begin(self, index: int, was_there: bool) -> Attempt:
        return cast("Attempt", _fetch(self._actor.begin.remote(index, was_there)))

    def finish(self, index: int, record: str) -> None:
        _fetch(self._actor.finish.remote(index, record))


class _BlockWorker:
    """What Ray Data makes an actor of: planned photos in, their records out."""

    def __init__(self, bundle: tuple[object], orders: Orders, ledger: _Actor) -> None:
        self._worker = PhotoWorker(cast("Loadable", _fetch(bundle[0])).load, orders, _RemoteLedger(ledger))

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        import pyarrow as pa

        tasks = [Task(**row) for row in block.to_pylist()]
        records = [self._worker.work(task) for task in tasks]
        return pa.table({"index": [task.index for task in tasks], "record": pa.array(records, pa.string())})


def check_installed() -> None:
    """Check that Ray is here.

    Raises:
        MissingExtraError: it is not.
    """
    from importlib.util import find_spec

    try:
        missing = next((name for name in ("ray", "pyarrow", "fsspec") if find_spec(name) is None), "")
    except ValueError:  # how a test says that a module is missing
        missing = "ray"
    if missing:
        raise MissingExtraError(f"--engine ray: {missing} is missing; install it with: pip install 'abair[ray]'")


def restore(
    tasks: Iterable[Task],
    bundle: Loadable,
    orders: Orders,
    *,
    workers: int | None,
    gpus: float = 0.0,
) -> Generator[dict[str, Any], None, None]:
    """Yield the record of each task, in their order, as soon as all before it are done.

    Connects to the cluster of `RAY_ADDRESS` or to one that runs on this machine, and else starts
    one that ends with the iterator. A worker or a node that dies loses no task.

    Args:
        tasks: what to do, with indices from 0.
        bundle: what a worker loads; it is put into the object store once.
        orders: what holds for all tasks.
        workers: at most so many; None is one for each CPU of the cluster, or each GPU if it needs
            one.
        gpus: that each worker needs.

    Raises:
        AbairError: Ray cannot be started or reached, or a record is missing.
    """
    check_installed()
    with _cluster() as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        resources = ray.cluster_resources()
        count = workers or max(1, int(resources.get("GPU", 1) / gpus if gpus else resources.get("CPU", 1)))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        ledger = ray.remote(MemoryLedger).options(num_cpus=0, scheduling_strategy=here, max_concurrency=1).remote()
        constructor = ((ray.put(bundle),), orders, ledger)
        results = ray.data.from_arrow(list(_blocks(tasks, count))).map_batches(
            _BlockWorker,
            fn_constructor_args=constructor,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
            num_cpus=1,
            num_gpus=gpus or None,
        )
        expected = 0
        for block in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            rows = block.to_pylist()
            ledger.forget.remote([row["index"] for row in rows])
            for row in rows:
                if row["index"] != expected:
                    raise AbairError(
                        f"--engine ray: found photo {row['index']}, expected {expected} of the plan; start the command "
                        "again with --skip-existing, and report this"
                    )
                expected += 1
                yield json.loads(row["record"])


def _blocks(tasks: Iterable[Task], workers: int) -> Iterator[pyarrow.Table]:
    """Yield tables of at most `LARGEST_BLOCK` tasks, and `CALLS` of them for each worker."""
    import pyarrow as pa

    names = [field.name for field in fields(Task)]
    types = [pa.int64(), pa.string(), pa.string(), pa.bool_()]
    all_tasks = list(tasks)
    size = max(1, min(LARGEST_BLOCK, len(all_tasks) // (workers * CALLS)))
    for start in range(0, len(all_tasks), size):
        columns = zip(*map(astuple, all_tasks[start : start + size]), strict=True)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        yield pa.table(dict(zip(names, arrays, strict=True)))


@contextmanager
def _cluster() -> Iterator[Any]:
    """Yield the module `ray`, connected; Ray says nothing on the terminal.

    Raises:
        AbairError: no cluster can be started or reached.
    """
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    import ray
    import ray.data

    with ExitStack() as at_end:
        if not ray.is_initialized():
            with _own_handlers(), _silent_start():
                try:
                    ray.init(log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)
                except Exception as error:
                    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
                    raise AbairError(
                        f"--engine ray: no cluster can be started or reached ({text}); correct RAY_ADDRESS, or unset "
                        "it to start one here"
                    ) from error
            at_end.callback(ray.shutdown)
        for name in ("ray", "ray.data"):
            logger = logging.getLogger(name)
            at_end.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        yield ray


@contextmanager
def _silent_start() -> Iterator[None]:
    """Keep from stderr what Ray's core says when it starts: that its log level was set.

    Its processes have log files. What goes wrong is an exception.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep this program's handlers of signals, which Ray takes away in the main thread."""
    numbers = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    kept = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                if handler is not None:
                    signal.signal(number, handler)
