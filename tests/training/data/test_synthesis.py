import time

import numpy as np
import pytest

from training.data.fingerprint import fingerprint
from training.data.split import SplitSettings, split
from training.data.synthesis import START, synthesize
from training.errors import ConfigurationError


@pytest.fixture(scope="module")
def data():
    return synthesize()


def test_the_sizes_and_ids_are_as_asked_for(data):
    assert (data.n_users, data.n_items) == (600, 400)
    assert data.user_ids[[0, -1]].tolist() == ["u0001", "u0600"]
    assert data.item_ids[[0, -1]].tolist() == ["clip-0001", "clip-0400"]
    assert data.features["visual"].shape == (400, 64)
    assert data.features["text"].shape == (400, 48)
    assert {values.dtype for values in data.features.values()} == {np.dtype(np.float32)}


def test_ids_grow_with_the_catalogue():
    assert synthesize(20_000, 12_345, mean_interactions=1).item_ids[0] == "clip-00001"


def test_the_seed_decides(data):
    assert fingerprint(synthesize()) == fingerprint(data)
    assert fingerprint(synthesize(seed=1)) != fingerprint(data)


def test_pairs_are_unique_and_every_user_has_one(data):
    pairs = set(zip(data.train.user_rows.tolist(), data.train.item_rows.tolist(), strict=True))
    assert len(pairs) == len(data.train)
    assert len(np.unique(data.train.user_rows)) == 600


def test_the_log_runs_in_time_over_some_months(data):
    times = data.train.timestamps
    assert (np.diff(times) >= 0).all()
    assert START <= times[0] < times[-1] < START + 180 * 86_400
    assert (times == np.floor(times)).all()
    later = split(data)
    assert later.train.timestamps.max() <= later.valid.timestamps.min() <= later.test.timestamps.min()


def test_popularity_has_a_long_tail(data):
    counts = np.sort(np.bincount(data.train.item_rows, minlength=400))[::-1]
    assert counts[:80].sum() > 0.4 * counts.sum()  # a fifth of the items has twice its share


def test_titles_are_readable_and_different(data):
    titles = data.item_names.tolist()
    assert len(set(titles)) == 400
    assert all(title.isprintable() and " " in title for title in titles)


def test_the_graph_names_genres_creators_and_keywords(data):
    graph = data.knowledge
    assert sorted(graph.relation_ids.tolist()) == ["creator", "genre", "keyword"]
    relation_of = {}
    for relation, entity in zip(graph.relation_rows, graph.entity_rows, strict=True):
        relation_of[str(graph.entity_ids[entity])] = str(graph.relation_ids[relation])
    assert all(entity.startswith(relation + ":") for entity, relation in relation_of.items())
    assert "genre:Noir" in relation_of
    for relation in range(3):
        assert len(np.unique(graph.item_rows[graph.relation_rows == relation])) == 400
    order = np.lexsort((graph.entity_rows, graph.relation_rows, graph.item_rows))
    assert order.tolist() == list(range(len(graph)))


def genres(data):
    """(J, G): which genres an item has."""
    graph = data.knowledge
    relation = graph.relation_ids.tolist().index("genre")
    there = np.zeros((data.n_items, len(graph.entity_ids)))
    of_genre = graph.relation_rows == relation
    there[graph.item_rows[of_genre], graph.entity_rows[of_genre]] = 1
    return there[:, there.any(axis=0)]


def test_users_have_a_taste_that_the_graph_tells(data):
    # Two items of one user share a genre far more often than two items of different users.
    there = genres(data)
    rng = np.random.default_rng(0)
    order = np.argsort(data.train.user_rows, kind="stable")
    users, items = data.train.user_rows[order], data.train.item_rows[order]
    same_user = np.flatnonzero(np.diff(users) == 0)
    own = (there[items[same_user]] * there[items[same_user + 1]]).any(axis=1).mean()
    others = (there[items] * there[rng.permutation(items)]).any(axis=1).mean()
    assert own > 1.5 * others


def test_features_tell_the_theme(data):
    # The most similar other item by features shares a genre more often than chance would have it.
    there = genres(data)
    for values in data.features.values():
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -1)
        found = (there * there[similarity.argmax(axis=1)]).any(axis=1).mean()
        chance = ((there @ there.T) > 0).mean()
        assert found > 2 * chance


def test_what_users_share_foretells_the_held_out_better_than_popularity(data):
    # Item-item counts (cosine) against popularity, Recall@20 over a random split.
    parts = split(data, SplitSettings(strategy="leave_out", valid_share=0, leave_out=2))
    seen = np.zeros((600, 400))
    seen[parts.train.user_rows, parts.train.item_rows] = 1
    wanted = np.zeros((600, 400))
    wanted[parts.test.user_rows, parts.test.item_rows] = 1
    popularity = seen.sum(axis=0)
    cosine = (seen.T @ seen) / np.sqrt(np.outer(popularity + 1, popularity + 1))
    np.fill_diagonal(cosine, 0)

    def recall(scores):
        top = np.argsort(-np.where(seen > 0, -np.inf, scores), axis=1, kind="stable")[:, :20]
        return np.take_along_axis(wanted, top, axis=1).sum() / wanted.sum()

    assert recall(seen @ cosine) > 1.5 * recall(np.tile(popularity, (600, 1)))


@pytest.mark.parametrize("sizes", [(1, 1), (1, 50), (50, 1), (3, 7)])
def test_small_sets_can_be_made(sizes):
    data = synthesize(*sizes)
    assert (data.n_users, data.n_items) == sizes
    assert len(np.unique(data.train.user_rows)) == sizes[0]


@pytest.mark.parametrize("wrong", [{"n_users": 0}, {"n_items": 0}, {"noise": 2.0}, {"seed": -1}, {"days": 0}])
def test_sizes_out_of_bounds_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        synthesize(**wrong)


def test_twenty_thousand_users_take_no_longer_than_ten_seconds():
    start = time.perf_counter()
    synthesize(20_000, 8_000)
    assert time.perf_counter() - start < 10
