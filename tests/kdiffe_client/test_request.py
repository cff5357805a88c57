from __future__ import annotations

import httpx
import pytest

from kdiffe_client.errors import ApiError, UnavailableError
from kdiffe_client.request import Request, answer_of, segment, wait_before, with_ids


@pytest.mark.parametrize(
    ("external_id", "encoded"),
    [("u7", "u7"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), ("a.b", "a.b"), ("ü &?#", "%C3%BC%20%26%3F%23")],
)
def test_an_id_is_one_segment(external_id, encoded):
    assert segment(external_id) == encoded


@pytest.mark.parametrize(
    ("method", "path", "body", "repeatable"),
    [
        ("GET", "/popular", None, True),
        ("PUT", "/items/i1", {}, True),
        ("DELETE", "/users/u1", None, True),
        ("POST", "/recommend", {}, True),
        ("POST", "/explain/u/i", {}, True),
        ("POST", "/admin/retrain", None, False),
        ("POST", "/interactions", {"user_id": "u", "item_id": "i"}, False),
        ("POST", "/interactions", {"user_id": "u", "item_id": "i", "id": "1"}, True),
        ("POST", "/interactions", {"interactions": [{"id": "1"}, {}]}, False),
        ("POST", "/interactions", {"user_id": "u", "item_id": "i", "id": None}, False),
    ],
)
def test_a_request_may_be_repeated_where_twice_is_once(method, path, body, repeatable):
    assert Request(method, path, body=body).repeatable is repeatable


def test_interactions_get_ids_of_their_own_and_keep_the_ones_they_have():
    given = {"interactions": [{"user_id": "u", "item_id": "i"}, {"user_id": "u", "item_id": "j", "id": "mine"}]}
    made = with_ids(given)["interactions"]
    assert made[1] == given["interactions"][1]
    assert {**made[0], "id": ""} == {"user_id": "u", "item_id": "i", "id": ""}
    assert made[0]["id"] != with_ids(given)["interactions"][0]["id"]
    assert "id" not in given["interactions"][0]
    assert with_ids({"user_id": "u", "item_id": "i"})["id"]
    assert with_ids({"user_id": "u", "item_id": "i", "id": None})["id"]


def test_an_error_is_what_the_service_says():
    body = {"error": {"code": "unknown_user", "message": "Unknown user 'x'.", "request_id": "r1"}}
    with pytest.raises(ApiError, match="Unknown user 'x'") as told:
        answer_of(Request("GET", "/x"), httpx.Response(404, json=body))
    assert (told.value.status, told.value.code, told.value.request_id) == (404, "unknown_user", "r1")
    assert told.value.retry_after is None


def test_an_error_of_a_proxy_s_is_told_as_it_came():
    with pytest.raises(UnavailableError, match="upstream is away") as told:
        answer_of(Request("GET", "/x"), httpx.Response(503, text="upstream is away", headers={"Retry-After": "3"}))
    assert (told.value.code, told.value.retry_after) == ("", 3.0)


@pytest.mark.parametrize(
    ("attempt", "said", "seconds"), [(1, None, 0.1), (3, None, 0.4), (1, 2.0, 2.0), (1, 60.0, 5.0), (20, None, 5.0)]
)
def test_a_wait_is_what_was_said_and_bounded(attempt, said, seconds):
    assert wait_before(attempt, UnavailableError(503, "", "", "", said)) == pytest.approx(seconds)
    if said is None:
        assert wait_before(attempt, None) == pytest.approx(seconds)
