"""Admin routes: retraining and the versions. They need the admin key; without one, only this machine may call."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service.errors import ErrorCode, ForbiddenError, UnauthorizedError
from service.http import schemas
from service.http.answers import errors_of, json_answer
from service.http.context import context_of
from service.settings import is_loopback


async def require_admin(request: Request) -> None:
    """Let an admin request pass.

    Raises:
        UnauthorizedError: the key is missing or wrong.
        ForbiddenError: no key is configured, and the request names or comes from another host (so that no web page
            that this machine's browser opens can make it).
    """
    key = context_of(request).settings.admin_key
    if key is None:
        origin = request.headers.get("origin")
        hosts = [_host(f"//{request.headers.get('host', '')}"), *([] if origin is None else [_host(origin)])]
        if not all(is_loopback(host) for host in hosts):
            raise ForbiddenError(
                "Without an admin key, admin requests must come from this machine: set KDIFFE_ADMIN_KEY, or call "
                "http://127.0.0.1."
            )
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    fits = hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode())
    if scheme.lower() != "bearer" or not fits:
        raise UnauthorizedError("The admin key is missing or wrong: send Authorization: Bearer KEY.")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    dependencies=[Depends(require_admin)],
    responses=errors_of(ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN),
)


@router.post(
    "/retrain",
    status_code=202,
    response_model=schemas.RetrainAccepted,
    responses=errors_of(ErrorCode.JOB_RUNNING, ErrorCode.TRAINING_UNAVAILABLE, ErrorCode.NOT_READY),
    summary="Retrain with all interactions and swap the new version in",
)
async def retrain(request: Request) -> Response:
    """One job at a time. GET /admin/jobs/{job_id} tells how far it is."""
    job = await asyncio.to_thread(context_of(request).jobs.retrain)
    return json_answer({"job_id": job.job_id}, 202)


@router.get("/jobs", response_model=schemas.JobList, summary="Jobs, the newest first")
async def jobs(request: Request) -> dict[str, Any]:
    """The latest hundred."""
    found = await asyncio.to_thread(context_of(request).jobs.jobs)
    return {"jobs": [asdict(job) for job in found]}


@router.get(
    "/jobs/{job_id}",
    response_model=schemas.JobAnswer,
    responses=errors_of(ErrorCode.UNKNOWN_JOB),
    summary="One job",
)
async def job(request: Request, job_id: str) -> dict[str, Any]:
    """Where it stands, and what it published or why it failed."""
    return asdict(await asyncio.to_thread(context_of(request).jobs.job, job_id))


@router.get("/models", response_model=schemas.ModelList, summary="Versions of the store, the oldest first")
async def models(request: Request) -> dict[str, Any]:
    """Which is active, and which is served."""
    registry = context_of(request).registry
    versions, active = await asyncio.to_thread(lambda: (registry.store.versions(), registry.store.active()))
    serving = registry.serving
    problem = registry.problem
    return {
        "models": [{"version": v, "active": v == active, "serving": v == serving} for v in versions],
        "problem": None if problem is None else problem.message,
    }
