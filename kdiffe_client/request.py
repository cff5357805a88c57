"""A request and what its answer means: what the client and its asynchronous twin share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from kdiffe_client.errors import (
    ApiError,
    ClientError,
    InvalidRequestError,
    NoAnswerError,
    UnavailableError,
    UnreadableAnswerError,
)

DEFAULT_URL = "http://127.0.0.1:8000"
# Longest wait before a request is sent again, and the first one where the service did not say how long.
LONGEST_WAIT, FIRST_WAIT = 5.0, 0.1
# POST requests that may be sent twice: they change nothing.
ASKING = re.compile(r"/recommend|/explain/.*")
INTERACTIONS = "/interactions"


@dataclass(frozen=True)
class Request:
    """What is asked of the service.

    Attributes:
        method: of HTTP.
        path: with ids encoded.
        query: parameters; those that are None are left to the service.
        headers: those that are None are left away.
        body: JSON, None for no body.
        text: whether the answer is text instead of JSON.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: Any = None
    text: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether sent twice it has the effect of once."""
        if self.method != "POST" or ASKING.fullmatch(self.path):
            return True
        return self.path == INTERACTIONS and all(one.get("id") is not None for one in _interactions(self.body))

    def options(self) -> dict[str, Any]:
        """Arguments of httpx's `request`."""
        found: dict[str, Any] = {
            "method": self.method,
            "url": self.path,
            "params": {name: _plain(value) for name, value in self.query.items() if value is not None},
            "headers": {name: value for name, value in self.headers.items() if value is not None},
        }
        if self.body is not None:
            found["json"] = self.body
        return found


def segment(external_id: str) -> str:
    """An id as one segment of a path. Dots alone would be taken for a way up.

    Raises:
        InvalidRequestError: it holds half of a surrogate pair.
    """
    try:
        encoded = quote(external_id, safe="")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"The id {external_id!r} is no text: {error.reason}.") from None
    return encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded


def with_ids(body: Any) -> Any:
    """Interactions, each with an idempotency key of its own where it has none: sent again it counts once."""
    if "interactions" in body:
        return {**body, "interactions": [_with_id(one) for one in body["interactions"]]}
    return _with_id(body)


def settings(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of httpx's clients.

    Raises:
        InvalidRequestError: the key can't stand in a header, or the address is none of HTTP.
    """
    headers = {"Accept": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {_sendable(key)}"})
    # A slash at the end, so that a path below a proxy's prefix stays.
    return {"base_url": f"{_address(url).rstrip('/')}/", "headers": headers, "timeout": timeout}


def _address(url: str) -> str:
    """The service's address.

    Raises:
        InvalidRequestError: it is none of HTTP. What stands before an `@` may be a password and is not shown.
    """
    try:
        parsed = httpx.URL(url)
        is_http = parsed.scheme in ("http", "https") and parsed.host and (parsed.port or 0) < 2**16
    except (httpx.InvalidURL, TypeError, UnicodeError):
        is_http = False
    if not is_http:
        shown = repr(url) if "@" not in str(url) else "an address with an '@'"
        raise InvalidRequestError(f"{shown} is no address of a service: expected one such as {DEFAULT_URL}.")
    return url


def built(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """A request as httpx sends it, as often as need be.

    Raises:
        InvalidRequestError: it holds what can't be sent.
    """
    try:
        return http.build_request(**request.options())
    except (ValueError, TypeError, httpx.InvalidURL) as error:  # of UTF-8, ASCII and JSON, and a path that is too long
        raise InvalidRequestError(f"{request.method} {request.path}: it can't be sent ({error}).") from error


def answer_of(request: Request, response: httpx.Response) -> Any:
    """What a good answer holds.

    Raises:
        ApiError: it is an error.
        UnreadableAnswerError: it is none of the service's.
    """
    if response.is_success:
        if request.text:
            return response.text
        try:
            return response.json()
        except ValueError:
            said = f"{response.status_code}, but no JSON: {response.text[:200]!r}"
            raise UnreadableAnswerError(f"{request.method} {request.path}: the answer is {said}.") from None
    try:
        said = response.json()["error"]
        code, message, request_id = str(said["code"]), str(said["message"]), str(said["request_id"])
    except (ValueError, KeyError, TypeError):  # not the service's own: a proxy's
        code, message, request_id = "", response.text[:200] or response.reason_phrase, ""
    kind = UnavailableError if response.status_code in {429, 503} else ApiError
    raise kind(response.status_code, code, message, request_id, _retry_after(response))


def failure_of(request: Request, error: httpx.RequestError | UnavailableError) -> ClientError:
    """What a request's failure is told as."""
    if isinstance(error, UnavailableError):
        return error
    place = f"{request.method} {request.path}"
    if isinstance(error, httpx.LocalProtocolError):  # its text would show a header's value
        return InvalidRequestError(f"{place}: it can't be sent, a header holds what HTTP doesn't allow in one.")
    if isinstance(error, httpx.DecodingError):
        failure: ClientError = UnreadableAnswerError(f"{place}: the answer is damaged ({error}).")
    else:
        failure = NoAnswerError(f"{place}: no answer ({type(error).__name__}: {error}).")
    failure.__cause__ = error
    return failure


def may_repeat(request: Request, error: httpx.RequestError | UnavailableError) -> bool:
    """Whether a request may be sent again: what never reached the service may, whatever it was."""
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.DecodingError):
        return False  # the next one would end alike
    return request.repeatable or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def wait_before(attempt: int, failure: ClientError) -> float:
    """Seconds until a request is sent again.

    Args:
        attempt: how often it has been sent, 1 at least.
        failure: what has come of it.
    """
    said = failure.retry_after if isinstance(failure, UnavailableError) else None
    return min(FIRST_WAIT * 2.0 ** (attempt - 1) if said is None else said, LONGEST_WAIT)


def _sendable(key: str) -> str:
    """A key as it stands in a header, less the blanks around it: a file's last line ends."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise InvalidRequestError(
            "The API key (not shown) is empty or holds other characters than ASCII's printable ones: give it as it was "
            "issued, or None for none."
        )
    return key


def _interactions(body: Any) -> list[Mapping[str, Any]]:
    return list(body["interactions"]) if "interactions" in body else [body]


def _with_id(interaction: Mapping[str, Any]) -> dict[str, Any]:
    return dict(interaction) if interaction.get("id") is not None else {**interaction, "id": uuid4().hex}


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
