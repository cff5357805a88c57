"""Around every request, in plain ASGI: a request id, encoded paths, access, a size limit, headers, metrics, a log line.

Nothing of the service's inside leaks.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

import structlog
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import KDiffEError
from service.errors import ErrorCode, RequestTooLargeError
from service.http.answers import answer_of, error_answer
from service.http.context import Context
from service.security.access import Access
from service.telemetry import Telemetry

SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

Header = tuple[bytes, bytes]
# What every answer says to browsers; an answer that says otherwise itself is left as it is.
SECURE: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
# Pages and their files say by themselves what they may load.
POLICY: Header = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
JSON: Header = (b"content-type", b"application/json")
# Stands in every answer that is made from memory while the log can't be read.
DEGRADED = (b"x-kdiffe-degraded", b"state")

log = structlog.get_logger(__name__)


class Surroundings:
    """The one middleware."""

    def __init__(self, app: ASGIApp, access: Access, telemetry: Telemetry, max_request_bytes: int) -> None:
        self._app = app
        self._access = access
        self._telemetry = telemetry
        self._limit = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = (given if SANE_ID.fullmatch(given) else os.urandom(8).hex().encode()).decode()
        scope.setdefault("state", {})["request_id"] = request_id
        # Routes see the path as it was sent, so that an id may hold an encoded slash.
        if scope.get("raw_path"):
            scope["path"] = scope["raw_path"].decode("latin-1")
        if scope["method"] == "HEAD":
            # Answered as GET; the server leaves the body out, by the scope that it keeps for itself.
            scope = {**scope, "method": "GET"}
        context: Context | None = getattr(scope["app"].state, "context", None)
        tracing = None if context is None else context.tracing
        if tracing is None:
            await self._serve(scope, receive, send, headers, request_id, context)
            return
        with tracing.request(scope["method"], headers, request_id) as span:
            route, status = await self._serve(scope, receive, send, headers, request_id, context)
            tracing.answered(span, scope["method"], route, status)

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        request_id: str,
        context: Context | None,
    ) -> tuple[str, int]:
        """Serve one request. Its route and its status."""
        began = time.perf_counter()
        status = 500
        started = False

        async def observed(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"] = [*secured(message["headers"]), (b"x-request-id", request_id.encode())]
                if context is not None and context.registry.degraded is not None:
                    message["headers"].append(DEGRADED)
            await send(message)

        try:
            try:
                await self._access.admit(scope["method"], scope["path"], headers, address_of(scope))
                await self._app(scope, self._limited(headers, receive), observed)
            except KDiffEError as error:
                if started:
                    raise
                await answer_of(error, request_id)(scope, receive, observed)
        except Exception:
            log.exception("internal error", method=scope["method"], request_id=request_id)
            if started:
                raise
            message = f"Something broke inside the service. Its log has the details under request id {request_id}."
            await error_answer(ErrorCode.INTERNAL_ERROR, message, request_id)(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - began
            # The route's template, not the path: few names, and no ids in metrics and logs.
            route = getattr(scope.get("route") or _route_of(scope), "path", "unmatched")
            self._telemetry.request(scope["method"], route, status, seconds)
            log.debug(
                "request",
                method=scope["method"],
                route=route,
                status=status,
                ms=round(seconds * 1000, 2),
                request_id=request_id,
            )
        return route, status

    def _limited(self, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        """`receive`, with the body's size limited: by what is announced, and by what comes."""
        announced = headers.get(b"content-length", b"")
        known = int(announced) if announced.isdigit() else 0
        received = 0

        async def limited() -> Message:
            nonlocal received
            if known > self._limit:
                raise RequestTooLargeError(self._message())
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._limit:
                    raise RequestTooLargeError(self._message())
            return message

        return limited

    def _message(self) -> str:
        return f"The request's body is larger than {self._limit} bytes: send smaller batches."


def _route_of(scope: Scope) -> BaseRoute | None:
    """The route of a request that was answered before it came to one: refused for its key, say."""
    return next((route for route in scope["app"].state.routes if route.matches(scope)[0] is Match.FULL), None)


def secured(headers: list[Header]) -> list[Header]:
    """An answer's headers, with those for browsers."""
    if len(headers) == 2 and headers[1] == JSON:  # nearly all
        return [*headers, *SECURE, POLICY]
    said = {name.lower() for name, _ in headers}
    return [*headers, *(header for header in (*SECURE, POLICY) if header[0] not in said)]


def address_of(scope: Scope) -> str:
    """The client's address, empty where the server does not tell it."""
    client = scope.get("client")
    return client[0] if client else ""
