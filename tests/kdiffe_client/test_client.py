"""Both clients against a running service: every operation is called, and each answer is of its type."""

from __future__ import annotations

import asyncio
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kdiffe_client import (
    ApiError,
    AsyncClient,
    Client,
    ClientError,
    InvalidRequestError,
    NoAnswerError,
    UnavailableError,
    UnreadableAnswerError,
    models,
)
from kdiffe_client.operations import Operations
from service.http.app import create_app
from service.settings import Settings
from tests.service.houses import trainer
from tests.support.knowledge import publish_knowledge_world
from tests.support.live_server import LiveServer

KEY = "correct-horse-battery-staple"
# Each operation's arguments, in an order in which each of them works; ids are such as need encoding.
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("live", (), {}),
    ("ready", (), {}),
    ("add_interactions", ({"interactions": [{"user_id": "a/b", "item_id": "i1"}]},), {}),
    ("recommend", ("a/b",), {"k": 5, "at_least": 1}),
    ("recommend_lists", ({"user_ids": ["u1", "a/b"], "k": 3},), {}),
    ("explain", ("u2", "i3"), {"parts": "paths,reasons,counterfactual,why_not", "k": 5}),
    ("explain_filtered", ("u2", "i3", {"parts": ["why_not"], "exclude": ["i1"]}), {}),
    ("history", ("a/b",), {"limit": 3}),
    ("similar", ("i3",), {"k": 3}),
    ("popular", (), {"k": 3}),
    ("describe_items", (), {"item_id": ["i1", "not known"]}),
    ("put_item", ("..", {"name": "Two dots"}), {"idempotency_key": "k1"}),
    ("get_item", ("..",), {}),
    ("withdraw_item", ("..",), {}),
    ("put_user", ("u ü", {"attributes": {"country": "AT"}}), {}),
    ("get_user", ("u ü",), {}),
    ("remove_interaction", (), {"user_id": "a/b", "item_id": "i1"}),
    ("erase_user", ("u ü",), {}),
    ("type_weights", (), {}),
    ("weigh_type", ("a/type", {"weight": 3.0}), {}),
    ("list_models", (), {}),
    ("describe_model", ("v0001",), {}),
    ("activate_model", ("v0002",), {}),
    ("rollback", (), {}),
    (
        "put_experiment",
        ({"name": "x", "variants": [{"name": "b", "version": "v0002", "share": 0.5}]},),
        {},
    ),
    ("experiment", (), {}),
    ("end_experiment", (), {}),
    ("retrain", (), {}),
    ("jobs", (), {}),
    ("digest", (), {}),
    ("metrics", (), {}),
]
# A job's are called with the job that `retrain` has made.
OF_JOBS = ("job", "job_log", "cancel_job")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    tmp_path = tmp_path_factory.mktemp("served")
    for n in (1, 2):
        publish_knowledge_world(tmp_path / "store", tmp_path / f"aside{n}")
    settings = Settings(store=tmp_path / "store", index="exact", admin_key=KEY, version_interval=0.02)
    with LiveServer(create_app(settings, train_command=trainer("sleeping"))) as server:
        server.app.state.context.registry.store.activate("v0001")
        server.app.state.context.registry.wait_version("v0001", 60)
        yield server


def faults(value: Any, kind: Any, place: str = "answer") -> list[str]:
    """Where a value is not of a type: what is missing, what is more, what is of another kind."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return []
    if origin is typing.Literal:
        return [] if value in arguments else [f"{place} is {value!r}"]
    if origin in {typing.Union, types.UnionType}:
        found = [faults(value, one, place) for one in arguments]
        return [] if [] in found else min(found, key=len)
    if origin is list:
        if not isinstance(value, list):
            return [f"{place} is no list"]
        return [fault for n, one in enumerate(value) for fault in faults(one, arguments[0], f"{place}[{n}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{place} is no dictionary"]
        return [fault for name, one in value.items() for fault in faults(one, arguments[1], f"{place}.{name}")]
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, dict) or not kind.__required_keys__ <= set(value) <= set(hints):
            return [f"{place} has {sorted(value) if isinstance(value, dict) else value!r}, not {sorted(hints)}"]
        return [fault for name, one in value.items() for fault in faults(one, hints[name], f"{place}.{name}")]
    allowed = (int, float) if kind is float else kind
    fits = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
    return [] if fits else [f"{place} is {value!r}, no {kind}"]


def check(name: str, answer: Any) -> None:
    """Compare an answer with the type that the operation promises."""
    kind = typing.get_type_hints(getattr(Operations, name))["return"]
    assert faults(answer, kind, name) == []


def test_the_comparison_with_a_type_finds_what_is_wrong() -> None:
    good = {"accepted": 1, "duplicates": 0, "sequence": 3}
    assert faults(good, models.Accepted) == []
    for bad in ({**good, "more": 1}, {"accepted": 1}, {**good, "sequence": "3"}, {**good, "sequence": True}, [], None):
        assert len(faults(bad, models.Accepted)) == 1
    assert faults([good, {}], list[models.Accepted])[0].startswith("answer[1]")


def test_every_operation_answers_its_type(server: LiveServer) -> None:
    called = [name for name, _, _ in CALLS] + list(OF_JOBS)
    methods = [name for name, _ in inspect.getmembers(Operations, inspect.isfunction) if not name.startswith("_")]
    assert sorted(called) == sorted(methods)
    with Client(server.url, KEY, timeout=60) as client:
        for name, arguments, options in CALLS:
            check(name, getattr(client, name)(*arguments, **options))
        job = client.jobs()["jobs"][0]["job_id"]
        for name in OF_JOBS:
            check(name, getattr(client, name)(job))


def test_the_asynchronous_client_answers_the_same(server: LiveServer) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(server.url, KEY, timeout=60) as client:
            await client.add_interactions({"user_id": "a/b", "item_id": "i1"})
            return list(
                await asyncio.gather(
                    client.recommend("a/b", at_least=1), client.explain("a/b", "i3"), client.list_models()
                )
            )

    found = asyncio.run(ask())
    with Client(server.url, KEY) as client:
        assert found == [client.recommend("a/b"), client.explain("a/b", "i3"), client.list_models()]


def test_an_error_is_the_service_s_and_a_wrong_key_is_told(server: LiveServer) -> None:
    with Client(server.url) as client:
        with pytest.raises(ApiError, match="Unknown user 'nobody'") as told:
            client.explain("nobody", "i1")
        assert (told.value.status, told.value.code) == (404, "unknown_user")
        with pytest.raises(ApiError) as told:
            client.list_models()
        assert told.value.code == "unauthorized"
    with Client(server.url, "another-key-that-is-wrong") as client, pytest.raises(ApiError) as told:
        client.popular()
    assert told.value.code == "unauthorized"


async def asked(client: AsyncClient, operation: str, *arguments: Any, **options: Any) -> Any:
    """What the asynchronous client answers; it is closed then."""
    async with client:
        return await getattr(client, operation)(*arguments, **options)


def test_a_key_that_was_read_from_a_file_is_the_key(server: LiveServer) -> None:
    with Client(server.url, f"{KEY}\n") as client:
        found = client.list_models()
    assert asyncio.run(asked(AsyncClient(server.url, f"{KEY}\n"), "list_models")) == found


def test_a_header_that_http_refuses_is_told_at_once_and_not_shown(server: LiveServer) -> None:
    waits: list[float] = []

    async def asleep(seconds: float) -> None:
        waits.append(seconds)

    for ask in (
        lambda: Client(server.url, KEY, sleep=waits.append).put_item("a", {}, idempotency_key="hush\n"),
        lambda: asyncio.run(
            asked(AsyncClient(server.url, KEY, sleep=asleep), "put_item", "a", {}, idempotency_key="hush\n")
        ),
    ):
        with pytest.raises(InvalidRequestError) as told:
            ask()
        assert "hush" not in str(told.value)
        assert told.value.__cause__ is told.value.__context__ is None
    assert waits == []


class Flaky:
    """A service that answers by a script: a status, or None for a broken connection."""

    def __init__(self, *script: int | None) -> None:
        self.script = list(script)
        self.bodies: list[bytes] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.content)
        status = self.script.pop(0)
        if status is None:
            raise httpx.ReadError("broken", request=request)
        if status == 200:
            return httpx.Response(200, json={"accepted": 1, "duplicates": 0, "sequence": 1, "job_id": "x"})
        return httpx.Response(status, json={"error": {"code": "not_ready", "message": "m", "request_id": "r"}})

    def client(self, retries: int = 2) -> Client:
        transport = httpx.MockTransport(self)
        return Client("http://service", transport=transport, retries=retries, sleep=self.waits.append)

    async def asleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_an_interaction_is_sent_again_with_the_same_id_so_that_it_counts_once() -> None:
    flaky = Flaky(None, 503, 200)
    assert flaky.client().add_interactions({"user_id": "u", "item_id": "i"})["accepted"] == 1
    assert len(set(flaky.bodies)) == 1
    assert flaky.waits == pytest.approx([0.1, 0.2])


def test_the_asynchronous_client_sends_again_alike() -> None:
    flaky = Flaky(None, 503, 200)

    async def ask() -> models.Accepted:
        transport = httpx.MockTransport(flaky)
        async with AsyncClient("http://service", transport=transport, sleep=flaky.asleep) as client:
            return await client.add_interactions({"user_id": "u", "item_id": "i"})

    assert asyncio.run(ask())["accepted"] == 1
    assert len(set(flaky.bodies)) == 1
    assert flaky.waits == pytest.approx([0.1, 0.2])


def test_what_would_count_twice_is_not_sent_again() -> None:
    for script, error in (((None,), NoAnswerError), ((503,), UnavailableError)):
        flaky = Flaky(*script)
        with pytest.raises(error):
            flaky.client().retrain()
        assert flaky.script == []


def test_after_the_last_try_the_last_error_is_told() -> None:
    flaky = Flaky(503, 503, 503)
    with pytest.raises(UnavailableError):
        flaky.client().popular()
    assert len(flaky.waits) == 2
    flaky = Flaky(None)
    with pytest.raises(NoAnswerError, match="GET /popular: no answer"):
        flaky.client(retries=0).popular()


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "<html>log in</html>"},
        {"headers": {"Content-Encoding": "gzip"}, "content": b"no gzip"},
    ],
    ids=["a proxy's page", "damaged"],
)
def test_an_answer_that_can_not_be_read_is_told_at_once_and_is_the_client_s_error(answer: dict[str, Any]) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, **answer))

    async def asleep(seconds: float) -> None:
        raise AssertionError(seconds)

    with (
        Client("http://service", transport=transport, sleep=pytest.fail) as client,
        pytest.raises(UnreadableAnswerError),
    ):
        client.popular()
    with pytest.raises(UnreadableAnswerError) as told:
        asyncio.run(asked(AsyncClient("http://service", transport=transport, sleep=asleep), "popular"))
    assert isinstance(told.value, ClientError)


def test_a_key_that_can_not_be_sent_is_refused_when_either_client_is_made() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequestError) as told:
            kind("http://service", "hüsh")
        assert "hüsh" not in str(told.value)
