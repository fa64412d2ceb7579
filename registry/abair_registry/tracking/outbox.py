"""A run, told to MLflow as it goes; what it could not be told is kept for later.

MLflow observes, so an operation or a training does not wait for it. A run that cannot be told is
written below the home, in a folder of `outbox`: `entries.jsonl` holds the calls in order, and the
files lie beside it. A later command replays it. To replay a part that MLflow has already changes
nothing.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from filelock import FileLock, Timeout

from abair.errors import RegistryError
from abair.text import describe_error
from abair_registry.db.models import OperationRow
from abair_registry.processes.identity import ProcessIdentity
from abair_registry.registry import Registry
from abair_registry.tracking.mlflow_client import Runs, Status, image_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER: Final = "outbox"
"""The folder below the home; while it exists, MLflow has not been told everything."""
_ENTRIES: Final = "entries.jsonl"
_CALLS: Final = frozenset({"metrics", "tags", "describe", "file", "conclude", "end"})
"""What a kept run may ask of MLflow after its beginning."""

TRAINING_RUN: Final = "abair.training"
"""The tag that tells the run of a training from all others."""
_UNREADABLE: Final = (OSError, LookupError, TypeError, ValueError)
"""The errors of files of the outbox that were lost or altered."""

Entry = tuple[str, dict[str, Any]]
"""A method of `Runs`, and its arguments but for the run's id."""


class OperationRun:
    """The MLflow run of an operation. No method fails because of MLflow.

    The first failure is told by `warn`, in one line. From then on the run is kept in the outbox.
    """

    what: ClassVar[str] = "operation"
    """What goes on without MLflow."""
    identity: ClassVar[tuple[str, ...]] = ("abair.operation", "abair.started")
    """The tags by which the run is found again."""

    def __init__(self, runs: Runs, home: Path, warn: Callable[[str], None]) -> None:
        self.run_id: str | None = None
        """MLflow's id; None while MLflow is away."""
        self._runs, self._home, self._warn = runs, home, warn
        self._folder = home / FOLDER
        self._entries: list[Entry] = []
        self._kept: int | None = None
        self._lost = False

    def begin(self, name: str, *, tags: Mapping[str, str], params: Mapping[str, object]) -> None:
        """Start the run; `tags` hold those of its `identity`."""
        parts = ["".join(filter(str.isalnum, tags[name])) for name in self.identity]
        self._folder = self._home / FOLDER / "-".join(parts)
        shown = {key: str(value) for key, value in params.items()}
        self._do("begin", name=name, tags=dict(tags), params=shown, at=_now())

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step."""
        self._do("metrics", values={name: float(value) for name, value in values.items()}, step=step, at=_now())

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._do("tags", values=dict(values))

    def describe(self, markdown: str, whole: str = "") -> None:
        """Set the text at the top of the run's page; store the `whole` one, if there is more."""
        self._do("describe", markdown=markdown, whole=whole)

    def figure(self, figure: Figure, path: str) -> None:
        """Store a figure as an image."""
        self._do("file", content=image_of(figure, path), path=path)

    def text(self, text: str, path: str) -> None:
        """Store a text as a file."""
        self._do("file", content=text.encode(), path=path)

    def file(self, content: bytes, path: str) -> None:
        """Store bytes as a file."""
        self._do("file", content=content, path=path)

    def conclude(self, headline: str, tags: Mapping[str, str]) -> None:
        """Close the run as finished, replace its text's first line, and set tags."""
        self._do("conclude", headline=headline, tags=dict(tags), at=_now())

    def end(self, status: Status, reason: str = "") -> None:
        """Close the run unless it is closed already."""
        self._do("end", status=status, reason=reason, at=_now())

    def _do(self, call: str, **arguments: Any) -> None:
        self._entries.append((call, arguments))
        if self._kept is None:
            try:
                if call == "begin":
                    self.run_id = self._runs.begin(**arguments)
                else:
                    getattr(self._runs, call)(self.run_id, **arguments)
                return
            except RegistryError as error:
                self._kept = 0
                self._warn(
                    f"{error}; the {self.what} goes on; the next command that reaches MLflow mirrors its run, which is "
                    f"kept in {self._folder}"
                )
        self._keep()

    def _keep(self) -> None:
        """Write what is not in the outbox yet; nothing more once that failed."""
        if self._lost:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / _ENTRIES).open("a", encoding="utf-8") as entries:
                while self._kept is not None and self._kept < len(self._entries):
                    call, arguments = self._entries[self._kept]
                    if call == "file":
                        name = f"{self._kept:05}"
                        (self._folder / name).write_bytes(arguments["content"])
                        arguments = {"path": arguments["path"], "stored": name}
                    entries.write(json.dumps([call, arguments]) + "\n")
                    self._kept += 1
        except OSError as error:
            self._warn(f"{self._folder}: cannot be written ({error.strerror or error}); MLflow's run will lack a part")
            self._lost = True


def is_pending(home: Path) -> bool:
    """Return whether there is something that MLflow could not be told."""
    return (home / FOLDER).is_dir()


def put_off(home: Path) -> None:
    """Note that MLflow could not be told what is live."""
    with suppress(OSError):  # the warning was given; `doctor` looks all the same
        (home / FOLDER).mkdir(exist_ok=True)


def settle(home: Path) -> None:
    """Note that MLflow was told everything but the runs of operations that go on."""
    with suppress(OSError):  # such a run lies there
        (home / FOLDER).rmdir()


class TrainingRun(OperationRun):
    """The MLflow run of a training, which is kept like that of an operation."""

    what: ClassVar[str] = "training"
    identity: ClassVar[tuple[str, ...]] = (TRAINING_RUN,)


def drain(registry: Registry, runs: Runs, operation: int | None = None) -> tuple[list[str], list[str]]:
    """Replay the kept runs of all operations that have ended, and of the one that calls.

    Returns:
        A line for each run that is mirrored now, and one for each that MLflow refuses.

    Raises:
        RegistryError: MLflow cannot be reached or written, or the outbox cannot be locked.
    """
    home = registry.settings.home
    done: list[str] = []
    refused: list[str] = []
    if not is_pending(home):
        return done, refused
    with suppress(Timeout), _locked(home):  # else another process does it
        for folder, entries in _kept_runs(home, refused):
            try:
                tags = entries[0][1]["tags"]
                if TRAINING_RUN in tags:
                    continue
                number, started = int(tags["abair.operation"]), str(tags["abair.started"])
                with registry.database.read() as session:
                    row = session.get(OperationRow, number)
                    ours = row is not None and row.started.isoformat() == started
                    if row is not None and ours and row.state == "running" and row.id != operation:
                        continue
                run_id = _replay(runs, entries, folder, OperationRun.identity)
            except RegistryError as error:
                if runs.away is not None:
                    raise
                refused.append(f"{error}; the run is kept in {folder}; to give it up, delete that folder")
                continue
            except _UNREADABLE as error:
                refused.append(_unreadable("operation", error, folder))
                continue
            if ours:
                with registry.database.write() as session:
                    found = session.get_one(OperationRow, number)
                    found.detail = {**found.detail, "run_id": run_id}
            shutil.rmtree(folder)
            done.append(f"run {run_id} holds {entries[0][1]['name']}, which was kept meanwhile")
    return done, refused


def drain_trainings(home: Path, runs: Runs) -> tuple[list[str], list[str]]:
    """Replay the kept runs of trainings that have ended; `runs` are those of their experiment.

    The run of a training that was killed ends so.

    Returns:
        As `drain`.

    Raises:
        RegistryError: MLflow cannot be reached or written, or the outbox cannot be locked.
    """
    done: list[str] = []
    refused: list[str] = []
    if not is_pending(home):
        return done, refused
    with suppress(Timeout), _locked(home):
        for folder, entries in _kept_runs(home, []):  # those that cannot be read are told with the operations
            try:
                tags = entries[0][1]["tags"]
                process = ProcessIdentity.from_tags(tags)
                ended = entries[-1][0] == "end"
                if TRAINING_RUN not in tags or not (ended or process is None or process.is_gone()):
                    continue
                run_id = _replay(runs, entries, folder, TrainingRun.identity)
                if not ended:
                    runs.end(run_id, "KILLED", f"{process} was gone before the training ended")
            except RegistryError as error:
                if runs.away is not None:
                    raise
                refused.append(f"{error}; the run is kept in {folder}; to give it up, delete that folder")
            except _UNREADABLE as error:
                refused.append(_unreadable("training", error, folder))
            else:
                shutil.rmtree(folder)
                done.append(f"run {run_id} holds {entries[0][1]['name']}, which was kept meanwhile")
    return done, refused


def _kept_runs(home: Path, refused: list[str]) -> Iterator[tuple[Path, list[Entry]]]:
    """Yield the folders of kept runs with their entries; delete those that hold none.

    A line for each whose entries cannot be read is added to `refused`.
    """
    for folder in sorted(path for path in (home / FOLDER).iterdir() if path.is_dir()):
        try:
            entries = _read(folder)
        except OSError as error:
            refused.append(_unreadable("operation", error, folder))
            continue
        if entries and entries[0][0] == "begin":
            yield folder, entries
        else:  # killed at the first one
            shutil.rmtree(folder)


def _unreadable(what: str, error: Exception, folder: Path) -> str:
    return (
        f"MLflow's run of {'an' if what == 'operation' else 'a'} {what} cannot be read any more "
        f"({describe_error(error)}); expected what the {what} left; it is kept in {folder}; to give it up, delete that "
        "folder"
    )


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the outbox. Raises Timeout if another process does, RegistryError if nobody can."""
    path = home / f"{FOLDER}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except OSError as error:
        if isinstance(error, Timeout):
            raise
        raise RegistryError(
            f"{path}: cannot be locked ({error.strerror or error}); expected a file that can be written; make it one, "
            f"or move {path} away"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _replay(runs: Runs, entries: list[Entry], folder: Path, identity: Sequence[str]) -> str:
    """Tell MLflow all entries; the run is the one with the tags of `identity`, if there is one.

    Raises:
        RegistryError: MLflow cannot be reached or written, or refuses the run.
        OSError: a file that was kept cannot be read.
        LookupError, TypeError, ValueError: the entries are not as they were written.
    """
    begin = entries[0][1]
    if unknown := next((call for call, _ in entries[1:] if call not in _CALLS), None):
        raise ValueError(f"found {unknown!r} among its entries")
    run_id = runs.find({key: begin["tags"][key] for key in identity})
    if run_id is None:
        run_id = runs.begin(**begin)
    for call, arguments in entries[1:]:
        if call == "file":
            runs.file(run_id, (folder / arguments["stored"]).read_bytes(), arguments["path"])
        else:
            getattr(runs, call)(run_id, **arguments)
    return run_id


def _read(folder: Path) -> list[Entry]:
    """Return the entries of a folder; a last one that was written in part does not count.

    Raises:
        OSError: they cannot be read.
    """
    entries: list[Entry] = []
    with suppress(FileNotFoundError, ValueError):
        for line in (folder / _ENTRIES).read_text(encoding="utf-8").splitlines():
            call, arguments = json.loads(line)
            entries.append((call, arguments))
    return entries


def _now() -> int:
    """Return the time in ms since 1970."""
    return int(time.time() * 1000)
