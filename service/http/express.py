"""The express way: the two routes that make up nearly all requests, answered before FastAPI's layers are passed.

Those layers (two stacks of middleware, the search for the route, dependencies, validation, the response class) cost
more than the answer itself. Only the plain form of a request is taken here; everything else goes the long way, and both
end in the same function. OpenAPI is described by FastAPI's routes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.answers import send_json
from service.http.context import Context, external_id
from service.http.routes_interactions import accepted
from service.http.routes_recommendations import DEFAULT_K, recommended

RECOMMEND = "/recommend/"
INTERACTIONS = "/interactions"
# The plain form of the query; other spellings of a number are FastAPI's to judge.
PLAIN_K = re.compile(rb"k=([1-9][0-9]{0,4})")


class Route(NamedTuple):
    """What the metrics call a route."""

    path: str


RECOMMEND_ROUTE = Route("/recommend/{user_id:path}")
INTERACTIONS_ROUTE = Route(INTERACTIONS)


class Express:
    """Answers `GET /recommend/{user_id}` and `POST /interactions`, and hands everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"]
            if method == "GET" and path.startswith(RECOMMEND):
                k = plain_k(scope["query_string"])
                if k is not None:
                    scope["route"] = RECOMMEND_ROUTE
                    context: Context = scope["app"].state.context
                    user_id = external_id("user", path[len(RECOMMEND) :], context.settings)
                    await send_json(send, await recommended(context, user_id, k))
                    return
            elif method == "POST" and path == INTERACTIONS and not scope["query_string"]:
                scope["route"] = INTERACTIONS_ROUTE
                body = await read_body(receive)
                await send_json(send, await accepted(scope["app"].state.context, body), 202)
                return
        await self._app(scope, receive, send)


def plain_k(query: bytes) -> int | None:
    """The k of a query that says nothing else, in plain digits; None of any other query."""
    if not query:
        return DEFAULT_K
    found = PLAIN_K.fullmatch(query)
    return None if found is None else int(found.group(1))


async def read_body(receive: Receive) -> bytes:
    """A request's whole body. What a client that has gone away has left is a part, and no JSON."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)
