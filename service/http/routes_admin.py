"""Admin routes: retraining and the versions. They need the admin key; without one, only this machine may call."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from model_store.experiment import Arm
from service import versions
from service.errors import ErrorCode
from service.http import schemas
from service.http.answers import errors_of, json_answer
from service.http.bodies import body_of, read_json
from service.http.context import context_of, storable_id
from service.http.schemas_users import TypeWeight, TypeWeights
from service.jobs.jobs import SWAP_TIMEOUT
from service.state.port import DEFAULT_WEIGHT, Job

router = APIRouter(
    prefix="/admin",
    tags=["admin"],
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
    """One job runs at a time, and one may wait. GET /admin/jobs/{job_id} tells how far it is."""
    job = await asyncio.to_thread(context_of(request).jobs.retrain)
    return json_answer({"job_id": job.job_id}, 202)


@router.get("/jobs", response_model=schemas.JobList, summary="Jobs, the newest first")
async def jobs(request: Request) -> dict[str, Any]:
    """The latest hundred."""
    found = await asyncio.to_thread(context_of(request).jobs.jobs)
    return {"jobs": [_told(job) for job in found]}


@router.get(
    "/jobs/{job_id}",
    response_model=schemas.JobAnswer,
    responses=errors_of(ErrorCode.UNKNOWN_JOB),
    summary="One job",
)
async def job(request: Request, job_id: str) -> dict[str, Any]:
    """Where it stands, and what it published or why it failed."""
    return _told(await asyncio.to_thread(context_of(request).jobs.job, job_id))


@router.get(
    "/jobs/{job_id}/log",
    response_model=schemas.JobLog,
    responses=errors_of(ErrorCode.UNKNOWN_JOB),
    summary="The last words of a job's training",
)
async def job_log(request: Request, job_id: str) -> dict[str, Any]:
    """Of this moment where it runs on this machine, some seconds old where it runs elsewhere."""
    return {"job_id": job_id, "log": await asyncio.to_thread(context_of(request).jobs.log, job_id)}


@router.post(
    "/jobs/{job_id}/cancel",
    response_model=schemas.JobAnswer,
    responses=errors_of(ErrorCode.UNKNOWN_JOB, ErrorCode.JOB_ENDED),
    summary="Cancel a job that waits or runs",
)
async def cancel(request: Request, job_id: str) -> dict[str, Any]:
    """Its process ends within seconds; nothing is activated. A version that is being put in force stays: roll back."""
    return _told(await asyncio.to_thread(context_of(request).jobs.cancel, job_id))


def _told(job: Job) -> dict[str, Any]:
    """A job as it is told: its log has a route of its own."""
    fields = asdict(job)
    del fields["log"]
    return fields


@router.get(
    "/types",
    response_model=TypeWeights,
    responses=errors_of(ErrorCode.STATE_UNAVAILABLE),
    summary="Weights of the interaction types",
)
async def types(request: Request) -> Response:
    """How often the loss samples interactions of each type; the graph of interactions is binary."""
    found = await asyncio.to_thread(context_of(request).state.types)
    return json_answer({"types": found, "other": DEFAULT_WEIGHT})


@router.put(
    "/types/{name:path}",
    response_model=TypeWeights,
    responses=errors_of(ErrorCode.INVALID_REQUEST, ErrorCode.STATE_UNAVAILABLE),
    openapi_extra=body_of(TypeWeight),
    summary="Give a type of interaction a weight",
)
async def weigh(request: Request, name: str) -> Response:
    """It counts from the next training on. The type is percent-encoded in the path."""
    context = context_of(request)
    found = storable_id("type", name, context.settings)
    weight = (await read_json(request, TypeWeight)).weight
    await asyncio.to_thread(context.state.set_type, found, weight)
    return await types(request)


@router.get("/models", response_model=schemas.ModelList, summary="Versions of the store, the oldest first")
async def models(request: Request) -> dict[str, Any]:
    """Which is active, and which is served."""
    registry = context_of(request).registry
    found = await asyncio.to_thread(versions.versions, registry)
    problem = registry.problem
    return {"models": found, "problem": None if problem is None else problem.message}


@router.get(
    "/models/{version}",
    response_model=schemas.ModelDetail,
    responses=errors_of(ErrorCode.UNKNOWN_VERSION, ErrorCode.UNUSABLE_VERSION),
    summary="One version: how it was made, and its report",
)
async def model(request: Request, version: str) -> Response:
    """The report has metrics with their slices and the training's curve (docs/evaluation.md)."""
    return json_answer(await asyncio.to_thread(versions.version, context_of(request).registry, version))


@router.post(
    "/models/{version}/activate",
    response_model=schemas.Activated,
    responses=errors_of(ErrorCode.UNKNOWN_VERSION, ErrorCode.UNUSABLE_VERSION),
    summary="Put a version in force",
)
async def activate(request: Request, version: str) -> Response:
    """Answered once it is served; a version that can't be served is taken back."""
    await asyncio.to_thread(versions.activate, context_of(request).registry, version, SWAP_TIMEOUT)
    return json_answer({"version": version})


@router.post(
    "/rollback",
    response_model=schemas.Activated,
    responses=errors_of(ErrorCode.NO_EARLIER_VERSION, ErrorCode.UNUSABLE_VERSION),
    summary="Put the version that was active before in force again",
)
async def rollback(request: Request) -> Response:
    """Answered once it is served."""
    return json_answer(
        {"version": await asyncio.to_thread(versions.rollback, context_of(request).registry, SWAP_TIMEOUT)}
    )


@router.get(
    "/experiment",
    response_model=schemas.Experiment,
    responses=errors_of(ErrorCode.NOT_READY),
    summary="The versions that shares of the users get",
)
async def experiment(request: Request) -> Response:
    """As this worker serves it; `name` is null where everybody gets the active version."""
    return json_answer(await asyncio.to_thread(versions.experiment, context_of(request).registry))


@router.put(
    "/experiment",
    response_model=schemas.Experiment,
    responses=errors_of(ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_VERSION, ErrorCode.UNUSABLE_VERSION),
    summary="Give shares of the users other versions",
)
async def put_experiment(request: Request, wanted: schemas.NewExperiment) -> Response:
    """In the place of the one that runs. Answered once all is served; a canary is an experiment with one variant.

    The same users every time, by a hash of their ids; under the same name, shares that change move as few users as can
    be. Ends with the next activation or roll back.
    """
    registry = context_of(request).registry
    arms = [Arm(arm.name, arm.version, arm.share) for arm in wanted.variants]
    await asyncio.to_thread(versions.begin_experiment, registry, wanted.name, arms, SWAP_TIMEOUT)
    return json_answer(await asyncio.to_thread(versions.experiment, registry))


@router.delete(
    "/experiment",
    response_model=schemas.Experiment,
    responses=errors_of(ErrorCode.NOT_READY),
    summary="Give everybody the active version",
)
async def end_experiment(request: Request) -> Response:
    """Nothing happens where no experiment runs."""
    registry = context_of(request).registry
    await asyncio.to_thread(registry.store.end_experiment)
    return json_answer(await asyncio.to_thread(versions.experiment, registry))


@router.get(
    "/digest",
    response_model=schemas.Digest,
    responses=errors_of(ErrorCode.NOT_READY),
    summary="The names of this worker's bits, to compare workers and hosts",
)
async def digest(request: Request) -> dict[str, Any]:
    """Settles first, so it may take a moment. Whichever worker accepts the connection answers, for itself."""
    model = context_of(request).registry.model

    def read() -> dict[str, Any]:
        sequence, state = model.digest_at()
        readout = model.readout
        return {
            "worker": os.getpid(),
            "model_version": model.version,
            "refreshed_at": readout.refreshed_at,
            "readout": readout.digest(),
            "sequence": sequence,
            "state": state,
        }

    return await asyncio.to_thread(read)
