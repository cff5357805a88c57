"""`/docs`: the description of this API as a page. Swagger UI's files come from a package, none from another host."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.assets import Asset, headers_with
from service.errors import UnknownRouteError
from service.http.answers import file_answer

router = APIRouter(prefix="/docs", include_in_schema=False)

# The package that ships them, and those that the page loads.
PACKAGE = "fastapi_swagger.resources"
SHIPPED = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
# Addresses are relative, since a proxy may have put a prefix on.
PAGE = b"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>KDiffE: the API</title>
    <link rel="icon" href="docs/favicon-32x32.png" type="image/png">
    <link rel="stylesheet" href="docs/swagger-ui.css">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
"""
# No validator: it is another host's. A key that is entered is forgotten with the page.
START = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  showExtensions: true,
  validatorUrl: null,
  persistAuthorization: false,
});
"""
# The style sheet's pictures are data: URLs.
HEADERS = headers_with(
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
)


@cache
def _assets() -> dict[str, Asset]:
    shipped = files(PACKAGE)
    contents = {"": PAGE, "start.js": START, **{name: (shipped / name).read_bytes() for name in SHIPPED}}
    return {name: Asset.of(name or "index.html", content) for name, content in contents.items()}


@router.get("")
async def page(request: Request) -> Response:
    """The page."""
    return file_answer(request, _assets()[""], HEADERS)


@router.get("/{name}")
async def file(request: Request, name: str) -> Response:
    """A file of the page."""
    asset = _assets().get(name)
    if asset is None:
        raise UnknownRouteError(f"/docs has no file {name!r}.")
    return file_answer(request, asset, HEADERS)
