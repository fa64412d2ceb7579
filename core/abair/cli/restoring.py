"""Restore files one by one, with one loaded deployment: read, restore, write, report."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
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
        self._report(job, self._try(job))

    def restore_all(self, jobs: Sequence[inputs.Job]) -> Generator[inputs.Job, None, None]:
        """Restore files, small ones side by side; report each result in order and yield its job."""
        import torch

        from abair.batch.threads import work_in_order
        from abair.inference.tiling import WHOLE_PIXELS

        alone = len(jobs) == 1 or self._restorer.device.type != "cpu" or self._pictures is not None
        results = work_in_order(
            jobs,
            self._try,
            is_small=lambda job: job.pixels <= WHOLE_PIXELS,
            threads=1 if alone else min(torch.get_num_threads(), len(jobs)),
        )
        with contextlib.closing(results):
            for job, result in results:
                self._report(job, result)
                yield job

    def _try(self, job: inputs.Job) -> dict[str, Any] | Exception:
        """Restore a file and return its JSON record, or why that failed; several threads may."""
        keeping = inputs.keeping_time(job) if self._choices.keep_times else contextlib.nullcontext()
        try:
            with keeping:
                return self._restore(job)
        except Exception as error:  # is one photo's failure, and is reported in its turn
            return error

    def _report(self, job: inputs.Job, result: dict[str, Any] | Exception) -> None:
        if isinstance(result, Exception):
            self._reporter.fail(result, str(job.source), about=str(job.source))
            return
        for warning in result["warnings"][1 if self._choices.warning else 0 :]:
            self._reporter.log(f"warning: {job.source}: {warning}")
        if self._reporter.json_lines:
            self._reporter.result(result)

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
