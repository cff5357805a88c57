"""Answers: JSON by orjson, and the one shape of every error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Send

from model_store.errors import KDiffEError, StoreBusyError
from service.assets import Asset
from service.errors import STATUS, ErrorCode, ServiceError
from service.http.schemas import ErrorAnswer

log = structlog.get_logger(__name__)

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
# Characters of a wrong value that an error shows.
LONGEST_SHOWN = 60
# What Starlette raises by itself.
CODE_OF_STATUS = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED, 413: ErrorCode.REQUEST_TOO_LARGE}


def json_answer(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def with_variant(body: bytes, variant: str) -> bytes:
    """A JSON object's text with one more field; a list that is kept as bytes is every variant's of one version."""
    return b'%b,"variant":"%b"}' % (body[:-1], variant.encode())


def file_answer(request: Request, asset: Asset, headers: Mapping[str, str]) -> Response:
    """A file; its name alone where the browser has it already."""
    told = {**headers, "ETag": asset.etag}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=told)
    return Response(asset.content, headers=told, media_type=asset.media_type)


async def send_json(send: Send, body: bytes, status: int = 200) -> None:
    """Answer with JSON text, without a response class in between."""
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_answer(code: ErrorCode, message: str, request_id: str) -> Response:
    """The one shape of every error."""
    answer = json_answer({"error": {"code": code, "message": message, "request_id": request_id}}, STATUS[code])
    if STATUS[code] == 503:
        answer.headers["Retry-After"] = "1"
    if code is ErrorCode.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def answer_of(error: KDiffEError, request_id: str) -> Response:
    """The answer of an error of the tree."""
    code = ErrorCode.NOT_READY if isinstance(error, StoreBusyError) else ErrorCode.INTERNAL_ERROR
    if isinstance(error, ServiceError):
        code = error.code
    if STATUS[code] >= 500:
        log.warning("request failed", code=code, error=str(error), request_id=request_id)
    answer = error_answer(code, str(error), request_id)
    if isinstance(error, ServiceError) and error.retry_after is not None:
        answer.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return answer


def errors_of(*codes: ErrorCode) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of a route's errors."""
    described: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        entry = described.setdefault(STATUS[code], {"model": ErrorAnswer, "description": ""})
        entry["description"] = f"{entry['description']}, {code}".removeprefix(", ")
    return described


def methods_of(request: Request) -> list[str]:
    """The methods that a request's path answers; each route knows its own alone."""

    def answers(method: str) -> bool:
        scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in METHODS if answers(method)]


def describe(errors: Sequence[Any]) -> str:
    """Validation errors in one line; each names the value that is wrong, where it is short."""
    parts = []
    for error in errors[:3]:
        where = ".".join(str(part) for part in error["loc"] if part not in {"query", "path", "body"})
        parts.append(f"{where or 'body'}{_shown(error)}: {error['msg'].removeprefix('Value error, ')}")
    if len(errors) > 3:
        parts.append(f"and {len(errors) - 3} more")
    return "; ".join(parts)


def _shown(error: Mapping[str, Any]) -> str:
    value = error.get("input")
    if error["type"] in {"missing", "extra_forbidden"} or not isinstance(value, str | int | float):
        return ""
    text = repr(value)
    return f"={text}" if len(text) <= LONGEST_SHOWN else f"={text[:LONGEST_SHOWN]}…"


def add_error_handlers(app: FastAPI) -> None:
    """Give every error its shape."""

    async def service_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, KDiffEError)  # noqa: S101 (registered for this type)
        return answer_of(error, request.state.request_id)

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for this type)
        return error_answer(ErrorCode.INVALID_REQUEST, describe(error.errors()), request.state.request_id)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 (registered for this type)
        code = CODE_OF_STATUS.get(error.status_code, ErrorCode.INVALID_REQUEST)
        message = f"{error.detail}: {request.method} {request.url.path}. See /docs."
        answer = error_answer(code, message, request.state.request_id)
        answer.headers.update(error.headers or {})
        if code is ErrorCode.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = ", ".join(methods_of(request))
        return answer

    app.add_exception_handler(KDiffEError, service_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
