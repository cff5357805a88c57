"""The console's page and files. They hold no data: what the page shows it asks for with the reader's key."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from service.assets import Asset
from service.console.assets import HEADERS, read_assets
from service.errors import UnknownRouteError
from service.http.answers import file_answer

router = APIRouter(prefix="/console", include_in_schema=False)


@cache
def _assets() -> dict[str, Asset]:
    return read_assets()


@router.get("")
async def console() -> Response:
    """Addresses inside of the page are relative to its folder. Relative here, too: a proxy may have put a prefix on."""
    return RedirectResponse("console/", 308)


@router.get("/{path:path}")
async def file(request: Request, path: str) -> Response:
    """A file, the page itself where none is named."""
    asset = _assets().get(path or "index.html")
    if asset is None:
        raise UnknownRouteError(f"The console has no file {path!r}.")
    return file_answer(request, asset, HEADERS)
