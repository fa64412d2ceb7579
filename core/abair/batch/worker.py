"""What a worker does with one planned photo. Nothing here knows Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from abair.batch import places
from abair.batch.ledger import ATTEMPTS, Ledger
from abair.batch.photo import Choices, restore_photo
from abair.errors import AbairError, ImageError

if TYPE_CHECKING:
    from abair.inference.restorer import Restorer


@dataclass(frozen=True)
class Task:
    """A planned photo: places to read and to write, relative paths from the run's folder.

    Attributes:
        index: its position among all inputs, from 0.
        source: the photo's path or URL.
        target: the output's path or URL.
        keep_format: the format stays, whatever the suffix of `target`.
    """

    index: int
    source: str
    target: str
    keep_format: bool


@dataclass(frozen=True)
class Orders:
    """What holds for all photos of a run.

    Attributes:
        choices: the options.
        base: the folder that relative paths start from.
        skip_existing: skip photos whose output exists and is not older.
        explain: makes one line of an error and the name of a photo.
    """

    choices: Choices
    base: str
    skip_existing: bool
    explain: Callable[[BaseException, str], str]


class PhotoWorker:
    """Restores planned photos with one restorer; what goes wrong with one is its record."""

    def __init__(self, load: Callable[[], Restorer], orders: Orders, ledger: Ledger) -> None:
        self._orders, self._ledger = orders, ledger
        self._restorer: Restorer | None = None
        self._failure = ""
        try:
            self._restorer = load()
        except Exception as error:  # else Ray would start workers for ever
            self._failure = orders.explain(error, "")

    def work(self, task: Task) -> str:
        """Return the JSON record of a photo after restoring it, or as it was returned before."""
        source, target = self._locate(task.source), self._locate(task.target)
        record: dict[str, Any] = {"input": task.source, "output": task.target}
        try:
            if self._failure:
                raise AbairError(self._failure)
            attempt = self._ledger.begin(task.index, places.exists(target))
            if attempt.record is not None:
                return attempt.record
            if attempt.number > ATTEMPTS:
                raise ImageError(
                    f"{task.source}: ended the process that read it {ATTEMPTS} times; expected a photo; look at it, "
                    "or give the workers more memory"
                )
            if attempt.was_there and self._orders.skip_existing and places.is_done(source, target):
                record |= {"skipped": True}
            else:
                # a worker that died may have written what was not there at the first attempt
                ours = attempt.number > 1 and not attempt.was_there
                record |= self._restore(task, source, target, self._orders.choices.overwrite or ours)
                record |= {"input": task.source, "output": task.target}
        except Exception as error:  # it would end the whole job (findings/ray_data_deadly_row.sh)
            told = self._orders.explain(error, "").replace(source, task.source).replace(target, task.target)
            record |= {"error": told if task.source in told else f"{task.source}: {told}"}
        text = json.dumps(record)
        self._ledger.finish(task.index, text)
        return text

    def _locate(self, place: str) -> str:
        return place if places.is_url(place) else os.path.join(self._orders.base, place)

    def _restore(self, task: Task, source: str, target: str, overwrite: bool) -> dict[str, Any]:
        from abair import images

        assert self._restorer is not None
        if places.is_url(target) and not overwrite and places.exists(target):
            raise ImageError(f"{target}: found an existing file, expected a free name; use --overwrite to replace it")
        if not places.is_url(target):
            places.make_folder(Path(target).parent)
            if not overwrite and not places.is_url(source) and _are_same(source, target):
                raise ImageError(
                    f"{source}: found the input itself as its output, expected another file; choose another -o, or use "
                    "--overwrite to replace the input"
                )
            images.check_output(Path(target), overwrite=overwrite)
        with TemporaryDirectory(prefix="abair-") as folder:
            local, result = Path(source), Path(target)
            if places.is_url(source):
                local = places.fetch(source, Path(folder))
            if places.is_url(target):
                result = Path(folder, f"restored-{PurePosixPath(target).name}")
            made = local.stat() if local.exists() else None  # reading says what is wrong then
            try:
                record = restore_photo(
                    self._restorer,
                    local,
                    result,
                    self._orders.choices,
                    keep_format=task.keep_format,
                    overwrite=overwrite,
                )
            except AbairError as error:
                text = str(error).replace(str(local), task.source).replace(str(result), task.target)
                raise type(error)(text) from error
            if places.is_url(target):
                places.put(result, target)
            elif self._orders.choices.keep_times and made is not None:
                os.utime(result, ns=(made.st_atime_ns, made.st_mtime_ns))
            return record


def _are_same(source: str, target: str) -> bool:
    return os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target)
