"""The page of the API's description: nothing of it comes from another host, and a browser shows every operation."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from service.http.app import create_app
from service.settings import Settings
from tests.support.artifacts import publish_world
from tests.support.browser import started_browser
from tests.support.live_server import LiveServer


def test_the_page_loads_its_own_files_alone(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(named) == 4
    assert not re.findall(r"//", page.text)
    for name in named:
        assert name.startswith("docs/")
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == page.headers["content-security-policy"]
        kind = {"css": "text/css", "js": "text/javascript", "png": "image/png"}[name.rpartition(".")[2]]
        assert answer.headers["content-type"].startswith(kind)
        again = client.get(f"/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    shipped = (files("fastapi_swagger.resources") / "swagger-ui-bundle.js").read_bytes()
    assert client.get("/docs/swagger-ui-bundle.js").content == shipped
    start = client.get("/docs/start.js").text
    assert 'url: "openapi.json"' in start
    assert "//" not in start


def test_the_page_is_told_to_load_from_this_host_alone(client):
    page = client.get("/docs")
    rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert not [rule for rule in rules.values() if "http" in rule or "*" in rule]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/redoc", "/docs/no.js", "/docs/..%2fapp.py", "/docs/oauth2-redirect"])
def test_what_is_no_file_of_the_page_is_not_found(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_page_is_no_part_of_the_description(client):
    assert not [path for path in client.app.openapi()["paths"] if "docs" in path]


@pytest.mark.timeout(300)  # Swagger UI is a lot of work for a browser on a busy machine
@pytest.mark.browser
def test_a_browser_shows_every_operation_and_calls_one(tmp_path):
    publish_world(tmp_path)
    with started_browser() as browser, LiveServer(create_app(Settings(store=tmp_path, index="exact"))) as server:
        described = server.app.openapi()["paths"]
        page = browser.new_page()
        page.set_default_timeout(100_000)
        faults: list[str] = []
        page.on("console", lambda it: it.type == "error" and faults.append(it.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda it: it.url.startswith((f"{server.url}/", "data:")) or faults.append(it.url))
        page.goto(f"{server.url}/docs", wait_until="commit")
        shown = page.locator(".opblock .opblock-summary-path")
        shown.first.wait_for()
        expected = sorted(path for path, operations in described.items() for _ in operations)
        assert sorted(text.replace("\u200b", "") for text in shown.all_inner_texts()) == expected
        operation = page.locator(".opblock", has_text="/health/live")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .response").first.inner_text()
        assert "200" in answer
        assert '"live"' in answer
        # Its style sheet is in force.
        assert operation.evaluate("it => getComputedStyle(it).borderRadius") == "4px"
        assert faults == []
