"""The application: routes, what surrounds them, and its life."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from starlette.exceptions import HTTPException

import abair
from abair.errors import AbairError
from abair.serving import guard, problems
from abair.serving.jobs import Jobs
from abair.serving.live import LiveRestorer
from abair.serving.metrics import Metrics
from abair.serving.options import Limits
from abair.serving.photos import Context, photo_routes
from abair.serving.status import deployment_routes, health_routes
from abair.text import describe_error

POLL_SECONDS: Final = 2.0
"""Between looks for another deployment while nobody asks."""


def create_app(
    live: LiveRestorer,
    limits: Limits,
    *,
    token: str | None = None,
    names: Collection[str] = (),
    log_error: Callable[[Exception], object] = lambda _: None,
) -> FastAPI:
    """Return the application; `token` is asked for if there is one, `names` are the host's."""
    jobs = Jobs(limits.workers, limits.queue, limits.seconds)
    context = Context(live, limits, jobs, Metrics(jobs))

    async def authorize(request: Request) -> None:
        guard.check_token(request, token)

    app = FastAPI(
        title="ABAIR",
        version=abair.__version__,
        summary="Restores damaged photos, without being told what is wrong with them.",
        lifespan=lambda _: _life(context),
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.add_middleware(guard.Guard, live=live, metrics=context.metrics, names=names, log_error=log_error)
    for kind in (AbairError, RequestValidationError, ValidationError):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http)
    guarded = [Depends(authorize)]
    if token is not None:
        guarded.append(Depends(HTTPBearer(auto_error=False)))
    app.include_router(photo_routes(context), dependencies=guarded)
    app.include_router(deployment_routes(context), dependencies=guarded)
    app.include_router(health_routes(context))
    _describe_problem(app)
    return app


@asynccontextmanager
async def _life(context: Context) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory(prefix="abair-serve-") as folder:
        context.folder = Path(folder)
        looking = asyncio.create_task(_look_for_deployments(context.live))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.to_thread(context.jobs.close)


async def _look_for_deployments(live: LiveRestorer) -> None:
    while True:
        await asyncio.sleep(POLL_SECONDS)
        with suppress(Exception):  # a request meets it, too, and answers for it
            await asyncio.to_thread(live.current)


def _answer_error(_request: Request, error: Exception) -> Response:
    return problems.of_error(error)


def _answer_http(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    texts = {
        404: f"{request.url.path}: found nothing there; the routes are in /openapi.json",
        405: f"{request.url.path}: found the method {request.method}, which it does not have",
    }
    headers = getattr(error, "headers", None)
    return problems.answer(status, texts.get(status, describe_error(error)), "ServingError", headers)


def _describe_problem(app: FastAPI) -> None:
    """Add the form of problems to the OpenAPI document, for which FastAPI knows no media type."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = (
            problems.Problem.model_json_schema()
        )
        return document

    app.openapi = described  # type: ignore[method-assign]
