"""Marks: what a test needs, and why it is skipped where that is missing; Ctrl-C as in a terminal."""

from __future__ import annotations

import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_configure() -> None:
    # A shell starts what it puts in the background with SIGINT ignored, which the processes of the tests would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="slow: run by `make test-all`")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)
