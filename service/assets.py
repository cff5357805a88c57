"""Files that a browser loads, read once, and what the browser is told to allow them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".LICENSE": "text/plain; charset=utf-8",
}
# For every policy: nothing that it does not name, and no page of another origin around it, behind it or fed by it.
CLOSED = ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")


@dataclass(frozen=True)
class Asset:
    """A file.

    Attributes:
        content: its bytes.
        media_type: what it is.
        etag: names its content.
    """

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Asset:
        """A file by its name and its bytes.

        Raises:
            KeyError: nobody knows what a file of such a name is.
        """
        return cls(content, MEDIA_TYPES[_suffix(name)], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def read_folder(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Asset]]:
    """Every file below a folder that a browser can use, by its path from there."""
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from read_folder(entry, f"{name}/")
        elif _suffix(entry.name) in MEDIA_TYPES:
            yield name, Asset.of(entry.name, entry.read_bytes())


def headers_with(*allowed: str) -> Mapping[str, str]:
    """What a browser is told about a page and its files.

    Args:
        allowed: what the Content-Security-Policy lets them do.
    """
    return {
        "Content-Security-Policy": "; ".join((CLOSED[0], *allowed, *CLOSED[1:])),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        # Asked for again, answered 304 while it is the same: after an update no old file runs beside a new one.
        "Cache-Control": "no-cache",
    }


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2]}"
