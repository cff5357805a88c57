from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store import neighbor_lists, visited
from model_store.attention import AttentionState, Mark
from model_store.keys import node_key
from model_store.walks import WalkSettings
from tests.model_store import reference
from tests.model_store.reference import Node, Pair
from tests.model_store.worlds import graph_of, names_of, random_pairs, reference_sets

WALKS = WalkSettings(2, 5, 0.2, 9)


def state_of(pairs: Iterable[Pair], settings: WalkSettings, rng: np.random.Generator | None = None) -> Follower:
    """A state built from scratch, rows in the order of the ids or in a random order."""
    pairs = sorted(set(pairs))
    user_ids, item_ids = sorted({u for u, _ in pairs}), sorted({v for _, v in pairs})
    if rng is not None:
        user_ids, item_ids = list(rng.permutation(user_ids)), list(rng.permutation(item_ids))
    return Follower(pairs, user_ids, item_ids, settings)


class Follower:
    """An attention state that is spoken to in external ids."""

    def __init__(self, pairs: list[Pair], user_ids: list[str], item_ids: list[str], settings: WalkSettings) -> None:
        self.names = [(str(kind), str(i)) for kind, i in names_of(user_ids, item_ids)]
        self.nodes = {name: node for node, name in enumerate(self.names)}
        self.pairs = set(pairs)
        self.state = AttentionState.build(graph_of(pairs, user_ids, item_ids), settings)

    def follow(self, added: list[Pair], removed: list[Pair] = ()) -> None:  # type: ignore[assignment]
        for user, item in (*added, *removed):
            for name in (("user", user), ("item", item)):
                if name not in self.nodes:
                    keys = np.array([node_key(*name)], np.uint64)  # type: ignore[arg-type]
                    self.nodes[name] = int(self.state.add_nodes(keys)[0])
                    self.names.append(name)
        count = self.state.apply(self._endpoints(added), self._endpoints(removed))
        before = self.pairs
        between = before | set(added)
        self.pairs = between - set(removed)
        assert count == len(between - before) + len(between - self.pairs)

    def _endpoints(self, pairs: Iterable[Pair]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        pairs = list(pairs)
        users = np.array([self.nodes["user", u] for u, _ in pairs], np.int32)
        return users, np.array([self.nodes["item", v] for _, v in pairs], np.int32)

    def similarity(self, name: Node) -> dict[Node, np.float32]:
        node = self.nodes[name]
        row = self.state.similarity(node)
        # Among others, it is the same row.
        ends, neighbors, rows = self.state.similarities(np.array([0, node, self.state.n_nodes - 1], np.int32))
        assert neighbors[ends[1] : ends[2]].tolist() == self.state.neighbors(node).tolist()
        assert rows[ends[1] : ends[2]].tobytes() == row.tobytes()
        assert (ends[0], ends[3]) == (0, len(neighbors))
        return {self.names[m]: s for m, s in zip(self.state.neighbors(node), row, strict=True)}


def expected_similarity(pairs: Iterable[Pair], settings: WalkSettings) -> dict[Node, dict[Node, np.float32]]:
    """S row by row, by the plain-Python reference."""
    pairs = sorted(set(pairs))
    sets = reference_sets(pairs, sorted({u for u, _ in pairs}), sorted({v for _, v in pairs}), settings)
    rows: dict[Node, dict[Node, np.float32]] = {name: {} for name in sets}
    for u, v in pairs:
        value = reference.similarity(sets["user", u], sets["item", v])
        rows["user", u]["item", v] = rows["item", v]["user", u] = value
    return rows


def assert_equal_states(follower: Follower, rebuilt: Follower) -> None:
    assert follower.pairs == rebuilt.pairs
    assert follower.state.digest() == rebuilt.state.digest()
    assert follower.state.n_stale == 0
    for name, node in rebuilt.nodes.items():
        assert follower.similarity(name) == rebuilt.similarity(name)
        assert follower.state.degrees[follower.nodes[name]] == rebuilt.state.degrees[node]


users, items = st.sampled_from([f"u{i}" for i in range(7)]), st.sampled_from([f"i{i}" for i in range(7)])
pairs_of = st.lists(st.tuples(users, items), max_size=6)
operation = st.one_of(
    st.tuples(st.just("follow"), pairs_of, pairs_of),
    st.tuples(st.just("settle"), st.one_of(st.none(), st.integers(0, 5)), st.none()),
    st.tuples(st.just("read"), st.integers(0, 99), st.none()),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(users, items), max_size=12), st.lists(operation, max_size=14), st.integers(0, 99))
def test_after_any_sequence_the_settled_state_is_a_rebuild_bit_for_bit_and_a_read_is_exact_at_any_time(
    first: list[Pair], operations: list[tuple[str, object, object]], seed: int
) -> None:
    follower = state_of(first, WALKS)
    for name, a, b in operations:
        if name == "follow":
            follower.follow(a, b)  # type: ignore[arg-type]
        elif name == "settle":
            waiting = follower.state.settle(most=a)  # type: ignore[arg-type]
            assert waiting == follower.state.n_waiting
            assert a is not None or waiting == 0
        elif follower.names:
            node = follower.names[a % len(follower.names)]  # type: ignore[operator]
            expected = expected_similarity(follower.pairs, WALKS)
            assert follower.similarity(node) == expected.get(node, {})
    # The rebuild has other rows: those of a random order of the ids.
    assert_equal_states(follower, state_of(follower.pairs, WALKS, np.random.default_rng(seed)))
    expected = expected_similarity(follower.pairs, WALKS)
    assert {name: follower.similarity(name) for name in expected} == expected


@settings(max_examples=30)
@given(st.permutations(random_pairs(np.random.default_rng(5), 6, 6, 18)), st.lists(st.integers(1, 5), min_size=18))
def test_order_of_arrival_and_batches_leave_no_trace(pairs: list[Pair], sizes: list[int]) -> None:
    follower = state_of([], WALKS)
    begin = 0
    for size in sizes:
        follower.follow(pairs[begin : begin + size])
        begin += size
    follower.follow(pairs[begin:])
    assert_equal_states(follower, state_of(pairs, WALKS))


def test_a_long_history_with_compactions_equals_a_rebuild() -> None:
    # Walks as long as the paper's fill the visited sets' arena fast enough for it to be compacted several times.
    rng = np.random.default_rng(1)
    settings = WalkSettings(12, 50, 0.15, 4)
    follower = state_of(random_pairs(rng, 40, 40, 150), settings)
    walked = 0
    for turn in range(60):
        removed = [sorted(follower.pairs)[i] for i in rng.integers(0, len(follower.pairs), 3)]
        # a few ids a turn that nobody has seen before
        added = [*random_pairs(rng, 40, 40, 4), (f"new{turn}", f"i{turn % 40}"), (f"u{turn % 40}", f"fresh{turn}")]
        follower.follow(added, removed)
        walked += int(follower.state._sets.rows.sizes.sum())
        follower.state.settle(most=int(rng.integers(0, 60)))
    rebuilt = state_of(follower.pairs, settings, rng)
    assert_equal_states(follower, rebuilt)
    # beside the sets' base lies less than what was put there on the way
    assert sum(follower.state._sets.n_entries) < walked


def test_a_thousand_histories_with_hubs_and_lonely_nodes_end_as_rebuilds_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (neighbor_lists, visited):
        monkeypatch.setattr(module, "TOLERATED", 0)  # compactions and folds all the time
    # Additions, removals, duplicates and new nodes in batches of mixed size; settles in pieces; moments to settle at
    # that lie behind the present. The rebuild's rows stand in another order.
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        n_users, n_items = (int(n) for n in rng.integers(1, 14, 2))
        walks = WalkSettings(
            int(rng.integers(1, 5)), int(rng.integers(1, 9)), float(rng.choice([0.0, 0.15, 0.6])), seed
        )
        follower = state_of(random_pairs(rng, n_users, n_items, int(rng.integers(0, 30))), walks)
        state, moments = follower.state, []
        for _ in range(int(rng.integers(1, 9))):
            known = sorted(follower.pairs)
            removed = [known[i] for i in rng.integers(0, len(known), int(rng.integers(0, 4)))] if known else []
            follower.follow(random_pairs(rng, n_users + 2, n_items + 2, int(rng.choice([0, 1, 2, 12]))), removed)
            if rng.random() < 0.4:
                moments.append((state.mark(), set(follower.pairs)))
            if rng.random() < 0.5:
                state.settle(most=int(rng.integers(1, 9)))
            if moments and rng.random() < 0.3:
                assert_settled_at(follower, *moments.pop(), walks)
                moments.clear()  # the earlier ones can't be gone back to
            if rng.random() < 0.1:
                state.settle()
                state._lists.compact()
        assert_equal_states(follower, state_of(follower.pairs, walks, rng))


def assert_settled_at(follower: Follower, mark: Mark, pairs: set[Pair], walks: WalkSettings) -> None:
    """S of a moment that is no longer the present, against a rebuild of that moment."""
    state = follower.state
    if mark.clock < state.settled_at:
        assert state.settle(at=mark) == 0  # too late: the moment is skipped
        return
    while state.settle(most=3, at=mark):
        pass
    if state.settled_at > mark.clock:
        return  # the settle that was under way was one of a later moment
    adjacency = state.snapshot(mark)
    rebuilt = state_of(pairs, walks)
    for node in range(adjacency.n_nodes):
        row = slice(int(adjacency.starts[node]), int(adjacency.starts[node] + adjacency.lengths[node]))
        names = [follower.names[m] for m in adjacency.neighbors[row]]
        expected = rebuilt.similarity(follower.names[node]) if follower.names[node] in rebuilt.nodes else {}
        assert dict(zip(names, adjacency.similarity[row], strict=True)) == expected


def test_partial_settles_end() -> None:
    follower = state_of(random_pairs(np.random.default_rng(2), 6, 6, 20), WALKS)
    follower.follow([("u0", "i0"), ("u9", "i9"), ("u1", "i9")])
    stale = follower.state.n_stale
    assert stale >= 2
    for left in reversed(range(stale)):
        follower.state.settle(most=1)
        assert follower.state.n_stale == left  # the walks come first, one of them at a time
    waiting = [follower.state.settle(most=1) for _ in range(follower.state.n_nodes)]
    assert waiting[0] > 0  # then S on the edges
    assert waiting[-1] == 0
    assert waiting == sorted(waiting, reverse=True)
    assert_equal_states(follower, state_of(follower.pairs, WALKS))


def test_what_was_settled_last_alone_can_be_copied() -> None:
    follower = state_of([("a", "x"), ("b", "x")], WALKS)
    follower.follow([("a", "y")])
    mark = follower.state.mark()
    with pytest.raises(ValueError, match="settle first"):
        follower.state.snapshot(mark)
    follower.follow([("b", "y")])
    assert follower.state.settle(at=mark) == 0
    assert follower.state.n_stale > 0
    assert follower.state.snapshot(mark).lengths[: follower.state.n_nodes].sum() == 6
    follower.state.settle()
    with pytest.raises(ValueError, match="settle first"):
        follower.state.snapshot(mark)


def test_a_reader_and_a_writer_may_go_on_while_another_thread_settles() -> None:
    rng = np.random.default_rng(12)
    settings = WalkSettings(12, 50, 0.15, 4)
    follower = state_of(random_pairs(rng, 60, 60, 300), settings)
    state, lock, done = follower.state, threading.Lock(), threading.Event()
    failures: list[BaseException] = []

    def settle() -> None:
        try:
            while not done.is_set():
                state.settle(most=16, lock=lambda: lock)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=settle)
    thread.start()
    for turn in range(150):
        with state.writing, lock:
            removed = [sorted(follower.pairs)[i] for i in rng.integers(0, len(follower.pairs), 2)]
            follower.follow([*random_pairs(rng, 60, 60, 3), (f"u{turn % 60}", f"fresh{turn}")], removed)
            name = follower.names[int(rng.integers(len(follower.names)))]
            row = follower.similarity(name)
        if turn % 50 == 0:
            assert row == state_of(follower.pairs, settings).similarity(name)
    done.set()
    thread.join()
    assert failures == []
    assert_equal_states(follower, state_of(follower.pairs, settings, rng))


def test_neighbors_and_degrees_follow_at_once_and_only_affected_nodes_wait() -> None:
    # Two islands: what happens on one does not concern the other.
    follower = state_of([("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")], WALKS)
    state, nodes = follower.state, follower.nodes
    follower.follow([("a", "z")])
    assert state.has_edge(nodes["user", "a"], nodes["item", "z"])
    assert state.degrees[nodes["user", "a"]] == 2
    assert 2 <= state.n_stale <= 4  # a and z, and those of b and x that met a
    far = {nodes["user", "c"], nodes["user", "d"], nodes["item", "y"]}
    before = {node: state.similarity(node).copy() for node in far}
    assert 2 <= state.n_stale <= 4  # reading elsewhere settles nothing here
    state.settle()
    for node in far:
        assert np.array_equal(state.similarity(node), before[node])


def test_what_is_foreseen_is_what_applying_marks_and_changes_no_bits() -> None:
    rng = np.random.default_rng(21)
    for seed in range(60):
        pairs = random_pairs(rng, 8, 8, 20)
        added = random_pairs(rng, 8, 8, int(rng.integers(0, 6)))
        removed = [*random_pairs(rng, 8, 8, 2), *added[:1]]
        # Both users and items of the batch are known; what is not yet a node has a number outside of the nodes.
        walks = WalkSettings(2, 5, 0.2, seed)
        everybody = {(f"u{n}", f"i{n}") for n in range(8)}
        alone, foreseen = (state_of({*pairs, *everybody}, walks) for _ in range(2))
        ends = [tuple(np.append(part, np.int32(-1)) for part in alone._endpoints(edges)) for edges in (added, removed)]
        alone.follow(added, removed)
        foreseen.state.foresee(*ends)
        marked, degrees = foreseen.state.n_stale, foreseen.state.degrees.copy()
        assert np.array_equal(degrees, state_of({*pairs, *everybody}, walks).state.degrees)  # nothing has changed yet
        foreseen.follow(added, removed)
        assert foreseen.state.n_stale == marked == alone.state.n_stale
        assert np.array_equal(foreseen.state._stale, alone.state._stale)
        assert_equal_states(foreseen, alone)


def test_a_node_that_is_foreseen_stays_stale_through_a_settle_before_its_list_changes() -> None:
    follower = state_of([("a", "x"), ("b", "x"), ("b", "y")], WALKS)
    ends = follower._endpoints([("a", "y")])
    follower.state.foresee(ends)
    assert follower.state.settle(at=follower.state.mark()) == 0
    assert follower.state.n_stale > 0
    follower.follow([("a", "y")])
    assert_equal_states(follower, state_of(follower.pairs, WALKS))


def test_an_edge_that_is_there_already_or_is_not_there_changes_nothing() -> None:
    follower = state_of([("a", "x"), ("b", "x")], WALKS)
    digest = follower.state.digest()
    a, b, x = (follower.nodes[name] for name in (("user", "a"), ("user", "b"), ("item", "x")))
    ends = np.array([a, b], np.int32), np.array([x, x], np.int32)
    assert follower.state.apply(ends) == 0
    assert follower.state.n_stale == 0
    assert follower.state.apply(ends, ends) == 2
    assert follower.state.apply((ends[0][:0], ends[1][:0]), ends) == 0
    assert follower.state.digest() != digest
    assert follower.state.degrees.tolist() == [0, 0, 0]
    assert follower.state.apply(ends) == 2
    assert follower.state.digest() == digest


def test_a_node_that_lost_its_interactions_leaves_no_trace_in_the_digest() -> None:
    follower = state_of([("a", "x")], WALKS)
    digest = follower.state.digest()
    follower.follow([("b", "y"), ("a", "y")])
    assert follower.state.digest() != digest
    follower.follow([], [("b", "y"), ("a", "y")])
    assert follower.state.digest() == digest


@pytest.mark.parametrize("other", [WalkSettings(2, 5, 0.2, 10), WalkSettings(3, 5, 0.2, 9)])
def test_other_walks_give_another_digest(other: WalkSettings) -> None:
    pairs = random_pairs(np.random.default_rng(3), 8, 8, 30)
    assert state_of(pairs, WALKS).state.digest() != state_of(pairs, other).state.digest()


def test_a_state_goes_to_arrays_and_back() -> None:
    follower = state_of(random_pairs(np.random.default_rng(4), 8, 8, 30), WALKS)
    follower.follow([("u0", "new"), ("late", "new")], [("u0", "i0")])
    arrays = follower.state.to_arrays()
    for array in arrays.values():
        array.flags.writeable = False  # as a memory-mapped artifact's are
    back = AttentionState(
        arrays["node_keys"],
        arrays["graph.indptr"],
        arrays["graph.indices"],
        arrays["similarity.data"],
        arrays["visited.indptr"],
        arrays["visited.indices"],
        WALKS,
        (arrays["visited_by.indptr"], arrays["visited_by.indices"]),
    )
    assert back.digest() == follower.state.digest()
    back.apply((np.array([0], np.int32), np.array([back.n_nodes - 1], np.int32)))
    back.settle()
    assert back.digest() != follower.state.digest()


def test_a_snapshot_is_settled_and_stays_as_it_is_while_the_state_moves_on() -> None:
    follower = state_of(random_pairs(np.random.default_rng(6), 6, 6, 20), WALKS)
    follower.follow([("u0", "i5"), ("u9", "i5")])
    snapshot = follower.state.snapshot()
    assert follower.state.n_stale == 0
    copies = [part.copy() for part in snapshot]
    follower.follow([("u9", "i1")], [("u0", "i5")])
    follower.state.settle()
    for part, copy in zip(snapshot, copies, strict=True):
        assert np.array_equal(part, copy)
    assert snapshot.lengths[follower.nodes["user", "u9"]] == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6), st.booleans())
def test_a_newcomer_has_the_row_that_it_would_have_and_nothing_changes(seed: int, degree: int, settled: bool) -> None:
    rng = np.random.default_rng(seed)
    one = state_of(random_pairs(rng, 8, 8, 30), WALKS)
    later = random_pairs(rng, 9, 9, 10)
    one.follow(later)
    if settled:
        one.state.settle()
    items = np.array([node for (kind, _), node in one.nodes.items() if kind == "item"], np.int32)
    others = rng.choice(items, min(degree, len(items)), replace=False)
    digest_before = one.state.n_stale, one.state.degrees.tolist()
    key = node_key("user", "newcomer")
    neighbors, similarity, degrees = one.state.newcomer(key, others)
    assert (one.state.n_stale, one.state.degrees.tolist()) == digest_before
    node = int(one.state.add_nodes(np.array([key], np.uint64))[0])
    one.state.apply((np.full(len(others), node, np.int32), others))
    assert neighbors.tolist() == one.state.neighbors(node).tolist()
    assert similarity.tolist() == one.state.similarity(node).tolist()
    assert degrees.tolist() == one.state.degrees.tolist()
