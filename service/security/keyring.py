"""The keyring: the keys that a serving process knows, read anew while it serves."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from service.errors import StateError
from service.security.api_key import ApiKey, digest_of, split_key

# The key of KDIFFE_ADMIN_KEY, which no state keeps.
BOOTSTRAP = "settings"

log = structlog.get_logger(__name__)


class Keyring:
    """Finds the key that a request shows. A revoked key is known for `interval` at most, a new one at once."""

    def __init__(self, admin_key: str | None = None, clock: Callable[[], float] = time.time) -> None:
        """Know the key of the settings.

        Args:
            admin_key: it, None where there is none.
            clock: seconds since 1970.
        """
        self._clock = clock
        self._keys: Mapping[str, ApiKey] = {}
        self._bootstrap: ApiKey | None = None
        if admin_key is not None:
            self._bootstrap = ApiKey(BOOTSTRAP, BOOTSTRAP, digest_of(admin_key), ("admin",), 0.0)

    def take(self, load: Callable[[], Iterable[ApiKey]]) -> bool:
        """Read the keys. Whether that went well: a state that does not answer leaves those that are known."""
        try:
            self._keys = {key.key_id: key for key in load()}
        except StateError as error:
            log.warning("API keys can't be read: those that are known stay", error=str(error))
            return False
        return True

    @property
    def has_admin(self) -> bool:
        """Whether any key may do what an administrator does, one that has expired too: that opens nothing."""
        return self._bootstrap is not None or any("admin" in key.scopes for key in self._keys.values())

    def knows(self, text: str) -> bool:
        """Whether a key of this id is known: one that is not may have been made a moment ago."""
        parts = split_key(text)
        return parts is None or parts[0] in self._keys

    def find(self, text: str) -> ApiKey | None:
        """The living key of a text, None where there is none."""
        bootstrap = self._bootstrap
        if bootstrap is not None and hmac.compare_digest(digest_of(text), bootstrap.digest):
            return bootstrap
        parts = split_key(text)
        if parts is None:
            return None
        key = self._keys.get(parts[0])
        if key is None or not key.fits(parts[1]) or not key.lives(self._clock()):
            return None
        return key
