"""The routes that take photos."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from abair.errors import AbairError, ServingError
from abair.serving import problems, uploads, work
from abair.serving.forms import DEPLOYMENT, PHOTO, RESTORED, RESULT, Estimate
from abair.serving.guard import header_text
from abair.serving.jobs import Jobs, Stop
from abair.serving.live import LiveRestorer
from abair.serving.metrics import Metrics
from abair.serving.options import EstimateOptions, Limits, RestoreOptions

LONGEST_HEADER: Final = 6000
Result = TypeVar("Result")


@dataclass
class Context:
    """What the routes share; `folder` exists while the server runs."""

    live: LiveRestorer
    limits: Limits
    jobs: Jobs
    metrics: Metrics
    folder: Path | None = None


def photo_routes(context: Context) -> APIRouter:
    """Return the routes that restore and estimate."""
    router = APIRouter(prefix="/v1")
    live, limits, metrics = context.live, context.limits, context.metrics

    @router.post("/restore", responses={**RESTORED, **problems.RESPONSES}, response_class=Response, openapi_extra=PHOTO)
    async def restore(request: Request, options: Annotated[RestoreOptions, Query()]) -> Response:
        """Restore a photo; its metadata is kept."""

        def work_on(upload: uploads.Upload, stop: Stop) -> work.Answer:
            wanted = _with_fields(options, upload.fields)
            return work.restore(live.current(), upload, wanted, limits, stop, metrics)

        done = await _handle(context, request, work_on)
        if isinstance(done, Response):
            return done
        headers = {RESULT: _short_json(done.record), DEPLOYMENT: header_text(done.record["deployment"])}
        return Response(done.data, media_type=done.media_type, headers=headers)

    @router.post("/estimate", responses=problems.RESPONSES, response_model=Estimate, openapi_extra=PHOTO)
    async def estimate(request: Request, _: Annotated[EstimateOptions, Query()]) -> Response:
        """Estimate what is wrong with a photo, without restoring it."""

        def work_on(upload: uploads.Upload, _: Stop) -> dict[str, Any]:
            EstimateOptions.model_validate(upload.fields)
            return work.estimate(live.current(), upload, limits, metrics)

        done = await _handle(context, request, work_on)
        if isinstance(done, Response):
            return done
        return JSONResponse(done, headers={DEPLOYMENT: header_text(done["deployment"])})

    return router


async def _handle(
    context: Context, request: Request, work_on: Callable[[uploads.Upload, Stop], Result]
) -> Result | Response:
    """Take a place, the photo, and a thread, in this order; return the result or a problem."""
    limits = context.limits
    try:
        with context.jobs.place(), tempfile.TemporaryDirectory(dir=context.folder) as folder:
            with context.metrics.stage("upload"):
                upload = await uploads.receive(request, Path(folder), limits)
            try:
                return await context.jobs.run(lambda stop: work_on(upload, stop), request.is_disconnected)
            except AbairError as error:
                return problems.of_error(error, {str(upload.path): upload.name})
    except ServingError as error:
        if error.status in {413, 429, 503}:
            await uploads.drain(request, 2 * limits.max_body)
        raise


def _with_fields(options: RestoreOptions, fields: dict[str, str]) -> RestoreOptions:
    """Return the options of the query with those of a form's fields."""
    if not fields:
        return options
    return RestoreOptions.model_validate(options.model_dump(exclude_unset=True) | fields)


def _short_json(record: dict[str, Any]) -> str:
    """Return JSON in ASCII that fits a header; of many warnings the first ones."""
    while len(text := json.dumps(record)) > LONGEST_HEADER and record["warnings"]:
        record = record | {"warnings": record["warnings"][:-1]}
    return text
