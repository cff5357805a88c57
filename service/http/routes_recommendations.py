"""Routes that read: recommend, explain, similar, popular."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from service import recommender
from service.errors import ErrorCode, InvalidRequestError
from service.http import schemas
from service.http.answers import errors_of, json_answer
from service.http.context import bounded_k, context_of, external_id, read_model

router = APIRouter(tags=["recommendations"])

READ_ERRORS = (ErrorCode.INVALID_REQUEST, ErrorCode.NOT_READY)


@router.get(
    "/recommend/{user_id:path}",
    response_model=schemas.Recommendations,
    responses=errors_of(*READ_ERRORS),
    summary="The k best items that the user has not seen",
)
async def recommend(request: Request, user_id: str, k: int = 20) -> Response:
    """An unknown user gets the popular items. Ids are percent-encoded in the path."""
    context = context_of(request)
    name = external_id("user", user_id, context.settings)
    bounded_k(k, context.settings)
    model = context.registry.model
    answer = await read_model(model, recommender.recommend, model, name, k)
    context.telemetry.recommended(answer["items"])
    return json_answer(answer)


@router.get(
    "/explain/{user_id}/{item_id}",
    response_model=schemas.Explanation,
    responses=errors_of(ErrorCode.UNKNOWN_USER, ErrorCode.UNKNOWN_ITEM, *READ_ERRORS),
    summary="Why the user gets this score for this item",
)
async def explain(request: Request, user_id: str, item_id: str) -> Response:
    """The score as self + one contribution for each of the user's items. Ids are percent-encoded in the path."""
    context = context_of(request)
    user = external_id("user", user_id, context.settings)
    item = external_id("item", item_id, context.settings)
    model = context.registry.model
    return json_answer(await read_model(model, recommender.explain, model, user, item))


@router.get("/explain/{rest:path}", include_in_schema=False)
async def explain_ambiguous(rest: str) -> Response:
    """Where the path does not hold exactly two ids."""
    raise InvalidRequestError(f"/explain/{rest}: send /explain/USER/ITEM, with a slash inside of an id as %2F.")


@router.get(
    "/similar/{item_id:path}",
    response_model=schemas.SimilarItems,
    responses=errors_of(ErrorCode.UNKNOWN_ITEM, *READ_ERRORS),
    summary="The k items nearest to an item",
)
async def similar(request: Request, item_id: str, k: int = 20) -> Response:
    """By the cosine of the items' vectors."""
    context = context_of(request)
    item = external_id("item", item_id, context.settings)
    bounded_k(k, context.settings)
    # All items are compared: not on the event loop.
    return json_answer(await asyncio.to_thread(recommender.similar, context.registry.model, item, k))


@router.get(
    "/popular",
    response_model=schemas.ItemList,
    responses=errors_of(*READ_ERRORS),
    summary="The k items with the most interactions",
)
async def popular(request: Request, k: int = 20) -> Response:
    """Each user counts once for an item."""
    context = context_of(request)
    bounded_k(k, context.settings)
    model = context.registry.model
    return json_answer(await read_model(model, recommender.popular, model, k))
