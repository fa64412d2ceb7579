"""Restore files one by one, with one loaded deployment: read, restore, write, report."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from abair.batch.photo import Choices, restore_photo
from abair.cli import inputs
from abair.cli.console import Reporter, tell_doubt, weight_bars
from abair.labels import round_confidence, round_weights
from abair.text import one_line

if TYPE_CHECKING:
    from abair.cli.gallery import Gallery
    from abair.images.photo import Photo
    from abair.inference.restorer import Restorer
    from abair.inference.results import Restored


class FileRestorer:
    """Restores the files of jobs; each failure is reported and ends nothing else."""

    def __init__(
        self, restorer: Restorer, choices: Choices, reporter: Reporter, pictures: Gallery | None = None
    ) -> None:
        self._restorer, self._choices, self._reporter, self._pictures = restorer, choices, reporter, pictures

    def restore(self, job: inputs.Job) -> None:
        """Restore a file and report the result."""
        record: dict[str, Any] = {}
        keeping = inputs.keeping_time(job) if self._choices.keep_times else contextlib.nullcontext()
        with self._reporter.guard(str(job.source)), keeping:
            record = self._restore(job)
        for warning in record.get("warnings", ())[1 if self._choices.warning else 0 :]:
            self._reporter.log(f"warning: {job.source}: {warning}")
        if record and self._reporter.json_lines:
            self._reporter.result(record)

    def print_plan(self, job: inputs.Job) -> None:
        """Print a job's output and the estimate of its photo; write nothing."""
        from abair import images

        with self._reporter.guard(str(job.source)):
            photo = images.read(job.source, max_megapixels=self._choices.max_megapixels)
            weights, confidence, unknown = self._restorer.judge(photo.visible)
            if self._reporter.json_lines:
                plan: dict[str, Any] = {
                    "input": str(job.source),
                    "output": str(job.target),
                    "weights": round_weights(weights),
                }
                plan |= {"confidence": round_confidence(confidence), "unknown": round_confidence(unknown)}
                self._reporter.result(plan)
            else:
                source, target = (
                    self._reporter.aliases.get(str(path), one_line(str(path))) for path in (job.source, job.target)
                )
                print(f"{source} -> {target}{tell_doubt(confidence, unknown)}", *weight_bars(weights), sep="\n")

    def _restore(self, job: inputs.Job) -> dict[str, Any]:
        """Restore one file and return its JSON record.

        A function of its own, so that no photo stays in memory while the next one is read.
        """

        def show(photo: Photo, restored: Restored[Any]) -> None:
            if self._pictures is not None:
                name = self._reporter.aliases.get(str(job.source), str(job.source))
                self._pictures.add(name, photo, restored.image, restored.weights)

        return restore_photo(
            self._restorer,
            job.source,
            job.target,
            self._choices,
            keep_format=job.keep_format,
            overwrite=self._choices.overwrite,
            look=show,
        )
