from __future__ import annotations

import hashlib
import json
import re

import pytest

from service.console.assets import HEADERS, read_assets
from service.http.app import create_app
from service.settings import Settings
from tests.service.client import Client

KEY = "correct-horse-battery-staple"
ASSETS = read_assets()
CONTENT_SECURITY_POLICY = HEADERS["Content-Security-Policy"]
OWN = {name: asset for name, asset in ASSETS.items() if not name.startswith("vendor/")}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    settings = Settings(store=tmp_path_factory.mktemp("store"), console=True, require_keys="read", admin_key=KEY)
    with Client(create_app(settings), ready=False) as client:
        yield client


def test_the_console_is_off_unless_it_is_enabled(tmp_path):
    with Client(create_app(Settings(store=tmp_path)), ready=False) as client:
        for path in ("/console", "/console/", "/console/app.js"):
            assert client.get(path).status_code == 404


def test_the_page_is_served_without_a_key_for_it_holds_no_data(client):
    assert client.get("/console").headers["location"] == "console/"
    page = client.get("/console/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.content == ASSETS["index.html"].content


def test_the_policy_allows_this_host_s_files_and_nothing_else():
    sources = {source for rule in CONTENT_SECURITY_POLICY.split("; ") for source in rule.split()[1:]}
    assert sources == {"'none'", "'self'", "'script'"}
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")


def test_a_file_that_has_not_changed_is_not_sent_again(client):
    first = client.get("/console/vendor/preact.mjs")
    assert first.headers["content-type"].startswith("text/javascript")
    again = client.get("/console/vendor/preact.mjs", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/console/app.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("path", ["no.js", "../settings.py", "..%2f..%2fsettings.py", "%2e%2e/__init__.py", "vendor"])
def test_what_is_no_file_of_the_console_is_not_found(client, path):
    answer = client.get(f"/console/{path}", headers={"Authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_console_s_routes_are_no_part_of_the_interface_s_description(client):
    assert not [path for path in client.app.openapi()["paths"] if "console" in path]


def test_the_libraries_are_the_ones_that_are_listed_each_with_its_licence():
    listed = json.loads(ASSETS["vendor/vendor.json"].content)
    files = {name: entry for library in listed.values() for name, entry in library["files"].items()}
    assert {f"vendor/{name}" for name in files} | {"vendor/vendor.json"} == set(ASSETS) - set(OWN)
    for name, entry in files.items():
        assert hashlib.sha256(ASSETS[f"vendor/{name}"].content).hexdigest() == entry["sha256"], name
    for name, library in listed.items():
        assert library["license"] in {"MIT", "Apache-2.0"}
        assert f"{name}.LICENSE" in library["files"]


def test_every_file_that_a_file_names_is_there_and_none_is_elsewhere():
    for name, asset in OWN.items():
        text = asset.content.decode()
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.\w+", text), name
        if name.endswith(".js"):
            named = re.findall(r'from "\./([^"]+)"', text)
            assert len(named) == text.count(' from "'), name
        else:
            named = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert set(named) <= set(ASSETS), name
