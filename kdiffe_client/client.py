"""The client, and its twin for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import httpx

from kdiffe_client import models
from kdiffe_client.errors import UnavailableError
from kdiffe_client.operations import AsyncOperations, Operations
from kdiffe_client.request import (
    DEFAULT_URL,
    Request,
    answer_of,
    built,
    failure_of,
    may_repeat,
    settings,
    wait_before,
    with_ids,
)


class Client(Operations):
    """Asks a service. Safe for several threads; close it, or use it as a context."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask the service at `url`.

        Args:
            url: where it listens, with a proxy's prefix where there is one.
            key: an API key, blanks around it left away; None for none.
            timeout: seconds until a request without an answer is given up.
            retries: how often a request is sent again that was not answered, or answered 429 or 503, where sending it
                twice has the effect of once.
            transport: httpx's, for tests and proxies.
            sleep: waits.

        Raises:
            InvalidRequestError: the key can't stand in a header.
        """
        self._http = httpx.Client(**settings(url, key, timeout), transport=transport)
        self._retries = retries
        self._sleep = sleep

    def add_interactions(self, body: models.NewInteraction | models.NewInteractions) -> models.Accepted:
        """Tell what users did. Each gets an idempotency key where it has none, so that it can be sent again."""
        return super().add_interactions(with_ids(body))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Request) -> Any:
        sent, attempt = built(self._http, request), 0
        while True:
            attempt += 1
            try:
                return answer_of(request, self._http.send(sent))
            except (httpx.RequestError, UnavailableError) as error:
                failure, again = failure_of(request, error), attempt <= self._retries and may_repeat(request, error)
            if not again:
                raise failure  # outside of the handler: no error whose text may hold a secret goes with it
            self._sleep(wait_before(attempt, failure))


class AsyncClient(AsyncOperations):
    """Asks a service from an event loop. Close it, or use it as a context."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Ask the service at `url`; see `Client`."""
        self._http = httpx.AsyncClient(**settings(url, key, timeout), transport=transport)
        self._retries = retries
        self._sleep = sleep

    async def add_interactions(self, body: models.NewInteraction | models.NewInteractions) -> models.Accepted:
        """Tell what users did. Each gets an idempotency key where it has none, so that it can be sent again."""
        return await super().add_interactions(with_ids(body))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, request: Request) -> Any:
        sent, attempt = built(self._http, request), 0
        while True:
            attempt += 1
            try:
                return answer_of(request, await self._http.send(sent))
            except (httpx.RequestError, UnavailableError) as error:
                failure, again = failure_of(request, error), attempt <= self._retries and may_repeat(request, error)
            if not again:
                raise failure  # outside of the handler: no error whose text may hold a secret goes with it
            await self._sleep(wait_before(attempt, failure))
