"""The console's files, read once, and what a browser is told to allow them."""

from __future__ import annotations

from importlib.resources import files

from service.assets import Asset, headers_with, read_folder

# Nothing but this service's own files, no inline code, no eval, no frame around it, and no text that becomes markup.
HEADERS = headers_with(
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)


def read_assets() -> dict[str, Asset]:
    """Every file of the console by its path below `static/`."""
    return dict(read_folder(files("service.console") / "static"))
