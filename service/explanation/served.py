"""The id of a reply: the moment that it was made of, so that it can be explained later (docs/decisions/0016)."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from service.errors import InvalidRequestError
from service.live.model import LiveModel
from service.live.readout import Readout, UserView

_FORM = re.compile(r"([A-Za-z0-9_-]{1,64})\.(\d{1,18})\.(\d{1,18})\.([0-9a-f]{8})")


@dataclass(frozen=True)
class Served:
    """What an id carries.

    Attributes:
        version: the version that served.
        sequence: the last interaction of the log that the user's row held.
        refreshed_at: the last interaction of the log that T and the item vectors held.
        mark: CRC-32 of the items' vectors, the user's id and the user's vector: what is rebuilt is compared with it.
    """

    version: str
    sequence: int
    refreshed_at: int
    mark: str

    @classmethod
    def parse(cls, text: str) -> Served:
        """What an id carries.

        Raises:
            InvalidRequestError: it is no such id.
        """
        found = _FORM.fullmatch(text)
        if found is None or int(found[3]) > int(found[2]):
            raise InvalidRequestError(f"recommendation_id={text[:80]!r} is none that a reply carried.")
        return cls(found[1], int(found[2]), int(found[3]), found[4])


def recommendation_id(model: LiveModel, user_id: str, view: UserView | None, readout: Readout, sequence: int) -> str:
    """The id of a reply to a user, who is unknown where there is no view. Costs about a microsecond."""
    mark = zlib.crc32(user_id.encode(), readout.mark)
    if view is not None:
        mark = zlib.crc32(view.vector.data, mark)
    return f"{model.version}.{sequence}.{readout.refreshed_at}.{mark:08x}"
