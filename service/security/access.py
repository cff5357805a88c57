"""Access: which scope a request needs, and whether it may pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

import structlog

from service.errors import ForbiddenError, UnauthorizedError
from service.security.api_key import SCOPES, ApiKey, Scope
from service.security.keyring import Keyring
from service.security.rates import RateLimiter, client_of
from service.settings import is_loopback

# Whoever watches over the process needs no key, and is never slowed down.
OPEN = frozenset({"/health/live", "/health/ready"})
# POST that changes nothing: its request does not fit into a path.
ASKING = frozenset({"/recommend"})
ASKING_BELOW = "/explain/"
# The console's files hold no data, and a browser shows no key when it goes to a page.
CONSOLE = "/console"
ADMIN = "/admin"
# Erasure can't be taken back.
ERASING = "/users/"
# What a proxy says of whom it asks for.
FORWARDING = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")
# Seconds between two reads of the keys because of one that is not known.
PATIENCE = 0.25

log = structlog.get_logger(__name__)


def needed_scope(method: str, path: str) -> Scope | None:
    """The scope that a request needs, None where it needs none. What is not known to be a read is a write.

    Args:
        method: of HTTP.
        path: percent-encoded, as the routes see it.
    """
    if path in OPEN or (method in {"GET", "HEAD"} and (path == CONSOLE or path.startswith(f"{CONSOLE}/"))):
        return None
    if path == ADMIN or path.startswith(f"{ADMIN}/") or (method == "DELETE" and path.startswith(ERASING)):
        return "admin"
    if method in {"GET", "HEAD", "OPTIONS"} or (method == "POST" and (path in ASKING or path.startswith(ASKING_BELOW))):
        return "read"
    return "write"


class Access:
    """Lets requests pass, or refuses them."""

    def __init__(self, keyring: Keyring, *, least_scope: Scope, rate: float, burst: float) -> None:
        """Guard.

        Args:
            keyring: the keys.
            least_scope: requests that need this scope or a higher one need a key.
            rate: requests a second of a key, or of an address where no key is shown; 0 for no limit.
            burst: seconds' worth of requests that may come at once.
        """
        self.keyring = keyring
        self._guarded = frozenset(SCOPES[SCOPES.index(least_scope) :])
        self._rate = rate
        self._limiter = RateLimiter(burst)
        self._load: Callable[[], Iterable[ApiKey]] | None = None
        self._loaded = 0.0
        self._loading = asyncio.Lock()

    async def begin(self, load: Callable[[], Iterable[ApiKey]]) -> None:
        """Read the keys for the first time.

        Args:
            load: reads them, in a thread.
        """
        self._load = load
        await self._read()

    async def follow(self, interval: float) -> None:
        """Read the keys again and again, until cancelled; what can't be read now may be later.

        Args:
            interval: seconds between two reads.
        """
        while True:
            await asyncio.sleep(interval)
            try:
                await self._read()
            except Exception:  # ended, it would let revoked keys pass for good
                log.exception("API keys can't be read again")

    async def admit(self, method: str, path: str, headers: Mapping[bytes, bytes], address: str) -> None:
        """Let a request pass.

        Args:
            method: of HTTP.
            path: percent-encoded.
            headers: lower-case names.
            address: the client's.

        Raises:
            UnauthorizedError: it needs a key and shows none, or shows one that is wrong or has expired.
            ForbiddenError: its key has not the scope; or there is no admin key, and the request names or comes from
                another host (so that no web page that this machine's browser opens can make it).
            RateLimitedError: too many requests.
        """
        scope = needed_scope(method, path)
        if scope is None:
            return
        text = bearer(headers)
        if text is None:
            if self._rate:
                self._limiter.take(f"address {client_of(address)}", self._rate)
            if scope == "admin" and not self.keyring.has_admin:
                _check_local(headers, address)
            elif scope in self._guarded:
                raise UnauthorizedError(f"This request needs a key of scope {scope}: send Authorization: Bearer KEY.")
            return
        key = await self._key(text, address)
        rate = self._rate if key.rate is None else key.rate
        if rate:
            self._limiter.take(f"key {key.key_id}", rate)
        if not key.may(scope):
            raise ForbiddenError(f"The key {key.name!r} has the scopes {', '.join(key.scopes)}; this needs {scope}.")

    async def _key(self, text: str, address: str) -> ApiKey:
        """The key of a text.

        Raises:
            UnauthorizedError: there is none.
            RateLimitedError: too many wrong ones from there.
        """
        if not self.keyring.knows(text):
            await self._read(PATIENCE)
        key = self.keyring.find(text)
        if key is None:
            if self._rate:
                self._limiter.take(f"address {client_of(address)}", self._rate)
            raise UnauthorizedError("The key is wrong, revoked or expired: ask for a new one (kdiffe keys).")
        return key

    async def _read(self, patience: float = 0.0) -> None:
        """Read the keys, `patience` seconds after they were last read at the earliest, for all who wait together."""
        asked = time.monotonic()
        async with self._loading:
            if self._load is None or (patience and self._loaded > asked):
                return
            if patience:
                await asyncio.sleep(self._loaded + patience - time.monotonic())
            self._loaded = time.monotonic()
            await asyncio.to_thread(self.keyring.take, self._load)


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that a request shows, None where it shows none."""
    scheme, _, text = headers.get(b"authorization", b"").decode("utf-8", "surrogateescape").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


def _check_local(headers: Mapping[bytes, bytes], address: str) -> None:
    """Refuse what does not come from this machine: by its own words, by its address, or since a proxy says for whom.

    Raises:
        ForbiddenError: it does not.
    """
    origin = headers.get(b"origin")
    hosts = [_host(b"//" + headers.get(b"host", b"")), *([] if origin is None else [_host(origin)])]
    is_forwarded = any(name in headers for name in FORWARDING)
    if is_forwarded or not all(is_loopback(host) for host in (*hosts, address)):
        raise ForbiddenError(
            "Without an admin key, admin requests must come from this machine, through no proxy: set KDIFFE_ADMIN_KEY, "
            "make a key (kdiffe keys add NAME --scope admin), or call http://127.0.0.1."
        )


def _host(url: bytes) -> str:
    try:
        return urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:
        return ""
