"""`kdiffe trainer`: runs the retrain jobs of services that have no training beside them, through the shared state.

It needs the store that the services read, and their state. The services are started with KDIFFE_TRAINER=elsewhere.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer


def trainer(
    store: Annotated[Path | None, typer.Option(help="Directory of the model store.")] = None,
    state: Annotated[str | None, typer.Option(help="State store: sqlite:///PATH or redis://HOST/DB.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run retrain jobs until SIGTERM or Ctrl-C, which queues the running one again."""
    from model_store.store import ModelStore
    from service.errors import StartError
    from service.jobs.jobs import training_installed
    from service.jobs.runner import Runner, active_version, job_rules, schedule_of
    from service.settings import misspelling_notes, read_settings
    from service.state import open_state
    from service.telemetry import Telemetry, configure_logging

    # It listens nowhere, so it needs no admin key.
    settings = read_settings(store=store, state=state, log_level=log_level, host="127.0.0.1")
    if not training_installed():
        raise StartError("Training is not installed: pip install 'kdiffe[service,training]'.")
    configure_logging(settings.log_level)
    sys.stderr.write(misspelling_notes(os.environ))
    models = ModelStore(settings.store)
    models.check_writable()
    shared = open_state(settings.state_url, settings.state_secret)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    runner = Runner(
        models,
        shared,
        Telemetry(),
        settings.jobs_directory,
        served=lambda: active_version(models),
        rules=job_rules(settings),
        schedule=schedule_of(settings, models, shared),
    )
    runner.start()
    sys.stderr.write(f"kdiffe: waiting for jobs of {settings.store}\n")
    sys.stderr.flush()
    stop.wait()
    runner.stop()
    shared.close()
