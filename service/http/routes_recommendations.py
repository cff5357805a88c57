"""Routes that read: recommend, similar, popular."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, ParamSpec, TypeVar

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from model_store.experiment import FORCED, MAIN
from service.errors import ErrorCode, InvalidRequestError, NotReadyError, UnknownItemError, UnknownUserError
from service.http import schemas
from service.http.answers import errors_of, json_answer, with_variant
from service.http.cache import Listed
from service.http.context import Context, bounded_k, context_of, external_id, read_model
from service.live.model import LiveModel
from service.live.registry import Chosen, Served
from service.recommendation import recommender

P = ParamSpec("P")
Result = TypeVar("Result")

router = APIRouter(tags=["recommendations"])

READ_ERRORS = (ErrorCode.INVALID_REQUEST, ErrorCode.NOT_READY)
# Reads that have to walk from more stale nodes than this (some 10 µs each) leave the event loop.
MOST_WALKS = 32
DEFAULT_K = 20

AtLeast = Annotated[
    int | None,
    Query(ge=0, description="Wait until this sequence number of the log is applied (503 when that takes long)."),
]
Variant = Annotated[
    str | None,
    Query(description="Answer as this variant of the experiment does (`main`: the active version), whoever the user."),
]


@router.get(
    "/recommend/{user_id:path}",
    response_model=schemas.Recommendations,
    responses=errors_of(*READ_ERRORS),
    summary="The k best items that the user has not seen",
)
async def recommend(
    request: Request, user_id: str, k: int = DEFAULT_K, at_least: AtLeast = None, variant: Variant = None
) -> Response:
    """An unknown user gets the popular items. Ids are percent-encoded in the path."""
    context = context_of(request)
    name = external_id("user", user_id, context.settings)
    return Response(await recommended(context, name, k, at_least, variant), media_type="application/json")


async def recommended(
    context: Context, user_id: str, k: int, at_least: int | None = None, variant: str | None = None
) -> bytes:
    """The answer of `GET /recommend`, on the express way and on the long one.

    Raises:
        InvalidRequestError: k is out of its bounds, or there is no such variant.
        NotReadyError: no model is served, or `at_least` is not reached in time.
    """
    bounded_k(k, context.settings)
    chosen = await chosen_at(context, at_least, user_id, variant)
    model = chosen.model
    listed, backend = context.lists.find(model, user_id, k), "cache"
    if listed is None:
        before, backend = model.sequence, model.readout.index.name
        if waits_or_walks(model, user_id):
            answer = await asyncio.to_thread(recommender.recommend, model, user_id, k)
        else:
            answer = await context.gathering.recommend(model, user_id, k)
        listed = Listed(
            model.version,
            answer["sequence"],
            answer["refreshed_at"],
            orjson.dumps(answer),
            recommender.brought(answer["items"]),
        )
        if before == listed.sequence == model.sequence:  # made of one moment of the log, whoever applied meanwhile
            context.lists.keep(user_id, k, listed)
    context.telemetry.recommended(listed.strategies, listed.version, FORCED if variant else chosen.variant, backend)
    return with_variant(listed.body, chosen.variant)


@router.get(
    "/similar/{item_id:path}",
    response_model=schemas.SimilarItems,
    responses=errors_of(ErrorCode.UNKNOWN_ITEM, *READ_ERRORS),
    summary="The k items nearest to an item",
)
async def similar(
    request: Request, item_id: str, k: int = DEFAULT_K, at_least: AtLeast = None, variant: Variant = None
) -> Response:
    """By the cosine of the items' vectors."""
    context = context_of(request)
    item = external_id("item", item_id, context.settings)
    bounded_k(k, context.settings)
    chosen = await chosen_at(context, at_least, variant=variant)
    # All items are compared: not on the event loop.
    found = await asyncio.to_thread(recommender.similar, chosen.model, item, k)
    return json_answer({**found, "variant": chosen.variant})


@router.get(
    "/popular",
    response_model=schemas.ItemList,
    responses=errors_of(*READ_ERRORS),
    summary="The k items with the most interactions",
)
async def popular(request: Request, k: int = DEFAULT_K, at_least: AtLeast = None) -> Response:
    """Each user counts once for an item."""
    context = context_of(request)
    bounded_k(k, context.settings)
    model = await model_at(context, at_least)
    return json_answer(await read_model(model, recommender.popular, model, k))


async def model_at(context: Context, at_least: int | None) -> LiveModel:
    """The active version's model, once it holds a place of the log.

    Raises:
        NotReadyError: it does not within `read_timeout`, or no model is served.
    """
    return (await chosen_at(context, at_least)).model


async def chosen_at(
    context: Context, at_least: int | None, user_id: str | None = None, variant: str | None = None
) -> Chosen:
    """The model that a request gets, once all hold a place of the log.

    Args:
        context: the service's parts.
        at_least: the place, None for wherever the log is applied to.
        user_id: whose variant answers; the active version where it is nobody in particular.
        variant: answers instead.

    Raises:
        InvalidRequestError: there is no such variant.
        NotReadyError: it is not served now, or the place is not reached within `read_timeout`.
    """
    registry = context.registry
    if at_least is not None and not await holds(context, at_least):
        raise NotReadyError(f"at_least={at_least}: the log is applied up to {registry.applied}. Try again in a moment.")
    if variant is not None:
        return _forced(registry.served, variant)
    return Chosen(MAIN, registry.model) if user_id is None else registry.chosen_for(user_id)


async def holds(context: Context, sequence: int) -> bool:
    """Whether all models hold a place of the log, after `read_timeout` at most.

    Raises:
        StateError: the log can't be read at the moment.
    """
    registry = context.registry
    if registry.applied >= sequence:
        return True
    registry.wake()
    try:
        async with asyncio.timeout(context.settings.read_timeout):
            await registry.wait_applied(sequence)
    except TimeoutError:
        return False
    return True


async def catch_up(context: Context, sequence: int) -> None:
    """Wait for a place of the log that another worker has named in a cursor or an id, where the log reaches so far.

    Raises:
        StateError: the log can't be read at the moment.
    """
    if context.registry.applied < sequence <= await asyncio.to_thread(context.state.last_sequence):
        await holds(context, sequence)


async def known_by_now(context: Context, require: Callable[[LiveModel], object]) -> None:
    """Let a check of ids pass where any served model does, a variant's as well as the active version's.

    One that another worker has just been told of passes, too: it is looked at again once the log so far is applied.

    Args:
        context: the service's parts.
        require: raises where the model knows no such user or item.

    Raises:
        UnknownUserError: nobody knows the user.
        UnknownItemError: nobody knows the item.
        StateError: the log can't be read at the moment.
    """
    try:
        _known_to_any(context, require)
    except (UnknownUserError, UnknownItemError):
        await holds(context, await asyncio.to_thread(context.state.last_sequence))
        _known_to_any(context, require)


def _known_to_any(context: Context, require: Callable[[LiveModel], object]) -> None:
    *others, last = (follower.model for follower in reversed(context.registry.served.followers))
    for model in others:
        with suppress(UnknownUserError, UnknownItemError):
            require(model)
            return
    require(last)


def _forced(served: Served, variant: str) -> Chosen:
    model = served.named(variant)
    if model is not None:
        return Chosen(variant, model)
    names = [] if served.experiment is None else [arm.name for arm in served.experiment.variants]
    if variant in names:
        raise NotReadyError(f"variant={variant!r} is not served at the moment: GET /admin/experiment says why.")
    raise InvalidRequestError(f"variant={variant!r}: there is no such variant; there are {', '.join([MAIN, *names])}.")


def waits_or_walks(model: LiveModel, user_id: str) -> bool:
    """Whether a read of a user would keep the event loop: it waits for a GPU, or walks from many stale nodes."""
    return model.readout.index.waits or (not model.lock.held and model.walks_to_read(user_id) > MOST_WALKS)


async def read_user(
    model: LiveModel, user_id: str, use_case: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
) -> Result:
    """Run a use case about a user at once, or in a thread where it has to wait (for a GPU) or to walk a lot."""
    if waits_or_walks(model, user_id):
        return await asyncio.to_thread(use_case, *args, **kwargs)
    return await read_model(model, use_case, *args, **kwargs)
