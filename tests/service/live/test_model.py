from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.serving_form import score_rows
from service.live.follower import Follower
from service.recommendation.recommender import recommend
from service.state.memory import MemoryState
from service.state.port import Change, Interaction, Interactions, LogEntry
from tests.service.worlds import (
    Dense,
    apply_all,
    changed,
    dense_scores,
    edges_of,
    interactions,
    live_model,
    logged,
    random_pairs,
)
from tests.support.artifacts import World


def test_before_any_interaction_a_refresh_gives_the_artifacts_own_bits(tmp_path):
    model = live_model(tmp_path)
    before = model.readout
    assert model.refresh()
    after = model.readout
    assert after is not before
    assert (after.neighbor_embeddings == before.neighbor_embeddings).all()
    assert (after.item_embeddings == before.item_embeddings).all()


def test_a_users_vector_is_its_row_of_the_artifact(tmp_path):
    model = live_model(tmp_path)
    for row in range(0, 30, 7):
        view = model.user(f"u{row}")
        assert view is not None
        assert (view.vector == model.artifact.array("user_embeddings")[row]).all()


@pytest.mark.parametrize("world", [World(), World(self_loops=True, n_layers=1), World(n_layers=3, with_constant=False)])
def test_after_a_refresh_everything_is_as_the_formula_says(tmp_path, world):
    model = live_model(tmp_path, world, refresh_every=25)
    pairs = random_pairs(np.random.default_rng(3), 25)
    apply_all(model, pairs)
    assert model.readout.refreshed_at == 25
    dense = Dense.of(model.artifact, pairs)
    assert model.items.to_array().tolist() == dense.item_ids
    np.testing.assert_allclose(
        model.readout.item_embeddings, dense.embeddings[len(dense.user_ids) :], rtol=1e-4, atol=1e-5
    )
    for row, user in enumerate(dense.user_ids):
        view = model.user(user)
        assert view is not None
        np.testing.assert_allclose(view.vector, dense.embeddings[row], rtol=1e-4, atol=1e-5)


def test_between_refreshes_a_users_row_is_exact_against_the_readout_in_force(tmp_path):
    model = live_model(tmp_path, refresh_every=20)
    pairs = random_pairs(np.random.default_rng(4), 33)
    apply_all(model, pairs)
    assert (model.sequence, model.readout.refreshed_at) == (33, 20)
    for user in {user for user, _ in pairs}:
        items, scores = dense_scores(model.artifact, pairs[:20], pairs, user)
        view = model.user(user)
        assert view is not None
        direct, _ = model.table.accumulate(view.seen, len(items))
        rows = np.arange(len(items), dtype=np.int32)
        served = score_rows(view.vector, view.readout.item_embeddings, rows, direct)
        np.testing.assert_allclose(served, scores, rtol=1e-4, atol=1e-4)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 30))
def test_batches_and_settling_leave_no_trace(tmp_path, seed, batch, count):
    pairs = random_pairs(np.random.default_rng(seed), count)
    one = live_model(tmp_path, refresh_every=8)
    other = live_model(tmp_path, refresh_every=8)
    apply_all(one, pairs, batch=batch)
    for event in logged(pairs):
        other.apply([event])
        if other.refresh_due:
            other.refresh()
        other.settle()
    assert one.digest() == other.digest()
    assert (one.readout.neighbor_embeddings == other.readout.neighbor_embeddings).all()
    assert (one.readout.item_embeddings == other.readout.item_embeddings).all()
    for user, _ in pairs:
        assert recommend(one, user, 5)["items"] == recommend(other, user, 5)["items"]


def test_a_model_that_nobody_uses_is_gone_without_a_collection_of_garbage(tmp_path):
    model = live_model(tmp_path, refresh_every=5)
    gc.disable()
    try:
        apply_all(model, random_pairs(np.random.default_rng(8), 12))
        recommend(model, "u1", 5)
        seen = weakref.ref(model), weakref.ref(model._state)
        del model
        assert [one() for one in seen] == [None, None]
    finally:
        gc.enable()


def test_the_graph_holds_every_pair_once(tmp_path):
    model = live_model(tmp_path, refresh_every=5)
    pairs = [*random_pairs(np.random.default_rng(5), 17), ("new", "newer"), ("new", "newer")]
    apply_all(model, pairs)
    assert model.edges() == edges_of(model.artifact, pairs)
    view = model.user("new")
    assert view is not None
    assert len(view.seen) == 1


def test_a_gap_in_the_log_is_refused(tmp_path):
    model = live_model(tmp_path)
    with pytest.raises(ValueError, match="go on at 1"):
        model.apply(logged([("u1", "i1")], first=2))
    with pytest.raises(ValueError, match="go on at 1"):
        model.apply(Interactions(1, ["u1"], ["i1"]))
    with pytest.raises(ValueError, match="gap"):
        model.apply([*logged([("u1", "i1")]), *logged([("u2", "i2")], first=3)])
    assert model.sequence == 0


def test_columns_are_the_same_as_their_entries_and_as_entries_among_others(tmp_path):
    pairs = [*random_pairs(np.random.default_rng(9), 20), ("new", "newer"), ("u1", "newer"), ("new", "newer")]
    columns, entries, mixed = (live_model(tmp_path, refresh_every=50) for _ in range(3))
    columns.apply(Interactions(0, [user for user, _ in pairs], [item for _, item in pairs]))
    entries.apply(logged(pairs))
    # A removal of what was never there changes nothing, but takes the path that goes entry by entry.
    removal = LogEntry(len(pairs) + 1, "nobody", "nothing", 0.0, kind="removal")
    mixed.apply([*logged(pairs), removal])
    assert columns.digest() == entries.digest() == mixed.digest()
    assert columns.edges() == entries.edges() == mixed.edges() == edges_of(columns.artifact, pairs)
    assert (columns.sequence, mixed.sequence) == (len(pairs), len(pairs) + 1)


def test_a_refresh_that_is_told_to_stop_leaves_the_readout_and_can_be_repeated(tmp_path):
    model = live_model(tmp_path, refresh_every=3)
    model.apply(logged(random_pairs(np.random.default_rng(6), 3)))
    before = model.readout
    assert not model.refresh(lambda: True)
    assert model.readout is before
    assert model.refresh_due
    assert model.refresh()
    assert not model.refresh_due


def test_popular_items_come_by_degree_then_by_row(tmp_path):
    model = live_model(tmp_path)
    apply_all(model, [("x1", "i30"), ("x2", "i30"), ("x1", "fresh")])
    counts: dict[str, int] = dict.fromkeys(model.items.to_array().tolist(), 0)
    for _, item in model.edges():
        counts[item] += 1
    order = sorted(counts, key=lambda item: (-counts[item], model.items.require(item)))
    rows, degrees = model.popular(len(counts))
    assert [model.items.id_of(row) for row in rows.tolist()] == order
    assert degrees.tolist() == [counts[item] for item in order]


COMPILED = """
import importlib, pkgutil, sys
from pathlib import Path
import numpy as np
import model_store
from numba.core.dispatcher import Dispatcher
from service.index.flat import FlatIndex
from service.explanation.account import PARTS, Wanted, explain
from service.live.model import LiveModel, warm_up
from service.recommendation.recommender import popular, recommend, recommend_many, similar
from tests.service.worlds import apply_all, random_pairs
from tests.support.artifacts import World, publish_world

def kernels():
    modules = [m.name for m in pkgutil.iter_modules(model_store.__path__) if not m.name.startswith("__")]
    found = [v for m in modules for v in vars(importlib.import_module(f"model_store.{m}")).values()]
    return {f"{v.__module__}.{v.__name__}": len(v.signatures) for v in found if isinstance(v, Dispatcher)}

artifact = publish_world(Path(sys.argv[1]), World(n_layers=3))
warm_up()
before = kernels()
model = LiveModel(artifact, FlatIndex, start=0, refresh_every=5)
recommend(model, "u1", 5)
apply_all(model, random_pairs(np.random.default_rng(8), 12))
for user, item in random_pairs(np.random.default_rng(8), 12):
    recommend(model, user, 5), recommend_many(model, [(user, 5), ("u1", 5)]), similar(model, item, 5), popular(model, 5)
    explain(model, user, item, Wanted(frozenset(PARTS)))
after = kernels()
print({name: (before[name], after[name]) for name in before if before[name] != after[name]})
"""


def test_after_warm_up_nothing_is_compiled_by_requests_interactions_or_refreshes(tmp_path):
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", COMPILED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert ended.stdout.strip() == "{}", ended.stderr


def test_a_removal_ends_an_edge_of_the_artifact_or_of_the_log_in_the_log_s_order(tmp_path):
    model = live_model(tmp_path)
    before = model.edges()
    old = next(pair for pair in sorted(before) if pair[0] == "u3")
    fresh = ("u3", "fresh")
    model.apply(
        changed(
            1,
            Interaction(*fresh, 0.0),
            Change("removal", *fresh),
            Change("removal", *old),
            Change("removal", "nobody", "i1"),
            Change("removal", "u3", "unheard of"),
            Interaction(*fresh, 1.0),
        )
    )
    assert model.sequence == 6
    assert model.edges() == before - {old} | {fresh}
    model.apply(changed(7, Interaction(*old, 0.0), Change("removal", *fresh)))
    again = live_model(tmp_path / "again")
    assert model.edges() == again.edges() == before
    assert model.digest() == again.digest()


def test_an_erased_user_is_unknown_and_whoever_replays_what_is_left_has_the_same_bits(tmp_path):
    model, later = live_model(tmp_path), live_model(tmp_path / "later")
    begin = [Interaction("u3", "fresh", 0.0), Interaction("gone", "i1", 0.0), Interaction("gone", "rare", 0.0)]
    end = [Interaction("u4", "last", 0.0), Change("erasure", "gone"), Change("erasure", "u3")]
    model.apply(changed(1, *begin))
    assert model.user("gone") is not None
    model.settle()
    model.apply(changed(4, *end))
    assert model.user("gone") is None
    assert model.user("u3") is None
    assert not {user for user, _ in model.edges()} & {"gone", "u3"}
    left = [LogEntry(n, "", item, 0.0, "", None, "erased") for n, item in enumerate(["fresh", "i1", "rare"], 1)]
    later.apply([*left, *changed(4, *end)])
    assert later.digest() == model.digest()
    assert later.items.to_array().tolist() == model.items.to_array().tolist()  # rows break ties
    # Who comes back is new: nothing of the artifact's row is theirs.
    model.apply(changed(7, Interaction("u3", "i5", 0.0)))
    view = model.user("u3")
    assert view is not None
    assert (view.in_artifact, view.seen.tolist()) == (False, [model.items.row("i5")])


def test_records_and_withdrawals_leave_the_graph_alone(tmp_path):
    model = live_model(tmp_path)
    digest = model.digest()
    model.apply(
        changed(
            1,
            Change("item", item_id="x", content={}),
            Change("user", "y", content={}),
            Change("withdrawal", item_id="i1"),
        )
    )
    assert (model.sequence, model.digest()) == (3, digest)


def test_the_log_is_applied_beyond_a_refresh_that_is_due_and_the_refresh_is_that_of_its_place(tmp_path):
    pairs = random_pairs(np.random.default_rng(8), 29)
    behind, at_once = live_model(tmp_path, refresh_every=10), live_model(tmp_path, refresh_every=10)
    apply_all(at_once, pairs[:20])
    for entry in logged(pairs):
        behind.apply([entry])
    assert (behind.sequence, behind.readout.refreshed_at, behind.refresh_due) == (29, 0, True)
    assert 0 <= behind.settled_sequence < 29
    assert behind.settle_lag > 0
    behind.settle()  # works on the place of the refresh, so that it is not passed by
    assert behind.refresh()
    assert (behind.readout.refreshed_at, behind.refreshes, behind.refresh_due) == (20, 1, False)
    for name in ("neighbor_embeddings", "item_embeddings"):
        assert getattr(behind.readout, name).tobytes() == getattr(at_once.readout, name).tobytes()
    while behind.settle():
        pass
    assert (behind.settled_sequence, behind.settle_lag) == (29, 0.0)
    apply_all(at_once, pairs[20:])
    assert behind.digest() == at_once.digest()


def test_a_digest_is_that_of_its_place_of_the_log_and_moves_no_refresh(tmp_path):
    """Taken again and again while a follower applies and settles: refreshes stay at their places, bits are right."""
    state = MemoryState()
    model = live_model(tmp_path / "live", refresh_every=7)
    pairs = random_pairs(np.random.default_rng(3), 120)
    follower = Follower(model, state, poll_interval=0.001)
    follower.start()
    found: dict[int, str] = {}
    places: set[int] = set()
    for start in range(0, len(pairs), 3):
        state.append(interactions(pairs[start : start + 3]))
        follower.wake()
        sequence, digest = model.digest_at()
        found[sequence] = digest
        places.add(model.readout.refreshed_at)
    assert follower.wait_idle(30)
    follower.stop()
    assert follower.failure is None
    assert all(place % 7 == 0 for place in places), places
    assert model.digest_at()[0] == 120
    other = live_model(tmp_path / "other", refresh_every=7)
    for sequence in sorted(found):
        apply_all(other, pairs[other.sequence : sequence])
        assert other.digest() == found[sequence]
