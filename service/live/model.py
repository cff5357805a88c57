"""The model in memory: an artifact, and everything that the interaction log has added to it since.

A user's vector is never stored: it is computed when it is read, from T in force and the exact current S(u, ·). T, the
items' vectors and the index form one frozen `Readout`, swapped whole by one reference at a refresh.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Artifact
from model_store.attention import AttentionState, Mark
from model_store.contributions import contributions, steps
from model_store.encoders import ItemEncoder
from model_store.graph import InteractionGraph
from model_store.ids import IdMap
from model_store.item_item import ItemItemTable
from model_store.keys import NodeKeys, node_key, node_keys
from model_store.retrieval import rank_of, top_items
from model_store.scan import top_items_of_many
from model_store.serving_form import LaterRows, ServingForm
from model_store.trials import Trials
from model_store.walks import WalkSettings
from service.index import IndexBuilder
from service.index.exact import ExactIndex
from service.index.layered import refreshed
from service.index.recall import checked
from service.live.growing import GrowingArray
from service.live.item_metadata import ItemMetadata
from service.live.new_items import NewItems, Told
from service.live.readout import Due, Explained, Readout, UserView
from service.live.turn_lock import TurnLock
from service.state.port import Interactions, LogEntry, Record

# The user that an anonymous session is: no client can name it, since ids hold no control characters.
SESSION = "\0session"
# Array of an artifact: rows of the items that had been withdrawn when it was trained.
WITHDRAWN = "withdrawn.item_rows"
# Nodes settled between two looks at whether to stop; the lock is held for a fraction of the time only.
SETTLE_PORTION = 512


class LiveModel:
    """One version, live.

    Readers may come from any thread. One thread applies the log; another one settles and refreshes, without holding the
    first one up: it works at marked moments of the graph (`model_store.attention`).
    """

    def __init__(self, artifact: Artifact, build_index: IndexBuilder, *, start: int, refresh_every: int) -> None:
        """Load an artifact.

        Args:
            artifact: the published version.
            build_index: makes an index over item vectors.
            start: sequence number of the log up to which the artifact's data reaches.
            refresh_every: T and the item vectors are refreshed at multiples of this sequence number.
        """
        manifest = artifact.manifest
        self.artifact = artifact
        self.form: ServingForm = artifact.form()
        self.table: ItemItemTable = artifact.item_item()
        self.lock = TurnLock()
        self.refresh_every = refresh_every
        self.users = IdMap("user", artifact.array("user_ids").tolist())
        self.items = IdMap("item", artifact.array("item_ids").tolist())
        self._state = AttentionState.of_arrays(artifact.array, artifact.walks, index="visited_by.indices" in artifact)
        self._state.prepare()
        n_users, n_items = manifest.n_users, manifest.n_items
        # Rows and nodes of one kind each: users' rows ↔ nodes, items' rows ↔ nodes, node → row of its own kind.
        self._user_nodes = GrowingArray(np.arange(n_users, dtype=np.int32))
        self._item_nodes = GrowingArray(np.arange(n_users, n_users + n_items, dtype=np.int32))
        self._node_rows = GrowingArray(
            np.concatenate([np.arange(n_users, dtype=np.int32), np.arange(n_items, dtype=np.int32)])
        )
        self._reached = np.zeros(n_items, np.bool_)  # by B
        self._reached[self.table.indices[self.table.data > 0]] = True
        item_embeddings = np.array(artifact.array("item_embeddings"), np.float32)
        index, self.index_recall = checked(
            build_index(item_embeddings), item_embeddings, artifact.array("user_embeddings")
        )
        self._readout = Readout.of(
            np.array(artifact.array("neighbor_embeddings"), np.float32),
            item_embeddings,
            lambda _: index,
            start,
            self.form,
            artifact.adjacency(),
            {},
            self._reached,
        )
        self.metadata = ItemMetadata()
        self._new_items = NewItems(artifact, self.form.alpha[0])
        if WITHDRAWN in artifact:
            for row in artifact.array(WITHDRAWN).tolist():
                self.metadata.withdraw(row)
        self._sequence = start
        self._refreshes = 0
        self._refresh_at = start  # the last place of the log where a refresh belongs
        self._due: Due | None = None  # what is needed to make it
        self._mark: Mark | None = None  # the moment that is being settled, never beyond one where a refresh is due
        # Held by whoever settles or refreshes; taken before `lock`.
        self._settling = threading.Lock()
        # Batches that were applied and are not settled: the state's clock, the first sequence number, the time.
        self._unsettled: deque[tuple[int, int, float]] = deque()
        self._popular: tuple[int, NDArray[np.int32], NDArray[np.int32]] | None = None

    # ---- what is known -------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """The version's name."""
        return self.artifact.version

    @property
    def sequence(self) -> int:
        """Sequence number of the last interaction that was applied."""
        return self._sequence

    @property
    def readout(self) -> Readout:
        """T, the items' vectors and the index in force."""
        return self._readout

    @property
    def encoder(self) -> ItemEncoder:
        """What places an item by its content."""
        return self._new_items.encoder

    @property
    def refreshes(self) -> int:
        """How many refreshes there were since the artifact was loaded."""
        return self._refreshes

    @property
    def n_stale(self) -> int:
        """How many nodes wait to be settled."""
        return self._state.n_waiting

    @property
    def state_nbytes(self) -> tuple[int, int]:
        """Bytes of the attention state's arrays that processes may share, and of its own."""
        return self._state.nbytes

    @property
    def settled_sequence(self) -> int:
        """Sequence number up to which everything is settled."""
        return self._lag()[0]

    @property
    def settle_lag(self) -> float:
        """Seconds since the first interaction was applied that is not settled yet, 0 where there is none."""
        return self._lag()[1]

    @property
    def refresh_due(self) -> bool:
        """Whether the log has passed a place where a refresh belongs and it has not been made."""
        return self._refresh_at > self._readout.refreshed_at

    @property
    def until_refresh(self) -> int:
        """How many interactions may be applied before the next refresh."""
        return self.refresh_every - self._sequence % self.refresh_every

    def user(self, user_id: str) -> UserView | None:
        """A user now, None where it is unknown."""
        return self.views([user_id])[0]

    def views(self, user_ids: Sequence[str]) -> list[UserView | None]:
        """Several users at one moment, None in the place of an unknown one."""
        with self.lock.reading():
            rows = [self.users.row(user_id) for user_id in user_ids]
            found = iter(self._views([row for row in rows if row is not None]))
            return [None if row is None else next(found) for row in rows]

    def walks_to_read(self, user_id: str) -> int:
        """From how many stale nodes a read of this user has to walk."""
        if not self._state.n_stale:  # mostly; worth no lock
            return 0
        with self.lock.reading():
            row = self.users.row(user_id)
            return 0 if row is None else self._state.n_stale_of(int(self._user_nodes.values[row]))

    def explained(self, user_id: str, item_row: int, *, trials: bool = False) -> Explained | None:
        """A user now and the parts of its score for an item, None where the user is unknown.

        The parts of an item without a vector are all 0.

        Args:
            user_id: external id.
            item_row: the item.
            trials: whether changes of the user's interactions are to be tried: costs two copies of 12 bytes a node.
        """
        with self.lock.reading():
            row = self.users.row(user_id)
            if row is None:
                return None
            view = self._views([row])[0]
            readout = view.readout
            known = item_row < readout.n_items
            parts = contributions(
                self.form,
                self.table,
                view.node,
                view.neighbors,
                view.seen,
                view.similarity,
                self._state.degrees,
                readout.neighbor_embeddings,
                item_row,
                readout.item_embeddings[item_row] if known else np.zeros(self.form.width, np.float32),
            )
            aside = None
            if trials:
                lists, keys = self._state.detach(), self._state.keys
                settings = self.artifact.walks
                aside = Trials(view.node, lists, keys, settings, self.form, readout.neighbor_embeddings)
            return Explained(view, parts, self._node_rows.values, self._item_nodes.values, aside)

    def item_row(self, item_id: str) -> int | None:
        """An item's row, None where it is unknown."""
        return self.items.row(item_id)

    def item_counts(self, item_rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """(n,) how many users have interacted with each of some items."""
        with self.lock.reading():
            return self._state.degrees[self._item_nodes.values[item_rows]]

    def popular(self, most: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """At least the `most` items (all where there are fewer) with the most interactions, equal ones by row.

        Returns:
            item rows and their numbers of interactions, the most popular first.
        """
        cached = self._popular
        if cached is None or cached[0] != self._sequence or len(cached[1]) < min(most, len(self.items)):
            with self.lock.reading():
                sequence = self._sequence
                counts = self._state.degrees[self._item_nodes.values]
            # One number for each item that orders by count, then by row.
            order = np.arange(len(counts), dtype=np.int64) - counts.astype(np.int64) * len(counts)
            wanted = min(max(most, 256), len(counts))
            rows = np.argpartition(order, wanted - 1)[:wanted] if wanted < len(counts) else np.arange(len(counts))
            best: NDArray[np.int32] = rows[np.argsort(order[rows])].astype(np.int32)
            cached = (sequence, best, counts[best])
            self._popular = cached
        return cached[1], cached[2]

    def counts(self) -> NDArray[np.int32]:
        """(J,) how many users have interacted with each item."""
        with self.lock.reading():
            return self._state.degrees[self._item_nodes.values]

    def digest(self) -> str:
        """The name of the settled state's bits."""
        return self.digest_at()[1]

    def digest_at(self) -> tuple[int, str]:
        """The place of the log that has been applied, and the name of the state's bits there, settled."""
        while True:
            with self._settling:
                with self._state.writing:
                    # A refresh that is due comes first: what is settled later can't be refreshed at its place.
                    mark = None if self.refresh_due else self._state.mark()
                    sequence = self._sequence
                if mark is not None:
                    while self._state.settle(SETTLE_PORTION, at=mark, lock=self.lock.changing):
                        pass
                    self._note_settled()
                    return sequence, self._state.digest(mark, lock=self.lock.changing)
            self.refresh(due_only=True)

    def edges(self) -> set[tuple[str, str]]:
        """Every (user id, item id) that has interacted."""
        with self.lock.reading():
            return {
                (user_id, self.items.id_of(int(self._node_rows.values[node])))
                for user_id, user_node in zip(self.users.to_array().tolist(), self._user_nodes.values, strict=True)
                for node in self._state.neighbors(int(user_node))
            }

    def session(self, item_rows: NDArray[np.int32]) -> UserView:
        """What a new user with these interactions, each item once, would be; nothing is kept."""
        with self.lock.reading():
            nodes = self._item_nodes.values[item_rows]
            node = self._state.n_nodes
            neighbors, similarity, degrees = self._state.newcomer(node_key("user", SESSION), nodes)
            nodes, ends = np.array([node], np.int32), np.array([0, len(neighbors)])
            return self._views_of([-1], nodes, ends, neighbors, similarity, degrees)[0]

    # ---- the follower's side -------------------------------------------------------------------------------------

    def apply(self, events: Sequence[LogEntry] | Interactions) -> None:
        """Take up the next entries of the log; a pair that stands twice is one edge.

        A removal ends an edge, wherever it came from; an erasure ends all of a user's edges and forgets the user.
        New users and items get their nodes in the log's order, so that node numbers don't depend on the batches.

        Raises:
            ValueError: the log has a gap.
        """
        if not len(events):
            return
        if not isinstance(events, Interactions):
            expected = range(events[0].sequence, events[0].sequence + len(events))
            if [event.sequence for event in events] != list(expected):
                raise ValueError("the log has a gap")
            events = _columns(events) or events
        after = events.after if isinstance(events, Interactions) else events[0].sequence - 1
        if after != self._sequence:
            raise ValueError(f"the log must go on at {self._sequence + 1}, not at {after + 1}")
        with self._state.writing:
            if isinstance(events, Interactions):
                self._add_edges(events)
            else:
                told = self._new_items.read(events)
                with self.lock.changing():
                    self._apply(events, told)
                    self._advance(len(events))
            if self._refresh_at == self._sequence:
                self._due = self._now()

    def _add_edges(self, events: Interactions) -> None:
        """Apply interactions: no loop over those whose users and items are known. The state's `writing` is held."""
        users = _nodes(self.users.rows(events.user_ids), self._user_nodes)
        items = _nodes(self.items.rows(events.item_ids), self._item_nodes)
        self._state.foresee((users, items))
        with self.lock.changing():
            keys: list[NodeKeys] = []
            for place in np.flatnonzero((users < 0) | (items < 0)).tolist():
                users[place] = self._node_of(self.users, self._user_nodes, events.user_ids[place], keys)
                items[place] = self._node_of(self.items, self._item_nodes, events.item_ids[place], keys)
            if keys:
                self._state.add_nodes(np.concatenate(keys))
            self._state.apply((users, items))
            self._advance(len(events))

    def _apply(self, events: Sequence[LogEntry], told: Sequence[Told]) -> None:
        """Apply entries of the log, and what they say of items; both locks are held."""
        keys: list[NodeKeys] = []
        added: list[tuple[int, int]] = []

        def flush(removed: Sequence[tuple[int, int]] = ()) -> None:
            if keys:
                self._state.add_nodes(np.concatenate(keys))
            self._state.apply(_endpoints(added), _endpoints(removed) if removed else None)
            keys.clear()
            added.clear()

        for event in events:
            if event.kind == "interaction":
                user = self._node_of(self.users, self._user_nodes, event.user_id, keys)
                added.append((user, self._node_of(self.items, self._item_nodes, event.item_id, keys)))
            elif event.kind == "erased" and event.item_id:
                # Its user is gone; the item keeps its place in the order of arrival.
                self._node_of(self.items, self._item_nodes, event.item_id, keys)
            elif event.kind in {"item", "withdrawal"}:
                self._node_of(self.items, self._item_nodes, event.item_id, keys)
            elif event.kind in {"removal", "erasure"} and (row := self.users.row(event.user_id)) is not None:
                flush()
                node = int(self._user_nodes.values[row])
                ended = self._state.neighbors(node).tolist()
                if event.kind == "erasure":
                    self.users.forget(event.user_id)
                else:
                    item_row = self.items.row(event.item_id)
                    ended = [] if item_row is None else [int(self._item_nodes.values[item_row])]
                flush([(node, other) for other in ended])
        flush()
        if self._new_items.take(told, self.items, self.metadata):
            self._readout = self._new_items.laid_over(self._readout)

    def _advance(self, count: int) -> None:
        """So many entries of the log are applied; both locks are held."""
        first = self._sequence + 1
        # Read without the locks: who sees it sees what came before it.
        self._sequence += count
        if self._state.n_waiting:
            self._unsettled.append((self._state.clock, first, time.monotonic()))
        else:
            self._unsettled.clear()
        if self._sequence % self.refresh_every == 0:
            self._refresh_at = self._sequence

    def seed(self, records: Iterable[Record], upto: int) -> None:
        """Take up the items' records that the log held before it is followed here; call it before `apply`.

        Args:
            records: what the state knows of items.
            upto: records of later entries come with the log.
        """
        known = sorted((r for r in records if r.sequence <= upto), key=lambda record: record.sequence)
        with self._state.writing, self.lock.changing():
            keys: list[NodeKeys] = []
            for record in known:
                self._node_of(self.items, self._item_nodes, record.external_id, keys)
            if keys:
                self._state.add_nodes(np.concatenate(keys))
            told = [self._new_items.read_record(record.external_id, record.content) for record in known]
            self._new_items.take(told, self.items, self.metadata)
            self._readout = self._new_items.laid_over(self._readout)

    def _node_of(self, ids: IdMap, nodes: GrowingArray[np.int32], external_id: str, keys: list[NodeKeys]) -> int:
        """The node of an id; a new one's key is added to `keys`, whose nodes the state does not have yet."""
        row = ids.row(external_id)
        if row is None:
            row = ids.add(external_id)
            nodes.append(self._state.n_nodes + len(keys))
            self._node_rows.append(row)
            keys.append(node_keys("user" if ids is self.users else "item", [external_id]))
        return int(nodes.values[row])

    def settle(self) -> int:
        """Settle a few stale nodes, at the place of a refresh that is due before others. Returns how many wait."""
        with self._settling:
            mark = self._mark
            if mark is None or self._state.settled_at >= mark.clock:
                with self._state.writing:
                    due = self._due
                    mark = self._state.mark() if due is None or not self.refresh_due else due.mark
                self._mark = mark
            if self._state.settle(SETTLE_PORTION, at=mark, lock=self.lock.changing) == 0:
                self._mark = None
                self._note_settled()
            return self._state.n_waiting

    def refresh(self, stop: Callable[[], bool] = lambda: False, *, due_only: bool = False) -> bool:
        """Compute T and the items' vectors from the settled state, build the index, swap them in whole.

        They are those of the place of the log where a refresh is due, though the log has gone on; where none is due,
        those of now. Readers go on with the readout before it, and the log is followed meanwhile.

        Args:
            stop: asked between the steps; gives up where it is true.
            due_only: whether nothing is done where none is due: another thread has made it meanwhile.

        Returns:
            Whether the new readout is in force.
        """
        with self._settling:
            with self._state.writing:
                due = self._due
                if due is None or not self.refresh_due:
                    if due_only:
                        return False
                    due = self._now()
            waiting = 1
            while waiting:
                if stop():
                    return False
                waiting = self._state.settle(SETTLE_PORTION, at=due.mark, lock=self.lock.changing)
            self._note_settled()
            snapshot = self._state.snapshot(due.mark, lock=self.lock.changing)
            form = self.form.with_later(_by_node(due))
            neighbor_embeddings = form.neighbor_embeddings(snapshot)
            item_embeddings = form.embeddings(due.item_nodes, snapshot, neighbor_embeddings)
            before = self._readout.bare()
            readout = Readout.of(
                neighbor_embeddings,
                item_embeddings,
                lambda vectors: refreshed(before.index, before.refreshed, vectors),
                due.sequence,
                form,
                snapshot,
                due.later,
                self._reached,
            )
            with self._state.writing:
                self._readout = self._new_items.laid_over(readout)
                self._refreshes += 1
                if self._due is due:
                    self._due = None
        return True

    # ---- inside --------------------------------------------------------------------------------------------------

    def _now(self) -> Due:
        """This place of the log, to refresh at; the state's `writing` is held."""
        return Due(self._state.mark(), self._item_nodes.values.copy(), self._sequence, self._new_items.bases())

    def _lag(self) -> tuple[int, float]:
        sequence = self._sequence  # first: what is applied meanwhile is not counted as settled
        try:
            _, first, since = self._unsettled[0]
        except IndexError:
            return sequence, 0.0
        return first - 1, time.monotonic() - since

    def _note_settled(self) -> None:
        """Forget the batches that are settled by now."""
        with self._state.writing:
            unsettled, settled_at = self._unsettled, self._state.settled_at
            while unsettled and unsettled[0][0] <= settled_at:
                unsettled.popleft()

    def _views(self, rows: Sequence[int]) -> list[UserView]:
        """Some users now; the lock is held."""
        if not rows:
            return []
        nodes = self._user_nodes.values[rows]
        return self._views_of(rows, nodes, *self._state.similarities(nodes), self._state.degrees)

    def _views_of(
        self,
        rows: Sequence[int],
        nodes: NDArray[np.int32],
        ends: NDArray[np.int64],
        neighbors: NDArray[np.int32],
        similarity: NDArray[np.float32],
        degrees: NDArray[np.int32],
    ) -> list[UserView]:
        """Rows of L̄ read as users', -1 for one that has no row; the lock is held."""
        readout, n_users, sequence = self._readout, self.form.n_users, self._sequence
        vectors = self.form.user_embeddings(nodes, ends, neighbors, similarity, degrees, readout.neighbor_embeddings)
        seen = self._node_rows.values[neighbors]
        parts = [slice(begin, end) for begin, end in pairwise(ends.tolist())]
        return [
            UserView(row, node, 0 <= row < n_users, neighbors[p], seen[p], similarity[p], vector, readout, sequence)
            for row, node, p, vector in zip(rows, nodes.tolist(), parts, vectors, strict=True)
        ]


def _by_node(due: Due) -> LaterRows | None:
    """X of the items that came after training, by node."""
    if not due.later:
        return None
    nodes = due.item_nodes[list(due.later)]
    order = np.argsort(nodes)
    return LaterRows(nodes[order], np.stack(list(due.later.values()))[order])


def _nodes(rows: NDArray[np.int32], nodes: GrowingArray[np.int32]) -> NDArray[np.int32]:
    """Nodes of rows, -1 for a row of -1."""
    found = np.full(len(rows), -1, np.int32)
    known = rows >= 0
    found[known] = nodes.values[rows[known]]
    return found


def _columns(events: Sequence[LogEntry]) -> Interactions | None:
    """Entries as columns, None where not all are interactions."""
    if any(event.kind != "interaction" for event in events):
        return None
    return Interactions(
        events[0].sequence - 1, [event.user_id for event in events], [event.item_id for event in events]
    )


def _endpoints(pairs: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    array = np.array(pairs, np.int32).reshape(-1, 2)
    return array[:, 0].copy(), array[:, 1].copy()


def warm_up() -> None:
    """Compile (or load from the cache) every kernel that a request, an interaction or a refresh calls."""
    n_users, n_items, width = 2, 3, 4
    users, items = np.array([0, 1, 1]), np.array([0, 1, 2])
    user_keys, item_keys = node_keys("user", ["a", "b"]), node_keys("item", ["x", "y", "z"])
    graph = InteractionGraph.from_pairs(users, items, user_keys, item_keys)
    base = np.ones((n_users + n_items, width), np.float32)
    form = ServingForm(base, None, np.ones((3, width), np.float32), 0.5, True, n_users)
    state = AttentionState.build(graph, WalkSettings(2, 4, 0.15, 0))
    edge = np.array([0], np.int32), np.array([3], np.int32)
    state.foresee(edge)
    state.apply(edge)
    state.similarity(0)
    state.similarities(np.array([0], np.int32))
    adjacency = state.snapshot()
    neighbor_embeddings = form.neighbor_embeddings(adjacency)
    vectors = form.embeddings(np.arange(2, 5, dtype=np.int32), adjacency, neighbor_embeddings)
    state.newcomer(node_key("user", SESSION), np.array([3], np.int32))
    neighbors = state.neighbors(0).copy()
    seen = (neighbors - n_users).astype(np.int32)
    user_vector = form.user_embedding(0, neighbors, state.similarity(0), state.degrees, neighbor_embeddings)
    deep = ServingForm(base, None, np.ones((4, width), np.float32), 0.5, True, n_users)
    steps(deep, adjacency, 2, vectors[2])
    for writable in (True, False):  # compiled functions tell arrays on disk (read-only) from those in memory
        arrays = (np.arange(4, dtype=np.int64), np.zeros(3, np.int32), np.ones(3, np.float32))
        for array in arrays:
            array.flags.writeable = writable
        table = ItemItemTable(*arrays)
        for most in (n_items, 0):
            top_items(user_vector, vectors, seen, table, ExactIndex(vectors).search, 2, most=most)
        top_items_of_many(user_vector[None, :], vectors, [seen], table, [2], 1.0)
        direct, _ = table.accumulate(seen, n_items)
        rank_of(0.0, 2, user_vector, vectors, seen, direct)
        contributions(
            form,
            table,
            0,
            neighbors,
            seen,
            state.similarity(0).copy(),
            state.degrees,
            neighbor_embeddings,
            2,
            vectors[2],
        )
