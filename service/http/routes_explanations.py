"""Routes that explain."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.errors import ErrorCode, InvalidRequestError
from service.explanation.account import PARTS, PLAIN, Wanted
from service.explanation.account import explain as explain_score
from service.explanation.served import Served
from service.http import schemas
from service.http.answers import errors_of, json_answer
from service.http.context import bounded_k, context_of, external_id
from service.http.routes_recommendations import READ_ERRORS, AtLeast, Variant, catch_up, chosen_at, read_user
from service.http.schemas_lists import ExplainIn

router = APIRouter(tags=["explanations"])

# The largest set of interactions that a counterfactual may name.
MOST = 50

Parts = Annotated[
    str,
    Query(description=f"Further parts, comma-separated: {', '.join(PARTS)}. The plain reply takes the least time."),
]
K = Annotated[int, Query(description="Length of the list that counterfactual and why_not are about.")]
RecommendationId = Annotated[
    str | None,
    Query(description="Of a reply of /recommend: explain what it served, as long as the version and the log are kept."),
]
Most = Annotated[int, Query(description=f"How many interactions a counterfactual may name, 1 to {MOST}.")]


@router.get(
    "/explain/{user_id}/{item_id}",
    response_model=schemas.Explanation,
    responses=errors_of(ErrorCode.UNKNOWN_USER, ErrorCode.UNKNOWN_ITEM, ErrorCode.GONE, *READ_ERRORS),
    summary="Why the user gets this score for this item",
)
async def explain(
    request: Request,
    user_id: str,
    item_id: str,
    parts: Parts = "",
    k: K = 20,
    most: Most = PLAIN.most,
    recommendation_id: RecommendationId = None,
    at_least: AtLeast = None,
    variant: Variant = None,
) -> Response:
    """The score as self + one contribution for each of the user's items. Ids are percent-encoded in the path."""
    context = context_of(request)
    user = external_id("user", user_id, context.settings)
    item = external_id("item", item_id, context.settings)
    wanted = wanted_of(parts, bounded_k(k, context.settings), most)
    if recommendation_id is not None:  # another worker served it, perhaps with more of the log than is applied here
        await catch_up(context, Served.parse(recommendation_id).sequence)
    chosen = await chosen_at(context, at_least, user, variant)
    model = chosen.model
    if recommendation_id is not None:
        past = await context.past.told(model, user, item, recommendation_id, wanted)
        return json_answer({**past, "variant": None})
    if wanted.parts:
        told = await asyncio.to_thread(explain_score, model, user, item, wanted)
    else:
        told = await read_user(model, user, explain_score, model, user, item)
    return json_answer({**told, "variant": chosen.variant})


@router.post(
    "/explain/{user_id}/{item_id}",
    response_model=schemas.Explanation,
    responses=errors_of(ErrorCode.UNKNOWN_USER, ErrorCode.UNKNOWN_ITEM, *READ_ERRORS),
    summary="The same about a list with filters",
)
async def explain_filtered(
    request: Request,
    user_id: str,
    item_id: str,
    asked: ExplainIn,
    at_least: AtLeast = None,
    variant: Variant = None,
) -> Response:
    """`counterfactual` and `why_not` are about the list that `POST /recommend` gives with the same conditions."""
    context = context_of(request)
    user = external_id("user", user_id, context.settings)
    item = external_id("item", item_id, context.settings)
    plain = wanted_of(",".join(asked.parts), bounded_k(asked.k, context.settings), asked.most)
    wanted = replace(plain, where=asked.item_filter(asked.include, asked.exclude))
    chosen = await chosen_at(context, at_least, user, variant)
    told = await asyncio.to_thread(explain_score, chosen.model, user, item, wanted)
    return json_answer({**told, "variant": chosen.variant})


def wanted_of(parts: str, k: int, most: int) -> Wanted:
    """What an explanation is to hold.

    Raises:
        InvalidRequestError: a part that does not exist, or a number out of its bounds.
    """
    names = [name.strip() for name in parts.split(",") if name.strip()]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise InvalidRequestError(f"parts={parts!r}: there is no part {unknown[0]!r}; there are {', '.join(PARTS)}.")
    if not 1 <= most <= MOST:
        raise InvalidRequestError(f"most={most}: must lie in 1..{MOST}.")
    return Wanted(frozenset(part for part in PARTS if part in names), k, most)


@router.get("/explain/{rest:path}", include_in_schema=False)
async def explain_ambiguous(rest: str) -> Response:
    """Where the path does not hold exactly two ids."""
    raise InvalidRequestError(f"/explain/{rest}: send /explain/USER/ITEM, with a slash inside of an id as %2F.")
