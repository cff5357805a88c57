from __future__ import annotations

import httpx
import pytest

from kdiffe_client.errors import (
    ApiError,
    ClientError,
    InvalidRequestError,
    NoAnswerError,
    UnavailableError,
    UnreadableAnswerError,
)
from kdiffe_client.request import Request, answer_of, built, failure_of, segment, settings, wait_before, with_ids


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
        assert wait_before(attempt, NoAnswerError()) == pytest.approx(seconds)


def test_half_of_a_surrogate_pair_is_no_id():
    with pytest.raises(InvalidRequestError, match=r"The id 'u\\udc80' is no text"):
        segment("u\udc80")


@pytest.mark.parametrize(
    "request_",
    [
        Request("POST", "/x", body={"user_id": "\udc80"}),
        Request("POST", "/x", body={"timestamp": float("nan")}),
        Request("POST", "/x", body={"user_id": object()}),
        Request("GET", "/x", query={"item_id": "\udc80"}),
        Request("PUT", "/x", headers={"Idempotency-Key": "ü"}),
        Request("GET", f"/{'x' * 70_000}"),
    ],
    ids=["body's text", "body's number", "body's object", "query", "header", "long"],
)
def test_what_can_not_be_sent_is_told_as_that(request_):
    with httpx.Client(**settings("http://service", None, 1.0)) as http, pytest.raises(InvalidRequestError) as told:
        built(http, request_)
    assert str(told.value).startswith(f"{request_.method} {request_.path}: it can't be sent (")


@pytest.mark.parametrize("around", ["", "\n", "\r\n", " ", "\t"])
def test_blanks_around_a_key_are_left_away(around):
    headers = settings("http://service", f"{around}two words{around}", 1.0)["headers"]
    assert headers["Authorization"] == "Bearer two words"


@pytest.mark.parametrize("key", ["", "\n", "hush\nhush", "hush\0", "hush\x7f", "hushü", "hush\udc80"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key):
    with pytest.raises(InvalidRequestError, match="API key") as told:
        settings("http://service", key, 1.0)
    assert "hush" not in str(told.value)
    assert told.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "http://", "ftp://x", "http://[::1", "http://x:port", "http://x:70000", "http://a\nb", None],
)
def test_an_address_that_is_none_of_http_is_refused_by_name(url):
    with pytest.raises(InvalidRequestError, match=r"expected one such as http://127\.0\.0\.1:8000") as told:
        settings(url, None, 1.0)
    assert repr(url) in str(told.value)


def test_a_password_in_a_wrong_address_is_not_shown():
    with pytest.raises(InvalidRequestError, match="an address with an '@'") as told:
        settings("http://me:hush@x:port", None, 1.0)
    assert "hush" not in str(told.value)
    assert told.value.__context__ is None


@pytest.mark.parametrize("content", [b"<html>log in</html>", b"", b'"\xff"'])
def test_a_good_answer_that_is_no_json_is_not_the_service_s(content):
    with pytest.raises(UnreadableAnswerError, match="GET /x: the answer is 200, but no JSON") as told:
        answer_of(Request("GET", "/x"), httpx.Response(200, content=content))
    assert repr(content.decode(errors="replace")) in str(told.value)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ReadTimeout("late"), NoAnswerError, "no answer (ReadTimeout: late)"),
        (httpx.DecodingError("no gzip"), UnreadableAnswerError, "the answer is damaged (no gzip)"),
        (UnavailableError(503, "", "busy"), UnavailableError, "busy (503"),
    ],
)
def test_a_failure_is_one_of_the_client_s(error, kind, words):
    told = failure_of(Request("GET", "/x"), error)
    assert isinstance(told, ClientError)
    assert type(told) is kind
    assert words in str(told)


def test_what_http_refuses_to_send_is_told_without_the_refusal_that_shows_it():
    told = failure_of(Request("GET", "/x"), httpx.LocalProtocolError("Illegal header value b'Bearer hush'"))
    assert isinstance(told, InvalidRequestError)
    assert "hush" not in str(told)
    assert told.__cause__ is None
