"""Bodies that are read by hand, stricter than FastAPI: JSON as RFC 8259 has it, validated without coercion."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequestError
from service.http.answers import describe

Body = TypeVar("Body", bound=BaseModel)


def body_of(schema: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's description of a body that FastAPI does not know."""
    described = schema.model_json_schema(ref_template="#/components/schemas/{model}")
    described.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": described}}}}


def parse_json(body: bytes) -> Any:
    """JSON.

    Raises:
        InvalidRequestError: it is not (NaN, halves of surrogate pairs and numbers without bounds aren't, either).
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"The body is not JSON: {error}.") from None


def checked(schema: type[Body], raw: object) -> Body:
    """A body as the schema has it.

    Raises:
        InvalidRequestError: it is another one.
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        raise InvalidRequestError(describe(error.errors(include_url=False))) from None


async def read_json(request: Request, schema: type[Body]) -> Body:
    """A request's body.

    Raises:
        InvalidRequestError: it is not what the schema says.
    """
    return checked(schema, parse_json(await request.body()))
