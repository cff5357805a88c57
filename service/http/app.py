"""The application: puts the parts together, starts and stops them."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from model_store.store import ModelStore
from service.explanation.past import PastModels
from service.http import (
    routes_admin,
    routes_catalogue,
    routes_console,
    routes_docs,
    routes_explanations,
    routes_health,
    routes_interactions,
    routes_items,
    routes_lists,
    routes_recommendations,
    routes_users,
)
from service.http.answers import add_error_handlers
from service.http.cache import ListCache
from service.http.context import Context, known_parameters
from service.http.description import complete
from service.http.express import Express
from service.http.gathering import Gathering
from service.http.middleware import Surroundings
from service.index import index_builder
from service.intake import Intake
from service.jobs.jobs import SWAP_TIMEOUT, Jobs, training_installed
from service.jobs.runner import Runner, job_rules, schedule_of
from service.jobs.training_process import Command
from service.live.model import LiveModel
from service.live.registry import Registry
from service.security.access import Access
from service.security.key_book import stored_keys
from service.security.keyring import Keyring
from service.settings import Settings
from service.state import open_state
from service.telemetry import Telemetry
from service.tracing import check_tracing, open_tracing

# Seconds that a worker beside others waits for its model before it accepts requests none the less.
START_PATIENCE = 300.0
DESCRIPTION = """
Recommendations with explanations that add up, kept up to date while interactions arrive.

Ids stand percent-encoded in paths (`a/b` is `a%2Fb`). Every error is
`{"error": {"code", "message", "request_id"}}`; admin routes take `Authorization: Bearer KEY`.
"""


class Application(FastAPI):
    """FastAPI's application, with what every request passes around it, and the express way before its own layers."""

    def __init__(self, surround: Callable[[ASGIApp], ASGIApp], **options: Any) -> None:
        """Make it.

        Args:
            surround: makes the outermost layer.
            options: FastAPI's.
        """
        super().__init__(**options)
        self._surround = surround
        self._described: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; FastAPI's own telemetry, which looks for its providers at each, is passed by."""
        if scope["type"] == "http":
            await Starlette.__call__(self, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The description, with what the layers around the routes add to it."""
        if self._described is None:
            self._described = complete(super().openapi())
        return self._described

    def build_middleware_stack(self) -> ASGIApp:
        """The layers, the outermost first."""
        inner = super().build_middleware_stack()
        if isinstance(inner, ServerErrorMiddleware):  # its answers have not our shape; `Surroundings` does its work
            inner = inner.app
        return self._surround(Express(inner))


def cross_origin(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application, with pages of the configured origins let in; of none by default."""
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID"],
        expose_headers=["Retry-After", "X-KDiffE-Degraded", "X-Request-ID"],
    )


def create_app(
    settings: Settings,
    *,
    train_command: Command | None = None,
    on_swap: Callable[[LiveModel], None] | None = None,
    wait_ready: bool = False,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: what it is started with.
        train_command: the command of a retrain job's process; kdiffe's own where None.
        on_swap: told of every version that is put in force.
        wait_ready: whether the application starts when a version is served (or can't be), rather than at once.
    """
    version = importlib.metadata.version("kdiffe")
    check_tracing(settings.traces)
    telemetry = Telemetry()
    access = Access(
        Keyring(settings.admin_secret),
        least_scope=settings.require_keys,
        rate=settings.rate_limit,
        burst=settings.rate_burst,
    )

    def swapped(model: LiveModel) -> None:
        telemetry.swapped()
        if on_swap is not None:
            on_swap(model)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        build_index = index_builder(settings.index, settings.index_options)
        state = await asyncio.to_thread(open_state, settings.state_url, settings.state_secret)
        store = ModelStore(settings.store)
        registry = Registry(
            store,
            state,
            build_index,
            refresh_every=settings.refresh_every,
            poll_interval=settings.poll_interval,
            version_interval=settings.version_interval,
            keep_warm=settings.keep_warm,
            on_swap=swapped,
        )
        training = train_command is not None or training_installed()
        runner = Runner(
            store,
            state,
            telemetry,
            settings.jobs_directory,
            served=lambda: registry.model.version,
            wait_served=lambda version: registry.wait_version(version, SWAP_TIMEOUT),
            rules=job_rules(settings, train_command),
            schedule=schedule_of(settings, store, state),
            training=training and settings.trainer == "here",
        )
        jobs = Jobs(
            state,
            settings.jobs_directory,
            wake=runner.wake,
            served=lambda: registry.model.version,
            training=training or settings.trainer == "elsewhere",
        )
        intake = Intake(state, registry, max_lag=settings.max_lag, apply_timeout=settings.apply_timeout)
        queues = {"writes": lambda: intake.waiting, "jobs": lambda: runner.waiting}
        telemetry.watch(registry, queues, writes_fail=lambda: intake.failure is not None)
        app.state.context = Context(
            settings,
            state,
            registry,
            jobs,
            telemetry,
            intake,
            ListCache(settings.cached_lists),
            Gathering(),
            PastModels(store, state),
            await asyncio.to_thread(open_tracing, settings.traces, version, settings.trace_ratio),
        )
        await access.begin(lambda: stored_keys(state))
        following = asyncio.create_task(access.follow(settings.keys_interval))
        try:
            await asyncio.to_thread(runner.start)
            # Loading goes on in the background: the process is live at once, and ready when a version is served.
            registry.start()
            if wait_ready:
                await asyncio.to_thread(registry.wait_ready, START_PATIENCE)
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await asyncio.to_thread(runner.stop)
            await asyncio.to_thread(telemetry.close)
            await asyncio.to_thread(registry.stop)
            await asyncio.to_thread(state.close)
            if app.state.context.tracing is not None:
                await asyncio.to_thread(app.state.context.tracing.close)

    app = Application(
        lambda inner: cross_origin(Surroundings(inner, access, telemetry, settings.max_request_bytes), settings),
        title="KDiffE",
        version=version,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load from another host
        redoc_url=None,
    )
    add_error_handlers(app)
    checked = [Depends(known_parameters)]
    modules = (
        routes_recommendations,
        routes_lists,
        routes_explanations,
        routes_catalogue,
        routes_items,
        routes_interactions,
        routes_users,
        routes_admin,
    )
    # Probes and scrapers may add parameters of their own.
    lenient = (routes_health, routes_docs, *([routes_console] if settings.console else []))
    for routes in modules:
        app.include_router(routes.router, dependencies=checked)
    for routes in lenient:
        app.include_router(routes.router)
    app.state.routes = tuple(route for routes in (*modules, *lenient) for route in routes.router.routes)
    return app
