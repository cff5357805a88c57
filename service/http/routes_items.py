"""Routes of one item: what is known of it, putting it, withdrawing it."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from service import items
from service.errors import ErrorCode
from service.http.answers import errors_of, json_answer
from service.http.context import checked_key, context_of, storable_id
from service.http.routes_recommendations import READ_ERRORS, AtLeast, known_by_now, model_at
from service.http.schemas_items import ItemIn, ItemOut, ItemTaken
from service.recommendation.recommender import require_item
from service.state.port import Change

router = APIRouter(tags=["items"])

WRITE_ERRORS = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.REQUEST_TOO_LARGE,
    ErrorCode.NOT_READY,
    ErrorCode.STATE_UNAVAILABLE,
)
Key = Annotated[
    str | None, Header(alias="Idempotency-Key", description="Sent again with the same key, it counts once.")
]


@router.get(
    "/items/{item_id:path}",
    response_model=ItemOut,
    responses=errors_of(ErrorCode.UNKNOWN_ITEM, ErrorCode.STATE_UNAVAILABLE, *READ_ERRORS),
    summary="What is known of an item",
)
async def get_item(request: Request, item_id: str, at_least: AtLeast = None) -> Response:
    """Its record, and whether it can be recommended. The id is percent-encoded in the path."""
    context = context_of(request)
    name = storable_id("item", item_id, context.settings)
    model = await model_at(context, at_least)
    record = await asyncio.to_thread(context.state.record, "item", name)
    return json_answer(items.describe(model, name, record))


@router.put(
    "/items/{item_id:path}",
    response_model=ItemTaken,
    responses=errors_of(*WRITE_ERRORS),
    summary="Put an item's record: it can be recommended and filtered by at once",
)
async def put_item(request: Request, item_id: str, item: ItemIn, key: Key = None) -> Response:
    """Answered once it is durable and applied. A withdrawn item is back. The id is percent-encoded in the path."""
    context = context_of(request)
    name = storable_id("item", item_id, context.settings)
    content = item.content()
    items.check_features(context.registry.model, content)
    change = Change(
        "item", item_id=name, content=content, timestamp=time.time(), event_id=checked_key(key, context.settings)
    )
    taken = await context.intake.take([change])
    return json_answer(items.taken(context.registry.model, name, taken, content))


@router.delete(
    "/items/{item_id:path}",
    response_model=ItemTaken,
    responses=errors_of(ErrorCode.UNKNOWN_ITEM, *WRITE_ERRORS),
    summary="Withdraw an item: it is never recommended again, until it is put again",
)
async def withdraw_item(request: Request, item_id: str, key: Key = None) -> Response:
    """Its record goes; what users did with it still says what they like. The id is percent-encoded in the path."""
    context = context_of(request)
    name = storable_id("item", item_id, context.settings)
    await known_by_now(context, lambda model: require_item(model, name))
    change = Change("withdrawal", item_id=name, timestamp=time.time(), event_id=checked_key(key, context.settings))
    taken = await context.intake.take([change])
    return json_answer(items.taken(context.registry.model, name, taken, {}))
