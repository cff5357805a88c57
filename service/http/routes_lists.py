"""`POST /recommend`: lists for several users or a session, with filters, boosts, diversity and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from model_store.experiment import FORCED
from service.errors import ErrorCode, InvalidRequestError, RequestTooLargeError
from service.http.answers import errors_of, json_answer
from service.http.context import bounded_k, context_of
from service.http.routes_recommendations import READ_ERRORS, AtLeast, Variant, catch_up, chosen_at
from service.http.schemas_lists import Lists, RecommendIn
from service.live.model import LiveModel
from service.live.registry import Chosen
from service.recommendation.cursor import Cursor
from service.recommendation.recommender import ListPage, Wish, brought, recommend_page, unknown_items
from service.settings import Settings

router = APIRouter(tags=["recommendations"])


@router.post(
    "/recommend",
    response_model=Lists,
    responses=errors_of(ErrorCode.GONE, ErrorCode.REQUEST_TOO_LARGE, *READ_ERRORS),
    summary="Lists for several users or an anonymous session, filtered, boosted, diverse, in pages",
)
async def recommend(
    request: Request, asked: RecommendIn, at_least: AtLeast = None, variant: Variant = None
) -> Response:
    """All conditions hold exactly: a list is as long as there are items that are allowed and unseen, up to k."""
    context = context_of(request)
    _check(asked, context.settings)
    cursor = None if asked.cursor is None else Cursor.decode(asked.cursor)
    if cursor is not None:  # another worker made the page before, perhaps with more of the log than is applied here
        await catch_up(context, cursor.sequence)
    chosen = await chosen_at(context, at_least, variant=variant)
    whose: Sequence[str | Sequence[str]] = [asked.session] if asked.session is not None else asked.user_ids or []
    # A user gets the model of its share; a session, which is nobody in particular, the active version's.
    by_user = variant is None
    given = [context.registry.chosen_for(who) if by_user and isinstance(who, str) else chosen for who in whose]
    # A list takes up to some milliseconds: not on the event loop.
    pages = await asyncio.to_thread(_lists, [got.model for got in given], whose, asked.wish(), cursor)
    for page, got in zip(pages, given, strict=True):
        counted = FORCED if variant else got.variant
        backend = got.model.readout.index.name
        context.telemetry.recommended(brought(page["items"]), page["model_version"], counted, backend)
    results = [{**page, "variant": got.variant} for page, got in zip(pages, given, strict=True)]
    return json_answer({"results": results, "unknown_items": _unknown(asked.named_items(), chosen, *given)})


def _lists(
    models: Sequence[LiveModel], whose: Sequence[str | Sequence[str]], wish: Wish, cursor: Cursor | None
) -> list[ListPage]:
    return [recommend_page(model, who, wish, cursor) for model, who in zip(models, whose, strict=True)]


def _unknown(item_ids: Iterable[str], *chosen: Chosen) -> list[str]:
    """Those of some items that none of the models knows that the lists are of."""
    for model in {got.model.version: got.model for got in chosen}.values():
        item_ids = unknown_items(model, item_ids)
    return list(item_ids)


def _check(asked: RecommendIn, settings: Settings) -> None:
    """The limits that are settings.

    Raises:
        InvalidRequestError: k or an id is out of its bounds.
        RequestTooLargeError: too many users.
    """
    bounded_k(asked.k, settings)
    users = asked.user_ids or []
    if len(users) > settings.max_users:
        raise RequestTooLargeError(
            f"{len(users)} users in one request; at most {settings.max_users} are allowed: send smaller batches."
        )
    longest = max(map(len, [*users, *asked.named_items()]), default=0)
    if longest > settings.max_id_length:
        raise InvalidRequestError(f"An id has {longest} characters; at most {settings.max_id_length} are allowed.")
