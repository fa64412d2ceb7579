"""The routes that tell of the server, and those of the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse

import abair
from abair.serving import STATIC, problems
from abair.serving.forms import Adapter, DeploymentInfo, Health
from abair.serving.metrics import CONTENT_TYPE
from abair.serving.photos import Context

_SCRIPT: Final = "text/javascript; charset=utf-8"
_PAGE: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": _SCRIPT,
    "photo-card.js": _SCRIPT,
    "compare.js": _SCRIPT,
    "icon.svg": "image/svg+xml",
}


def deployment_routes(context: Context) -> APIRouter:
    """Return the routes that tell what serves, and how much was done."""
    router = APIRouter()
    live = context.live

    @router.get("/v1/deployment", responses={401: problems.RESPONSES[401]})
    async def deployment() -> DeploymentInfo:
        """Tell what serves, and what the server takes."""
        bundle = live.restorer.deployment
        return DeploymentInfo(
            deployment=bundle.name,
            created=bundle.created,
            labels=list(bundle.labels),
            backbone=bundle.backbone.size,
            adapters=[
                Adapter(degradation=a.degradation, title=a.title, distribution=a.distribution, version=a.version)
                for a in bundle.adapters
            ],
            device=live.device,
            precision=live.precision,
            version=abair.__version__,
            limits=asdict(context.limits),
            problem=live.problem,
        )

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: problems.RESPONSES[401]},
    )
    async def metrics() -> Response:
        """Give the counters in Prometheus' text format."""
        return Response(context.metrics.text(live.restorer.deployment.name), media_type=CONTENT_TYPE)

    return router


def health_routes(context: Context) -> APIRouter:
    """Return the routes that everybody may ask."""
    router = APIRouter()
    live, jobs = context.live, context.jobs

    @router.get("/healthz")
    async def healthz() -> Health:
        """Tell that the server answers."""
        return Health(status="ok", deployment=live.restorer.deployment.name)

    @router.get("/readyz", responses={503: {"model": Health, "description": "The queue is full, or the server stops."}})
    async def readyz(response: Response) -> Health:
        """Tell whether a request would be taken."""
        full = jobs.taken >= jobs.places
        status = "stopping" if jobs.stopping else "full" if full else "ready"
        response.status_code = 200 if status == "ready" else 503
        return Health(status=status, deployment=live.restorer.deployment.name)

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")

    @router.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> FileResponse:
        if name not in _PAGE:
            raise HTTPException(404)
        return FileResponse(STATIC / name, media_type=_PAGE[name])

    return router
