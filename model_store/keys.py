"""A node's key: a 64-bit hash of its kind and its external id (model.md, D3).

Neighbor lists are ordered by key and random walks are seeded by key, so nothing that is computed from them depends on
row numbers or on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["user", "item"]
NodeKeys = NDArray[np.uint64]


def node_key(kind: Kind, external_id: str) -> int:
    """The key of one node: BLAKE2b with an 8-byte digest, personalised by the kind, little-endian."""
    digest = blake2b(external_id.encode(), digest_size=8, person=kind.encode()).digest()
    return int.from_bytes(digest, "little")


def node_keys(kind: Kind, external_ids: Iterable[str]) -> NodeKeys:
    """(n,) keys of many nodes of one kind."""
    return np.fromiter((node_key(kind, str(external_id)) for external_id in external_ids), np.uint64)
