"""A client of the application in this process: the lifespan and the requests on an event loop of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import httpx
from fastapi import FastAPI


class Client:
    """Starts the application, waits until it is ready, makes requests one by one or many at a time."""

    def __init__(self, app: FastAPI, *, base_url: str = "http://127.0.0.1", ready: bool = True) -> None:
        self.app = app
        self._base_url = base_url
        self._ready = ready
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def await_it() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(await_it(), self._loop).result(60)

    def __enter__(self) -> Client:
        self._thread.start()
        self._lifespan = self.app.router.lifespan_context(self.app)
        self.run(self._lifespan.__aenter__())
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False), base_url=self._base_url
        )
        if self._ready:
            assert self.registry.wait_ready(60), self.registry.problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._client.aclose())
        self.run(self._lifespan.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def context(self) -> Any:
        return self.app.state.context

    @property
    def registry(self) -> Any:
        return self.context.registry

    @property
    def model(self) -> Any:
        return self.registry.model

    def wait_idle(self) -> None:
        assert self.registry.follower.wait_idle(30)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.run(self._client.request(method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def together(self, make: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """Run a coroutine that makes many requests."""
        return self.run(make(self._client))
