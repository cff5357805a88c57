"""What a live model reads from: T, the items' vectors and the index, whole at each refresh, and a user at a moment."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.attention import Mark
from model_store.contributions import Contributions
from model_store.retrieval import longest_norm
from model_store.serving_form import ServingForm
from model_store.trials import Trials
from service.index import IndexBuilder
from service.index.layered import with_rows
from service.index.port import VectorIndex, Vectors


@dataclass(frozen=True)
class Readout:
    """What one refresh made, and the vectors of items that came or changed since; swapped whole.

    Attributes:
        neighbor_embeddings: T, (N, width).
        item_embeddings: (J, width) Z of the items.
        index: the index over `item_embeddings`.
        longest: the largest |Z_v|, which bounds the index's rounding.
        refreshed_at: sequence number of the log at which T and `refreshed` were computed.
        refreshed: (J_0, width) Z as the refresh made it.
        refreshed_index: the index over it.
        form: the serving form, with the items that came after training.
        adjacency: the graph with S that T was computed from, which explanations follow.
        mark: CRC-32 of `refreshed`, for the ids of replies.
        later: X of the items that came after training, by row, as the refresh had it.
        laid: the same, as `item_embeddings` has it.
        refreshed_absent: (J_0,) `absent` as the refresh made it.
        absent: (J,) items without a vector, None where all have one: their rows are zero and B reaches none of them.
        room: what `item_embeddings` is the beginning of, where more may be appended.
    """

    neighbor_embeddings: Vectors
    item_embeddings: Vectors
    index: VectorIndex
    longest: float
    refreshed_at: int
    refreshed: Vectors
    refreshed_index: VectorIndex
    form: ServingForm
    adjacency: Adjacency
    mark: int
    later: Mapping[int, Vectors]
    laid: Mapping[int, Vectors]
    refreshed_absent: NDArray[np.bool_] | None
    absent: NDArray[np.bool_] | None
    room: Vectors | None = None

    @classmethod
    def of(
        cls,
        neighbor_embeddings: Vectors,
        item_embeddings: Vectors,
        build_index: IndexBuilder,
        refreshed_at: int,
        form: ServingForm,
        adjacency: Adjacency,
        later: Mapping[int, Vectors],
        reached: NDArray[np.bool_],
    ) -> Readout:
        """A refresh's readout with its index; `reached` (of the trained items) says to which B adds something."""
        index = build_index(item_embeddings)
        longest = longest_norm(item_embeddings)
        absent: NDArray[np.bool_] = np.logical_not(np.any(item_embeddings, axis=1))
        absent[: len(reached)] &= ~reached
        without_vector = absent if absent.any() else None
        return cls(
            neighbor_embeddings,
            item_embeddings,
            index,
            longest,
            refreshed_at,
            item_embeddings,
            index,
            form,
            adjacency,
            zlib.crc32(np.ascontiguousarray(item_embeddings).data),
            later,
            later,
            without_vector,
            without_vector,
        )

    @property
    def n_items(self) -> int:
        """J: an item beyond has no vector yet."""
        return len(self.item_embeddings)

    def has_vector(self, item_row: int) -> bool:
        """Whether an item has a vector: the model scores it, and ranks it by that score."""
        return item_row < self.n_items and (self.absent is None or not self.absent[item_row])

    def bare(self) -> Readout:
        """What the refresh made, without later items."""
        return replace(
            self,
            item_embeddings=self.refreshed,
            index=self.refreshed_index,
            laid=self.later,
            room=None,
            absent=self.refreshed_absent,
        )

    def with_items(self, later: Mapping[int, Vectors], rows: Sequence[int], alpha: Vectors) -> Readout:
        """The same with vectors of some items whose X came, changed or went; what was read before stays as it was.

        Z = α_0 X, and what the refresh gave beside α_0 X: the parts of the neighbors.

        Args:
            later: X of the items that came after training, by row.
            rows: whose X differs from `laid`, ascending, none of the trained items; rows between the last known one and
                these are items without a vector.
            alpha: (width,) α_0.
        """
        n_before, n_refreshed = self.n_items, len(self.refreshed)
        n = max(n_before, rows[-1] + 1)
        room = self.room if rows[0] >= n_before else None
        if room is None or len(room) < n:
            room = np.zeros((n + n // 8 + 64, self.refreshed.shape[1]), np.float32)
            room[:n_before] = self.item_embeddings
        absent = np.zeros(n, np.bool_)
        absent[n_before:] = True
        if self.absent is not None:
            absent[:n_before] = self.absent
        for row in rows:  # beyond every view that was handed out, or in a room of their own
            vector = alpha * later[row] if row in later else np.zeros_like(alpha)
            if row < n_refreshed:
                vector = vector + self.refreshed[row]
                if row in self.later:
                    vector = vector - alpha * self.later[row]
            room[row] = vector
            absent[row] = not vector.any()
        changed = np.array(rows, np.int32)
        item_embeddings = room[:n]
        return replace(
            self,
            item_embeddings=item_embeddings,
            index=with_rows(self.index, self.item_embeddings, item_embeddings, changed),
            longest=max(self.longest, longest_norm(room[changed])),
            laid=dict(later),
            room=room,
            absent=absent if absent.any() else None,
        )

    def digest(self) -> str:
        """The name of the bits of T and of the items' vectors: equal wherever `refreshed_at` is, for one log."""
        named = sha256()
        for array in (self.neighbor_embeddings, self.refreshed):
            named.update(np.ascontiguousarray(array).view(np.uint8).data)
        return named.hexdigest()


@dataclass(frozen=True)
class Due:
    """A refresh that the log asks for.

    Attributes:
        mark: the graph at that place of the log.
        item_nodes: (J,) the items' nodes there.
        sequence: sequence number of the place.
        later: X of the items that came after training, by row.
    """

    mark: Mark
    item_nodes: NDArray[np.int32]
    sequence: int
    later: Mapping[int, Vectors]


@dataclass(frozen=True)
class UserView:
    """A user at one moment of the log, with the readout in force then. Shares no memory with the state.

    Attributes:
        row: the user's row.
        node: the user's node.
        in_artifact: whether the model was trained with this user.
        neighbors: (d,) the user's items as nodes, in key order.
        seen: (d,) the same as item rows.
        similarity: (d,) S(u, ·).
        vector: (width,) Z_u.
        readout: T, Z of the items and the index in force.
        sequence: sequence number of the log that has been applied.
    """

    row: int
    node: int
    in_artifact: bool
    neighbors: NDArray[np.int32]
    seen: NDArray[np.int32]
    similarity: NDArray[np.float32]
    vector: Vectors
    readout: Readout
    sequence: int


@dataclass(frozen=True)
class Explained:
    """What an explanation starts from, all of one moment.

    Attributes:
        view: the user.
        parts: its score for the item, taken apart.
        node_rows: (N,) node → row of its own kind.
        item_nodes: (J,) the items' nodes.
        trials: the user's surroundings, to try changes of its interactions on; None where none were asked for.
    """

    view: UserView
    parts: Contributions
    node_rows: NDArray[np.int32]
    item_nodes: NDArray[np.int32]
    trials: Trials | None
