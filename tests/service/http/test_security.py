"""Security as a client of the service meets it."""

from __future__ import annotations

import io
import logging

import pytest
import structlog

from service.http.app import create_app
from service.security.key_book import KeyBook
from service.settings import Settings
from service.telemetry import configure_logging
from tests.service.client import Client
from tests.support.artifacts import publish_world


@pytest.fixture
def make(tmp_path):
    publish_world(tmp_path)
    clients = []

    def start(**settings) -> Client:
        client = Client(create_app(Settings(store=tmp_path, index="exact", keys_interval=0.05, **settings)))
        clients.append(client)
        return client.__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_where_reads_need_keys_the_express_way_needs_them_too(make):
    client = make(require_keys="read")
    _, reader = KeyBook(client.context.state).add("reader", ["read"], 0.0)
    _, writer = KeyBook(client.context.state).add("writer", ["write"], 0.0)
    body = {"user_id": "u1", "item_id": "i1"}
    for headers, read, write in (({}, 401, 401), (bearer(reader), 200, 403), (bearer(writer), 403, 202)):
        assert client.get("/recommend/u1", headers=headers).status_code == read
        assert client.get("/recommend/u1?k=3&at_least=0", headers=headers).status_code == read
        assert client.post("/interactions", json=body, headers=headers).status_code == write
    refused = client.get("/recommend/u1")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "unauthorized"
    assert client.get("/health/ready").status_code == 200


def test_too_many_requests_are_told_when_to_come_back(make):
    client = make(rate_limit=0.01, rate_burst=200.0)
    answers = [client.get("/popular") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["code"] == "rate_limited"
    assert 95 <= int(answers[2].headers["retry-after"]) <= 100
    assert client.get("/health/live").status_code == 200


def test_every_answer_tells_browsers_to_be_careful(make):
    client = make()
    for answer in (client.get("/recommend/u1"), client.get("/popular"), client.get("/nope"), client.get("/metrics")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_pages_of_other_origins_may_call_where_the_settings_name_them(make):
    client = make(cors_origins=("https://shop.example",), require_keys="read")
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    preflight = client.request("OPTIONS", "/recommend/u1", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
    refused = client.get("/recommend/u1", headers={"Origin": "https://shop.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://shop.example")
    other = client.get("/recommend/u1", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_no_key_is_ever_logged(make):
    logged = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        configure_logging("debug")
        structlog.configure(cache_logger_on_first_use=False)  # the loggers outlive this test
        root.handlers[0].setStream(logged)
        client = make(admin_key="correct-horse-battery-staple")
        _, text = KeyBook(client.context.state).add("shop", ["read"], 0.0)
        secret = text.rpartition("_")[2]
        client.get("/recommend/u1", headers=bearer(text))
        client.get(f"/recommend/{text}", headers=bearer("correct-horse-battery-staple"))
        client.get("/admin/jobs", headers=bearer("kdk_abc_wrong-secret-text"))
        logging.getLogger("elsewhere").warning("a library says %s", text)
        assert "a library says" in logged.getvalue()
        for never in (secret, "correct-horse-battery-staple", "wrong-secret-text"):
            assert never not in logged.getvalue()
    finally:
        root.handlers[:], root.level = handlers, level


def test_the_description_says_which_scope_every_operation_needs_and_which_errors_it_may_answer(make):
    described = make().get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            scope = operation.get("x-scope")
            assert (scope is None) == path.startswith("/health/"), (method, path)
            if scope:
                assert {"401", "403", "429"} <= operation["responses"].keys()
            if scope == "admin":
                assert operation["security"] == [{"key": ["admin"]}]
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert response["content"] == error, (method, path, status)
                    assert response["description"]
    assert "HTTPValidationError" not in described["components"]["schemas"]
