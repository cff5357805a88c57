from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service import tracing
from service.errors import StartError
from service.http.app import create_app
from service.recommendation import recommender
from service.settings import Settings
from service.tracing import Tracing, check_tracing, open_tracing
from tests.service.client import Client
from tests.support.artifacts import publish_world


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """A client of a service, and what its spans were."""
    publish_world(tmp_path)
    exporter = InMemorySpanExporter()
    monkeypatch.setattr("service.http.app.open_tracing", lambda _, version, ratio: Tracing(exporter, version, ratio))

    def start(**settings):
        return Client(create_app(Settings(store=tmp_path, index="exact", traces="http://127.0.0.1:1", **settings)))

    return start, exporter


def test_every_request_is_a_span_of_its_route_without_ids(traced, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(recommender, "popular", broken)
    start, exporter = traced
    with start() as client:
        client.get("/recommend/somebody-private", headers={"X-Request-ID": "r-1"})
        client.post("/interactions", json={"user_id": "somebody-private", "item_id": "i1"})
        client.get("/explain/somebody-private/nothing")
        client.get("/popular")
    spans = exporter.get_finished_spans()
    assert [(span.name, span.attributes["http.response.status_code"]) for span in spans] == [
        ("GET /recommend/{user_id:path}", 200),
        ("POST /interactions", 202),
        ("GET /explain/{user_id}/{item_id}", 404),
        ("GET /popular", 500),
    ]
    assert spans[0].attributes["kdiffe.request_id"] == "r-1"
    assert spans[3].status.status_code is StatusCode.ERROR
    assert "private" not in "".join(span.to_json() for span in spans)


def test_a_callers_trace_goes_on(traced):
    start, exporter = traced
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with start(trace_ratio=0.0) as client:
        client.get("/popular")  # nobody traces it
        client.get("/popular", headers={"traceparent": f"00-{trace}-{parent}-01"})
    (span,) = exporter.get_finished_spans()
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (trace, parent)


def test_without_an_address_nothing_is_traced_and_without_the_extra_that_is_told(monkeypatch):
    assert open_tracing("", "1", 1.0) is None
    monkeypatch.setattr(tracing, "LIBRARIES", ("no_such_library",))
    check_tracing("")
    with pytest.raises(StartError, match=r"kdiffe\[tracing\]"):
        check_tracing("http://collector:4318/v1/traces")
