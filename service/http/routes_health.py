"""Health and metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import ErrorCode, StateError
from service.http import schemas
from service.http.answers import errors_of, json_answer
from service.http.context import context_of
from service.telemetry import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/health/live", response_model=schemas.Live, summary="Whether the process answers")
async def live() -> Response:
    """Always, while it runs."""
    return json_answer({"status": "live"})


@router.get(
    "/health/ready",
    response_model=schemas.Ready,
    responses=errors_of(ErrorCode.NOT_READY),
    summary="Whether a model is served and follows the log",
)
async def ready(request: Request) -> Response:
    """200 while reads are answered, 503 where no model is served or it follows the log no more.

    `degraded` says that reads come from memory alone, because the log can't be read, and that writes are refused; or
    that writes fail (for a minute after the last one that did, unless one succeeds).
    `problem` tells of an active version that can't be served while an earlier one is: the status is `degraded`, too.
    """
    context = context_of(request)
    registry = context.registry
    model = registry.model
    degraded = registry.degraded
    if degraded is None:
        registry.follower.check()
        try:
            await asyncio.to_thread(context.state.last_sequence)
        except StateError as error:
            degraded = str(error)
    if degraded is None:
        degraded = context.intake.failure
    problem = registry.problem
    return json_answer(
        {
            "status": "ready" if degraded is None and problem is None else "degraded",
            "model_version": model.version,
            "variants": {name: version for name, version, _ in registry.served.shares()},
            "sequence": model.sequence,
            "refreshed_at": model.readout.refreshed_at,
            "stale_nodes": model.n_stale,
            "degraded": degraded,
            "problem": None if problem is None else f"{problem.version}: {problem.message}",
        }
    )


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(context_of(request).telemetry.exposition(), headers={"Content-Type": CONTENT_TYPE})
