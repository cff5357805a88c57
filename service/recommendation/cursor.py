"""Cursors: where a list goes on. Nothing is kept for them: a cursor names the list by what it follows from.

A list is a pure function of the version, T and the items' vectors, the user's row, the filters and (for popular items)
the counts. The cursor holds a digest of these; the next page makes the list again, in whichever process, and goes on
where the same digest comes out. Otherwise the list is another one by now and the cursor is gone.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import GoneError, InvalidRequestError

# Bytes of a digest: enough that two lists don't meet by chance.
DIGEST = 12


@dataclass(frozen=True)
class Cursor:
    """A place in a list.

    Attributes:
        version: the version that made it.
        sequence: the log's sequence number at which it was made.
        offset: items before the place.
        asked: digest of the request, the number of items on a page aside.
        state: digest of what the list follows from.
    """

    version: str
    sequence: int
    offset: int
    asked: str
    state: str

    def encode(self) -> str:
        """The cursor as clients see it."""
        raw = orjson.dumps([self.version, self.sequence, self.offset, self.asked, self.state])
        return urlsafe_b64encode(raw).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """A cursor from what a client sent.

        Raises:
            InvalidRequestError: it is none of ours.
        """
        try:
            version, sequence, offset, asked, state = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except ValueError:
            raise _not_ours() from None
        except TypeError:
            raise _not_ours() from None
        texts, numbers = (version, asked, state), (sequence, offset)
        if not all(isinstance(t, str) for t in texts) or not all(type(n) is int and 0 <= n < 2**53 for n in numbers):
            raise _not_ours()
        return cls(version, sequence, offset, asked, state)

    def check(self, version: str, sequence: int, asked: str, state: str) -> None:
        """Refuse to go on with another list.

        Raises:
            InvalidRequestError: the request is another one.
            GoneError: the list is.
        """
        if asked != self.asked:
            raise InvalidRequestError(
                "cursor: belongs to another request. Send it with the same user or session, filters, boosts, diversity "
                "and min_score; k may differ."
            )
        if (version, state) != (self.version, self.state):
            raise GoneError(
                f"The list that the cursor goes on with is gone: version {self.version} made it at sequence "
                f"{self.sequence}; it is another one with version {version} at sequence {sequence}. Begin again "
                "without a cursor."
            )


def digest_of(parts: Iterable[bytes | str | int | NDArray[np.generic] | None]) -> str:
    """A digest of some values and arrays, each with its length."""
    named = blake2b(digest_size=DIGEST)
    for part in parts:
        if isinstance(part, np.ndarray):
            content = np.ascontiguousarray(part).tobytes()
        else:
            content = part if isinstance(part, bytes) else repr(part).encode()
        named.update(len(content).to_bytes(8, "little"))
        named.update(content)
    return named.hexdigest()


def _not_ours() -> InvalidRequestError:
    return InvalidRequestError("cursor: is none that this service gave out. Begin again without a cursor.")
