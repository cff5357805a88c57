"""The route that writes: interactions."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.errors import ErrorCode, InvalidRequestError, RequestTooLargeError, UnknownUserError
from service.http.answers import errors_of, json_answer
from service.http.bodies import checked, parse_json
from service.http.context import Context, Key, checked_key, context_of
from service.http.routes_recommendations import known_by_now
from service.http.schemas import Accepted, NewInteraction, NewInteractions, Text
from service.live.model import LiveModel
from service.recommendation.recommender import require_item
from service.settings import Settings
from service.state.port import Change, Interaction

router = APIRouter(tags=["interactions"])

OneId = Annotated[Text, Query(description="External id.")]


def request_body() -> dict[str, Any]:
    """OpenAPI's description of the body: it is read by hand, so FastAPI does not know it."""
    one = NewInteraction.model_json_schema()
    many = NewInteractions.model_json_schema(ref_template="#/components/schemas/{model}")
    many.pop("$defs", None)
    many["properties"]["interactions"]["items"] = one
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": [one, many]}}}}}


@router.post(
    "/interactions",
    status_code=202,
    response_model=Accepted,
    responses=errors_of(
        ErrorCode.INVALID_REQUEST, ErrorCode.REQUEST_TOO_LARGE, ErrorCode.NOT_READY, ErrorCode.STATE_UNAVAILABLE
    ),
    openapi_extra=request_body(),
    summary="Tell what users did",
)
async def interactions(request: Request) -> Response:
    """Answered once the interactions are on disk and applied: no list shows them from then on."""
    return Response(await accepted(context_of(request), await request.body()), 202, media_type="application/json")


async def accepted(context: Context, body: bytes) -> bytes:
    """The answer of `POST /interactions`, on the express way and on the long one.

    Raises:
        InvalidRequestError: the body is not what it should be.
        RequestTooLargeError: too many at once.
        NotReadyError: the service can't take them, or not in time.
        StateError: they can't be written.
    """
    taken = await context.intake.take(read_interactions(body, context.settings, time.time()))
    context.telemetry.interactions(taken.accepted, taken.duplicates)
    return orjson.dumps({"accepted": taken.accepted, "duplicates": taken.duplicates, "sequence": taken.sequence})


@router.delete(
    "/interactions",
    response_model=Accepted,
    responses=errors_of(
        *(ErrorCode.UNKNOWN_USER, ErrorCode.UNKNOWN_ITEM),
        *(ErrorCode.INVALID_REQUEST, ErrorCode.NOT_READY, ErrorCode.STATE_UNAVAILABLE),
    ),
    summary="Remove what a user did with an item",
)
async def remove(request: Request, user_id: OneId, item_id: OneId, key: Key = None) -> Response:
    """All of the user's interactions with the item no longer count, from wherever they are known.

    Answered once that is on disk and applied: the item may be recommended to the user again.
    """
    context = context_of(request)
    for name, value in (("user_id", user_id), ("item_id", item_id)):
        check_length(name, value, context.settings)

    def known(model: LiveModel) -> None:
        if user_id not in model.users:
            raise UnknownUserError.of(user_id)
        require_item(model, item_id)

    await known_by_now(context, known)
    event_id = checked_key(key, context.settings)
    taken = await context.intake.take([Change("removal", user_id, item_id, timestamp=time.time(), event_id=event_id)])
    return json_answer({"accepted": taken.accepted, "duplicates": taken.duplicates, "sequence": taken.sequence})


def check_length(name: str, value: str | None, settings: Settings) -> None:
    """Refuse an id, type or key that is too long.

    Raises:
        InvalidRequestError: it is.
    """
    if value is not None and len(value) > settings.max_id_length:
        raise InvalidRequestError(f"{name}: {len(value)} characters; at most {settings.max_id_length} are allowed.")


def read_interactions(body: bytes, settings: Settings, now: float) -> list[Interaction]:
    """The interactions of a request's body: one object, or {"interactions": [...]}.

    Args:
        body: JSON.
        settings: the limits.
        now: the timestamp of those that have none.

    Raises:
        InvalidRequestError: not that, or a field is out of its bounds.
        RequestTooLargeError: too many.
    """
    raw = parse_json(body)
    if not isinstance(raw, dict):
        raise InvalidRequestError('The body must be one interaction or {"interactions": [...]}.')
    many = raw.get("interactions")
    if isinstance(many, list) and len(many) > settings.max_batch:
        raise RequestTooLargeError(
            f"{len(many)} interactions in one request; at most {settings.max_batch} are allowed: send smaller batches."
        )
    found = checked(NewInteractions, raw).interactions if "interactions" in raw else [checked(NewInteraction, raw)]
    for it in found:
        for name in ("user_id", "item_id", "type", "id"):
            check_length(name, getattr(it, name), settings)
    return [
        Interaction(it.user_id, it.item_id, now if it.timestamp is None else it.timestamp, it.type, it.id)
        for it in found
    ]
