"""`kdiffe serve`: the service as a process.

Imports nothing heavy at the top: the thread counts of BLAS are fixed when numpy is first imported.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.workers import THREAD_VARIABLES

if TYPE_CHECKING:
    from service.live.model import LiveModel
    from service.settings import Settings

# mallopt(3) of glibc: what is larger is given back when it is freed (M_MMAP_THRESHOLD); so many heaps at most
# (M_ARENA_MAX); a heap's free end is given back beyond so much (M_TRIM_THRESHOLD).
MALLOC = ((-3, 1 << 18), (-8, 2), (-1, 1 << 20))
# Seconds that a thread keeps the interpreter while others wait for it. With Python's own 5 ms a list waited for whoever
# was settling or refreshing.
SWITCH_INTERVAL = 0.0005


def limit_threads() -> None:
    """Give BLAS and OpenMP one thread; starts the command anew where numpy has been imported with more."""
    if all(os.environ.get(name) == "1" for name in THREAD_VARIABLES):
        return
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    if "numpy" in sys.modules:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (our own command line)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        StartError: the port is taken, or the host is none of this machine's.
    """
    from service.errors import StartError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError(
            f"Can't listen on {host}:{port} ({error.strerror or error}): stop what listens there, or choose another "
            "--port (0 for any free one)."
        ) from None
    return listener


def serve(
    store: Annotated[Path | None, typer.Option(help="Directory of the model store.")] = None,
    state: Annotated[str | None, typer.Option(help="State store: sqlite:///PATH or redis://HOST/DB.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for any free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Serving processes on one socket.")] = None,
    refresh_every: Annotated[int | None, typer.Option(help="Refresh T and the item vectors every N interactions.")] = (
        None
    ),
    index: Annotated[str | None, typer.Option(help="Vector index: faiss, ivf, hnsw or exact.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve recommendations over HTTP. The admin key is read from KDIFFE_ADMIN_KEY."""
    limit_threads()
    from service.settings import misspelling_notes, read_settings

    settings = read_settings(
        store=store,
        state=state,
        host=host,
        port=port,
        workers=workers,
        refresh_every=refresh_every,
        index=index,
        log_level=log_level,
    )
    limit_memory()
    from service.workers import Workers, remove_metrics, shared_metrics

    # Before prometheus_client is imported.
    metrics = shared_metrics() if settings.workers > 1 else None
    try:
        from service.telemetry import configure_logging

        configure_logging(settings.log_level)
        sys.stderr.write(misspelling_notes(os.environ))
        check(settings)
        listener = listen(settings.host, settings.port)
        if metrics is None:
            run(settings, listener, worker=False)
            return
        load_everything()
        # Requests under way, then the follower and the state: each is given its time.
        grace = settings.graceful_shutdown + 10.0
        several = Workers(settings.workers, lambda: run(settings, listener, worker=True), grace=grace)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, several.stop)
        several.run()
    finally:
        if metrics is not None:
            remove_metrics(metrics)


def limit_memory() -> None:
    """Let the C library give large arrays back when they are freed, and share its heaps among threads.

    By itself it keeps up to 32 MB of every size that was once freed, for each of many heaps: refreshes made a worker
    40 MB larger.
    """
    if sys.platform.startswith("linux"):
        change = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others have none and need none
        if change is not None:
            for option, value in MALLOC:
                change(option, value)


def load_everything() -> None:
    """Load every library and compile every function, so that forks share them. FAISS is loaded by now."""
    import uvloop  # noqa: F401

    import service.http.app  # noqa: F401
    from service.live.model import warm_up

    warm_up()


def check(settings: Settings) -> None:
    """Tell what can't work before anything listens.

    Raises:
        StartError: the index's library is missing.
        StateError: the state can't be opened.
    """
    from service.index import index_builder
    from service.state import open_state

    # Without a GPU where forks follow: CUDA does not outlive one.
    options = settings.index_options if settings.workers == 1 else replace(settings.index_options, gpu=False)
    index_builder(settings.index, options)
    open_state(settings.state_url, settings.state_secret).close()


def keep_what_is_there(before: int) -> None:
    """Let collections of garbage pass by what the start made: libraries, kernels, the first model.

    A full collection looks at every object, some 200,000 of which are there for good: all threads stood still for
    0.1 s. Done once: the first model is freed without a collection, too, when another one has followed it.

    Args:
        before: how many objects were set aside when the process began, by the one that it is a fork of.
    """
    if gc.get_freeze_count() == before:
        gc.collect()
        gc.freeze()


def run(settings: Settings, listener: socket.socket, *, worker: bool) -> None:
    """Serve in this process until it is told to stop.

    Args:
        settings: what it is started with.
        listener: where it accepts.
        worker: whether others accept there too: this one begins when its model is loaded.
    """
    import uvicorn

    from service.http.app import create_app

    sys.setswitchinterval(SWITCH_INTERVAL)
    frozen = gc.get_freeze_count()
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{name}:{listener.getsockname()[1]}"

    def tell(model: LiveModel) -> None:
        keep_what_is_there(frozen)
        sys.stderr.write(f"kdiffe: serving {model.version} on {url}\n")
        sys.stderr.flush()

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings, on_swap=tell, wait_ready=worker),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=settings.graceful_shutdown,
        )
    )
    server.run(sockets=[listener])
