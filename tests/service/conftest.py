from __future__ import annotations

import logging

import pytest
import structlog


@pytest.fixture(autouse=True)
def quiet_logs():
    """Warnings and errors as plain lines: the tests' output is read when one of them fails."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(["event"])],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    yield
    structlog.reset_defaults()
