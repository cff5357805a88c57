"""Routes that tell what is known of users and items: history, items."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service import catalogue
from service.errors import ErrorCode, InvalidRequestError
from service.http import schemas
from service.http.answers import errors_of, json_answer
from service.http.context import context_of, external_id, read_model
from service.http.routes_recommendations import READ_ERRORS, AtLeast, chosen_at, model_at, read_user

router = APIRouter(tags=["catalogue"])

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of the answer.")]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1, description="Items left out at the beginning.")]
ItemIds = Annotated[list[str], Query(min_length=1, max_length=200, description="External ids, one parameter each.")]


@router.get(
    "/history/{user_id:path}",
    response_model=schemas.History,
    responses=errors_of(ErrorCode.UNKNOWN_USER, *READ_ERRORS),
    summary="What a user has interacted with",
)
async def history(
    request: Request, user_id: str, limit: Limit = 100, offset: Offset = 0, at_least: AtLeast = None
) -> Response:
    """What came since the version first, then by S(u, i). Ids are percent-encoded in the path."""
    context = context_of(request)
    name = external_id("user", user_id, context.settings)
    variant, model = await chosen_at(context, at_least, name)
    found = await read_user(model, name, catalogue.history, model, name, limit, offset)
    return json_answer({**found, "variant": variant})


@router.get(
    "/items",
    response_model=schemas.Items,
    responses=errors_of(*READ_ERRORS),
    summary="Names, entities and numbers of interactions of items",
)
async def items(request: Request, item_id: ItemIds, at_least: AtLeast = None) -> Response:
    """`?item_id=a&item_id=b`; ids that are unknown are listed as such."""
    context = context_of(request)
    longest = max(map(len, item_id))
    if longest > context.settings.max_id_length or "" in item_id:
        raise InvalidRequestError(f"item_id: 1 to {context.settings.max_id_length} characters are allowed.")
    model = await model_at(context, at_least)
    return json_answer(await read_model(model, catalogue.items, model, item_id))
