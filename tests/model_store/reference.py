"""The walk, S and L̄ a second time, in plain Python and from docs/attention.md alone. Slow and obvious on purpose.

Nodes are `(kind, external id)` pairs here: there are no rows, so nothing can depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

Node = tuple[str, str]
Pair = tuple[str, str]  # user id, item id

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


# ---- keys ------------------------------------------------------------------------------------------------------------

# RFC 7693: the initial vector (fractional parts of the square roots of the first eight primes, computed below rather
# than copied) and the message schedule (section 2.7).
SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
IV = tuple(math.isqrt(prime << 128) % WORD for prime in (2, 3, 5, 7, 11, 13, 17, 19))


def blake2b(message: bytes, digest_size: int, person: bytes) -> bytes:
    """BLAKE2b without key and salt (RFC 7693), the personalisation in bytes 48..63 of the parameter block."""
    parameters = bytes([digest_size, 0, 1, 1]).ljust(48, b"\0") + person.ljust(16, b"\0")
    state = [IV[i] ^ int.from_bytes(parameters[8 * i : 8 * i + 8], "little") for i in range(8)]
    blocks = [message[begin : begin + 128] for begin in range(0, len(message), 128)] or [b""]
    done = 0
    for block in blocks:
        done += len(block)
        last = block is blocks[-1]
        m = [int.from_bytes(block.ljust(128, b"\0")[8 * i : 8 * i + 8], "little") for i in range(16)]
        v = [*state, *IV]
        v[12] ^= done
        v[14] ^= WORD - 1 if last else 0
        for turn in range(12):
            order = SIGMA[turn % 10]
            for i, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
                for word, first, second in ((m[order[2 * i]], 32, 24), (m[order[2 * i + 1]], 16, 63)):
                    v[a] = (v[a] + v[b] + word) % WORD
                    v[d] = _turned(v[d] ^ v[a], first)
                    v[c] = (v[c] + v[d]) % WORD
                    v[b] = _turned(v[b] ^ v[c], second)
        state = [state[i] ^ v[i] ^ v[i + 8] for i in range(8)]
    return b"".join(word.to_bytes(8, "little") for word in state)[:digest_size]


def _turned(word: int, by: int) -> int:
    return ((word >> by) | (word << (64 - by))) % WORD


def key(node: Node) -> int:
    kind, external_id = node
    return int.from_bytes(blake2b(external_id.encode("utf-8"), 8, kind.encode("ascii")), "little")


# ---- graph -----------------------------------------------------------------------------------------------------------


def neighbor_lists(pairs: Iterable[Pair], keys: Mapping[Node, int]) -> dict[Node, list[Node]]:
    """Each node of `keys` → its neighbors, in ascending order of their keys."""
    lists: dict[Node, set[Node]] = {node: set() for node in keys}
    for user_id, item_id in pairs:
        lists["user", user_id].add(("item", item_id))
        lists["item", item_id].add(("user", user_id))
    return {node: sorted(neighbors, key=keys.__getitem__) for node, neighbors in lists.items()}


# ---- walks -----------------------------------------------------------------------------------------------------------


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def stream(node_key: int, seed: int, w: int) -> int:
    return mix(node_key ^ mix((seed + (w + 1) * GOLDEN) % WORD))


def walk(
    start: Node, w: int, lists: Mapping[Node, list[Node]], keys: Mapping[Node, int], steps: int, c: float, seed: int
) -> list[Node]:
    """The nodes where walk `w` from `start` stands after steps 1, 2, ..."""
    threshold = math.floor(c * 2.0**32)
    here, stood = start, []
    for s in range(1, steps + 1):
        number = mix((stream(keys[start], seed, w) + s * GOLDEN) % WORD)
        neighbors = lists[here]
        moved = neighbors[((number & 0xFFFFFFFF) * len(neighbors)) >> 32]
        here = start if number >> 32 < threshold else moved
        stood.append(here)
    return stood


def visited_set(
    start: Node,
    lists: Mapping[Node, list[Node]],
    keys: Mapping[Node, int],
    n_walks: int,
    walk_length: int,
    c: float,
    seed: int,
) -> set[Node]:
    visited = {start}
    if lists[start]:
        for w in range(n_walks):
            visited.update(walk(start, w, lists, keys, walk_length, c, seed))
    return visited


# ---- S and L̄ ---------------------------------------------------------------------------------------------------------


def similarity(a: set[Node], b: set[Node]) -> np.float32:
    return np.float32(len(a & b) / len(a | b))


def laplacian(similarity: np.float32, similarity_weight: float, d_a: int, d_b: int, self_loops: bool) -> np.float32:
    o = int(self_loops)
    return np.float32((1 + similarity_weight * float(similarity)) / math.sqrt(float((d_a + o) * (d_b + o))))
