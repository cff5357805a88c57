"""What a request may reach: the parts that the application starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ParamSpec, TypeVar, cast
from urllib.parse import unquote_to_bytes

from fastapi import Header, Request

from model_store.admission import plain_text
from service.errors import InvalidRequestError
from service.explanation.past import PastModels
from service.http.answers import LONGEST_SHOWN
from service.http.cache import ListCache
from service.http.gathering import Gathering
from service.intake import Intake
from service.jobs.jobs import Jobs
from service.live.model import LiveModel
from service.live.registry import Registry
from service.settings import Settings
from service.state.port import StateStore
from service.telemetry import Telemetry
from service.tracing import Tracing

Key = Annotated[
    str | None, Header(alias="Idempotency-Key", description="Sent again with the same key, it counts once.")
]
P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Context:
    """The running service's parts."""

    settings: Settings
    state: StateStore
    registry: Registry
    jobs: Jobs
    telemetry: Telemetry
    intake: Intake
    lists: ListCache
    gathering: Gathering
    past: PastModels
    tracing: Tracing | None = None


def context_of(request: Request) -> Context:
    """The parts that this request may reach."""
    return cast(Context, request.app.state.context)


def external_id(kind: str, encoded: str, settings: Settings) -> str:
    """An external id from its percent-encoded form in the path.

    Raises:
        InvalidRequestError: too long, empty, or not UTF-8.
    """
    try:
        decoded = unquote_to_bytes(encoded).decode() if "%" in encoded or not encoded.isascii() else encoded
    except UnicodeDecodeError:
        raise InvalidRequestError(f"The {kind} id {encoded!r} in the path is not percent-encoded UTF-8.") from None
    if not decoded or len(decoded) > settings.max_id_length:
        raise InvalidRequestError(
            f"The {kind} id in the path has {len(decoded)} characters; 1 to {settings.max_id_length} are allowed."
        )
    return decoded


def storable_id(kind: str, encoded: str, settings: Settings) -> str:
    """An external id from its percent-encoded form in the path, for a route that writes.

    Raises:
        InvalidRequestError: it can't be an id.
    """
    found = external_id(kind, encoded, settings)
    try:
        return plain_text(found)
    except ValueError as error:
        raise InvalidRequestError(f"The {kind} id in the path {error}.") from None


def checked_key(key: str | None, settings: Settings) -> str | None:
    """An idempotency key, None where there is none.

    Raises:
        InvalidRequestError: it is too long.
    """
    if key is not None and len(key) > settings.max_id_length:
        raise InvalidRequestError(
            f"Idempotency-Key: {len(key)} characters; at most {settings.max_id_length} are allowed."
        )
    return key or None


def bounded_k(k: int, settings: Settings) -> int:
    """The number of items that a request asks for.

    Raises:
        InvalidRequestError: outside of 1..max_k.
    """
    if not 1 <= k <= settings.max_k:
        raise InvalidRequestError(f"k={k}: must lie in 1..{settings.max_k}.")
    return k


async def known_parameters(request: Request) -> None:
    """Refuse a query parameter that the route does not have: a filter that is passed over would not be noticed.

    Raises:
        InvalidRequestError: there is one.
    """
    dependant = request.scope["route"].dependant
    known = [field.alias for field in dependant.query_params]
    for name in request.query_params:
        if name not in known:
            there = f"; there are {', '.join(known)}" if known else ""
            bodies = [getattr(field.field_info.annotation, "model_fields", {}) for field in dependant.body_params]
            inside = " It goes into the body." if any(name in fields for fields in bodies) else ""
            raise InvalidRequestError(f"{name[:LONGEST_SHOWN]}: there is no such query parameter{there}.{inside}")


async def read_model(model: LiveModel, use_case: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run a use case at once, or in a thread where it would have to wait for the follower."""
    if model.lock.held:
        return await asyncio.to_thread(use_case, *args, **kwargs)
    return use_case(*args, **kwargs)
