"""Routes of one user: what is known of it, putting it, erasing it."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.erasure import versions_holding
from service.errors import ErrorCode, UnknownUserError
from service.http.answers import errors_of, json_answer
from service.http.bodies import body_of, read_json
from service.http.context import Key, checked_key, context_of, storable_id
from service.http.routes_recommendations import READ_ERRORS, AtLeast, model_at
from service.http.schemas_users import UserErased, UserIn, UserOut, UserTaken
from service.state.port import Change

router = APIRouter(tags=["users"])

WRITE_ERRORS = (
    *(ErrorCode.INVALID_REQUEST, ErrorCode.REQUEST_TOO_LARGE),
    *(ErrorCode.NOT_READY, ErrorCode.STATE_UNAVAILABLE),
)


@router.get(
    "/users/{user_id:path}",
    response_model=UserOut,
    responses=errors_of(ErrorCode.UNKNOWN_USER, ErrorCode.STATE_UNAVAILABLE, *READ_ERRORS),
    summary="What is known of a user",
)
async def get_user(request: Request, user_id: str, at_least: AtLeast = None) -> Response:
    """Its record and how much it has interacted. The id is percent-encoded in the path."""
    context = context_of(request)
    name = storable_id("user", user_id, context.settings)
    model = await model_at(context, at_least)
    record, view = await asyncio.gather(
        asyncio.to_thread(context.state.record, "user", name), asyncio.to_thread(model.user, name)
    )
    if record is None and view is None:
        raise UnknownUserError(f"Unknown user {name!r}: it has no record, no interaction and is in no artifact.")
    return json_answer(
        {
            "user_id": name,
            "record": None if record is None else record.content,
            "recorded_at": None if record is None else record.sequence,
            "n_interactions": 0 if view is None else len(view.seen),
            "in_version": view is not None and view.in_artifact,
            "model_version": model.version,
            "sequence": model.sequence if view is None else view.sequence,
        }
    )


@router.put(
    "/users/{user_id:path}",
    response_model=UserTaken,
    responses=errors_of(*WRITE_ERRORS),
    openapi_extra=body_of(UserIn),
    summary="Put a user's record in the place of the one before",
)
async def put_user(request: Request, user_id: str, key: Key = None) -> Response:
    """Answered once it is durable. The id is percent-encoded in the path."""
    context = context_of(request)
    name = storable_id("user", user_id, context.settings)
    user = await read_json(request, UserIn)
    event_id = checked_key(key, context.settings)
    change = Change("user", user_id=name, content=user.model_dump(), timestamp=time.time(), event_id=event_id)
    taken = await context.intake.take([change])
    return json_answer({"user_id": name, "accepted": taken.accepted > 0, "sequence": taken.sequence})


@router.delete(
    "/users/{user_id:path}",
    response_model=UserErased,
    responses=errors_of(*WRITE_ERRORS),
    summary="Erase a user: interactions, record and idempotency keys",
)
async def erase_user(request: Request, user_id: str) -> Response:
    """Gone from the state and the served model when it is answered.

    T and the items' vectors forget with the next refresh, artifacts with the next version: older ones are listed. Ids
    are percent-encoded in the path.
    """
    context = context_of(request)
    name = storable_id("user", user_id, context.settings)
    taken = await context.intake.take([Change("erasure", user_id=name, timestamp=time.time())])
    versions = await asyncio.to_thread(versions_holding, context.registry.store, name)
    return json_answer({"user_id": name, "sequence": taken.sequence, "versions": versions})
