from __future__ import annotations

import asyncio

import pytest

from service.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from service.security.access import Access, needed_scope
from service.security.key_book import KeyBook
from service.security.keyring import Keyring
from service.state.memory import MemoryState

LOCAL = {b"host": b"127.0.0.1:8000"}


class Guard:
    """Access over keys in memory."""

    def __init__(self, least_scope="admin", *, rate=0.0, burst=0.0, admin_key=None) -> None:
        self.book = KeyBook(MemoryState())
        self.access = Access(Keyring(admin_key), least_scope=least_scope, rate=rate, burst=burst)
        self._begun = False

    def ask(self, method="GET", path="/popular", key=None, address="192.0.2.1", headers=LOCAL) -> str:
        """What becomes of a request."""
        shown = dict(headers) if key is None else {**headers, b"authorization": f"Bearer {key}".encode()}

        async def admit():
            if not self._begun:
                await self.access.begin(self.book.keys)
                self._begun = True
            await self.access.admit(method, path, shown, address)

        try:
            asyncio.run(admit())
        except (UnauthorizedError, ForbiddenError, RateLimitedError) as error:
            return str(error.code)
        return "passes"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/health/live", None),
        ("GET", "/health/ready", None),
        ("GET", "/console", None),
        ("GET", "/console/app.js", None),
        ("POST", "/console/", "write"),
        ("GET", "/consoles", "read"),
        ("GET", "/recommend/u1", "read"),
        ("HEAD", "/popular", "read"),
        ("POST", "/recommend", "read"),
        ("POST", "/explain/u1/i1", "read"),
        ("GET", "/metrics", "read"),
        ("GET", "/openapi.json", "read"),
        ("POST", "/interactions", "write"),
        ("DELETE", "/interactions", "write"),
        ("PUT", "/items/i1", "write"),
        ("DELETE", "/items/i1", "write"),
        ("POST", "/recommend/u1", "write"),
        ("PATCH", "/whatever/comes", "write"),
        ("DELETE", "/users/u1", "admin"),
        ("GET", "/admin/jobs", "admin"),
        ("POST", "/admin/retrain", "admin"),
        ("GET", "/admin", "admin"),
        ("GET", "/administrators", "read"),
    ],
)
def test_every_request_needs_the_scope_of_what_it_does(method, path, scope):
    assert needed_scope(method, path) == scope


@pytest.mark.parametrize(
    ("least_scope", "read", "write"),
    [
        ("admin", "passes", "passes"),
        ("write", "passes", "unauthorized"),
        ("read", "unauthorized", "unauthorized"),
    ],
)
def test_without_a_key_passes_what_needs_none(least_scope, read, write):
    guard = Guard(least_scope, admin_key="correct-horse-battery-staple")
    assert guard.ask() == read
    assert guard.ask("POST", "/interactions") == write
    assert guard.ask("GET", "/admin/jobs") == "unauthorized"
    assert guard.ask("GET", "/health/ready") == "passes"


def test_a_key_passes_where_its_scopes_reach():
    guard = Guard("read")
    texts = {scope: guard.book.add(scope, [scope], 0.0)[1] for scope in ("read", "write", "admin")}
    asked = {"read": ("GET", "/popular"), "write": ("POST", "/interactions"), "admin": ("GET", "/admin/jobs")}
    for scope, text in texts.items():
        for needed, (method, path) in asked.items():
            expected = "passes" if scope in {needed, "admin"} else "forbidden"
            assert guard.ask(method, path, text) == expected


def test_a_wrong_key_is_never_as_good_as_none():
    guard = Guard("admin")
    assert guard.ask() == "passes"
    for wrong in ("nonsense", "kdk_abc_def", ""):
        assert guard.ask(key=wrong) == "unauthorized"


def test_a_key_that_was_made_while_the_service_runs_works_at_once(monkeypatch):
    monkeypatch.setattr("service.security.access.PATIENCE", 0.0)
    guard = Guard("read")
    assert guard.ask() == "unauthorized"
    _, text = guard.book.add("shop", ["read"], 0.0)
    assert guard.ask(key=text) == "passes"


def test_unknown_keys_make_nobody_read_the_state_again_and_again():
    guard = Guard("read")
    reads = []
    keys = guard.book.keys

    def counted():
        reads.append(1)
        return keys()

    guard.book.keys = counted

    async def guess():
        await guard.access.begin(guard.book.keys)
        shown = [{**LOCAL, b"authorization": f"Bearer kdk_{n}_wrong".encode()} for n in range(20)]
        asked = [guard.access.admit("GET", "/popular", headers, "") for headers in shown]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(told, UnauthorizedError) for told in asyncio.run(guess()))
    assert len(reads) == 2  # at the start, and once for all of them


def followed_until_unknown(guard, text):
    async def follow():
        following = asyncio.create_task(guard.access.follow(0.001))
        async with asyncio.timeout(20):
            while guard.access.keyring.knows(text):
                await asyncio.sleep(0.001)
        following.cancel()

    asyncio.run(follow())


def test_a_revoked_key_is_refused_once_the_keys_are_read_again():
    guard = Guard("read")
    _, text = guard.book.add("shop", ["read"], 0.0)
    assert guard.ask(key=text) == "passes"
    guard.book.revoke("shop")

    followed_until_unknown(guard, text)
    assert guard.ask(key=text) == "unauthorized"


def test_keys_that_could_not_be_read_once_are_read_again():
    guard = Guard()
    _, text = guard.book.add("shop", ["read"], 0.0)
    assert guard.ask(key=text) == "passes"
    guard.book.revoke("shop")
    keys, tries = guard.access._load, []

    def load():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("a document of a newer release")
        return keys()

    guard.access._load = load

    followed_until_unknown(guard, text)
    assert guard.ask(key=text) == "unauthorized"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({b"host": b"localhost:8000"}, "passes"),
        ({b"host": b"[::1]:8000"}, "passes"),
        ({b"host": b"evil.example"}, "forbidden"),
        ({b"host": b"127.0.0.1@evil.example"}, "forbidden"),
        ({b"host": b"127.0.0.1", b"origin": b"https://evil.example"}, "forbidden"),
        ({b"host": b"127.0.0.1", b"origin": b"null"}, "forbidden"),
        ({b"host": b"["}, "forbidden"),
        ({}, "forbidden"),
        ({b"host": b"127.0.0.1", b"x-forwarded-for": b"203.0.113.5"}, "forbidden"),
        ({b"host": b"127.0.0.1", b"forwarded": b"for=127.0.0.1"}, "forbidden"),
        ({b"host": b"127.0.0.1", b"via": b"1.1 proxy"}, "forbidden"),
    ],
)
def test_without_any_admin_key_administrators_must_be_on_this_machine(headers, expected):
    assert Guard().ask("GET", "/admin/jobs", address="127.0.0.1", headers=headers) == expected


@pytest.mark.parametrize(("address", "expected"), [("::1", "passes"), ("203.0.113.5", "forbidden"), ("", "forbidden")])
def test_and_ask_from_its_own_address(address, expected):
    assert Guard().ask("GET", "/admin/jobs", address=address) == expected


def test_an_admin_key_in_the_state_ends_that():
    guard = Guard()
    guard.book.add("boss", ["admin"], 0.0)
    assert guard.ask("GET", "/admin/jobs") == "unauthorized"


def test_addresses_and_keys_are_limited_apart_each_by_its_rate():
    guard = Guard("admin", rate=0.001, burst=2000.0)  # two requests, and then none for a long time
    _, usual = guard.book.add("usual", ["read"], 0.0)
    _, rare = guard.book.add("rare", ["read"], 0.0, rate=0.0005)
    assert [guard.ask() for _ in range(3)] == ["passes", "passes", "rate_limited"]
    assert guard.ask(address="192.0.2.2") == "passes"
    assert [guard.ask(key=usual) for _ in range(3)] == ["passes", "passes", "rate_limited"]
    assert [guard.ask(key=rare) for _ in range(2)] == ["passes", "rate_limited"]
    assert guard.ask("GET", "/health/live") == "passes"


def test_whoever_guesses_keys_is_slowed_down():
    guard = Guard("admin", rate=0.001, burst=2000.0)
    assert [guard.ask(key=f"guess-{n}") for n in range(3)] == ["unauthorized", "unauthorized", "rate_limited"]
