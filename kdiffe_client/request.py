"""A request and what its answer means: what the client and its asynchronous twin share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from kdiffe_client.errors import ApiError, UnavailableError

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
    """An id as one segment of a path. Dots alone would be taken for a way up."""
    encoded = quote(external_id, safe="")
    return encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded


def with_ids(body: Any) -> Any:
    """Interactions, each with an idempotency key of its own where it has none: sent again it counts once."""
    if "interactions" in body:
        return {**body, "interactions": [_with_id(one) for one in body["interactions"]]}
    return _with_id(body)


def settings(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of httpx's clients."""
    headers = {"Accept": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
    # A slash at the end, so that a path below a proxy's prefix stays.
    return {"base_url": f"{url.rstrip('/')}/", "headers": headers, "timeout": timeout}


def answer_of(request: Request, response: httpx.Response) -> Any:
    """What a good answer holds.

    Raises:
        ApiError: it is an error.
    """
    if response.is_success:
        return response.text if request.text else response.json()
    try:
        said = response.json()["error"]
        code, message, request_id = str(said["code"]), str(said["message"]), str(said["request_id"])
    except (ValueError, KeyError, TypeError):  # not the service's own: a proxy's
        code, message, request_id = "", response.text[:200] or response.reason_phrase, ""
    kind = UnavailableError if response.status_code in {429, 503} else ApiError
    raise kind(response.status_code, code, message, request_id, _retry_after(response))


def wait_before(attempt: int, error: UnavailableError | None) -> float:
    """Seconds until a request is sent again.

    Args:
        attempt: how often it has been sent, 1 at least.
        error: what was answered, None where nothing was.
    """
    said = None if error is None else error.retry_after
    return min(FIRST_WAIT * 2.0 ** (attempt - 1) if said is None else said, LONGEST_WAIT)


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
