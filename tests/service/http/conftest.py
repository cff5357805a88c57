"""A service for tests of routes; a file that needs another one has a `client` of its own."""

from __future__ import annotations

import pytest

from service.http.app import create_app
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import publish_world


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish_world(root)
    with Client(create_app(Settings(store=root, index="exact", refresh_every=5))) as client:
        yield client
