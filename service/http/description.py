"""OpenAPI's description, completed: what the layers around the routes ask for and answer."""

from __future__ import annotations

from typing import Any

from service.errors import STATUS, ErrorCode
from service.http.schemas import ErrorAnswer
from service.security.access import needed_scope

SCHEME = "key"
ERROR = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}}}
# FastAPI describes its own shape of an error where a route says nothing; ours is another one.
FOREIGN = ("HTTPValidationError", "ValidationError")

# Routes that take any query parameter; the others refuse one that they don't have.
LENIENT = ("/health/live", "/health/ready", "/metrics")


def complete(described: dict[str, Any]) -> dict[str, Any]:
    """Add to every operation the scope that it needs, and the errors that any request may meet."""
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in FOREIGN:
        schemas.pop(name, None)
    if ErrorAnswer.__name__ not in schemas:
        definition = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(definition.pop("$defs", {}))
        schemas[ErrorAnswer.__name__] = definition
    components["securitySchemes"] = {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "A key of `kdiffe keys add`, or KDIFFE_ADMIN_KEY. By default admin requests need one.",
        }
    }
    for path, operations in described.get("paths", {}).items():
        for method, operation in operations.items():
            _complete(method.upper(), path, operation)
    return described


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    responses = operation.setdefault("responses", {})
    codes = [ErrorCode.NOT_READY] if method != "GET" else []
    scope = needed_scope(method, path)
    if scope is not None:
        operation["security"] = [{SCHEME: [scope]}] if scope == "admin" else [{}, {SCHEME: [scope]}]
        operation["x-scope"] = scope
        codes += [ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED]
    if path not in LENIENT:
        codes.append(ErrorCode.INVALID_REQUEST)
    if "requestBody" in operation:
        codes.append(ErrorCode.REQUEST_TOO_LARGE)
    for code in codes:
        response = responses.setdefault(str(STATUS[code]), {"description": ""})
        said = [part for part in response["description"].split(", ") if part and part != "Validation Error"]
        response["description"] = ", ".join(dict.fromkeys([*said, str(code)]))
    for status, response in responses.items():
        if status >= "400":
            response["content"] = ERROR
