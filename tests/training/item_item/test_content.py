from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from tests.training.worlds import clips
from training.data.dataset import KnowledgeGraph
from training.errors import ConfigurationError
from training.item_item import Content, tables
from training.item_item.content import half_whitened, nearest_items, unit_rows, weighted_entities

# Four items; `brand`: a, a, b, none; `word`: x for the first three, y for the second; no fact of the fourth.
GRAPH = KnowledgeGraph(
    item_rows=np.array([0, 0, 1, 1, 1, 2, 2], np.int32),
    relation_rows=np.array([0, 1, 0, 1, 1, 0, 1], np.int32),
    entity_rows=np.array([0, 2, 0, 2, 3, 1, 2], np.int32),
    entity_ids=np.array(["a", "b", "x", "y"]),
    relation_ids=np.array(["brand", "word"]),
)


def vectors(seed: int = 0) -> NDArray[np.float32]:
    """Twelve vectors, two of them missing."""
    found = np.random.default_rng(seed).standard_normal((12, 3)).astype(np.float32) * np.float32([9, 3, 1]) + 5
    found[[4, 7]] = 0
    return found


def test_half_whitening_takes_the_root_of_the_axes_spread_out_and_keeps_missing_items_at_zero() -> None:
    given = vectors()
    known = [row for row in range(12) if row not in (4, 7)]
    centered = given[known].astype(np.float64) - given[known].mean(0)
    left, spread, _ = np.linalg.svd(centered, full_matrices=False)
    expected = left * np.sqrt(spread)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = half_whitened(given)
    # Axes are free in order and sign; the cosines are not.
    np.testing.assert_allclose(found[known] @ found[known].T, expected @ expected.T, atol=1e-5)
    assert not found[[4, 7]].any()


def test_features_of_one_value_or_of_none_at_all_give_no_neighbors() -> None:
    for constant in (np.zeros((5, 2), np.float32), np.ones((5, 2), np.float32)):
        assert nearest_items(half_whitened(constant), 3).nnz == 0


def test_entities_weigh_by_their_rarity_and_rows_have_length_1() -> None:
    # `word` alone, of four items: x is known of three, y of one.
    x, y = math.log(4 / 3), math.log(4 / 1)
    found = weighted_entities(GRAPH, 4, "word").toarray()
    expected = [[1, 0], [x / math.hypot(x, y), y / math.hypot(x, y)], [1, 0], [0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_whole_graph_keeps_an_entity_of_two_relations_apart() -> None:
    twice = KnowledgeGraph(
        item_rows=np.array([0, 1], np.int32),
        relation_rows=np.array([0, 1], np.int32),
        entity_rows=np.array([0, 0], np.int32),
        entity_ids=np.array(["red"]),
        relation_ids=np.array(["brand", "color"]),
    )
    assert nearest_items(weighted_entities(twice, 3, None), 2).nnz == 0


def test_an_entity_that_every_item_has_says_nothing() -> None:
    everywhere = KnowledgeGraph(
        np.arange(3, dtype=np.int32), np.zeros(3, np.int32), np.zeros(3, np.int32), np.array(["x"]), np.array(["word"])
    )
    assert nearest_items(weighted_entities(everywhere, 3, None), 2).nnz == 0


@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_the_neighbors_are_the_largest_cosines_with_others(
    chunk: int, is_sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK", chunk)
    units = unit_rows(vectors(1) - 5)
    found = nearest_items(sparse.csr_array(units) if is_sparse else units, 3).toarray()
    for i in range(12):
        cosines = {j: float(units[i] @ units[j]) for j in range(12) if j != i}
        best = sorted(cosines, key=lambda j: -cosines[j])[:3]
        for j in range(12):
            expected = max(cosines[j], 0.0) if j in best else 0.0
            assert found[i, j] == pytest.approx(expected, abs=1e-6)


def test_likeness_is_symmetric_and_1_of_what_is_known_to_itself() -> None:
    found = Content(4, {}, GRAPH).sparse_likeness("relations", 1).toarray()
    units = weighted_entities(GRAPH, 4, None).toarray()
    cosines = units @ units.T
    np.testing.assert_array_equal(found, found.T)
    # The first two are each other's nearest, the third is nearest to the first; the fourth has no facts.
    pairs = {(0, 1), (2, 0) if cosines[2, 0] >= cosines[2, 1] else (2, 1)}
    for i in range(4):
        for j in range(4):
            is_there = i == j < 3 or (i, j) in pairs or (j, i) in pairs
            assert found[i, j] == pytest.approx(cosines[i, j] if is_there else 0.0, abs=1e-6)
    assert cosines[2, 0] > cosines[2, 1] > 0


def test_sources_are_each_modality_each_relation_and_both_kinds_united_where_there_are_several() -> None:
    two = {"visual": vectors(), "acoustic": vectors(1)}
    assert Content(12, {}, None).sources == ()
    assert Content(12, {"visual": vectors()}, None).sources == ("features.visual",)
    assert Content(12, two, GRAPH).sources == (
        "features.visual",
        "features.acoustic",
        "relation.brand",
        "relation.word",
        "features",
        "relations",
    )


def test_modalities_count_alike_when_they_are_united() -> None:
    two = {"visual": vectors(), "acoustic": vectors(1) * 1000}
    parts = [half_whitened(two[name]) for name in two]
    found = Content(12, two, None).vectors("features")
    # Half of the sum of the two cosines, where both are known.
    assert found[0] @ found[1] == pytest.approx(sum(float(p[0] @ p[1]) for p in parts) / 2, abs=1e-6)


def test_a_source_that_the_data_lacks_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'relation\.price', and the data has relation\.brand, relation\.word"
    ):
        Content(4, {}, GRAPH).table("relation.price", 3)
    with pytest.raises(ConfigurationError, match="neither features nor a graph"):
        Content(4, {}, None).table("features", 3)


def test_every_source_of_a_real_layout_gives_a_table_of_at_most_so_many_a_row() -> None:
    data = clips()
    content = Content(data.n_items, data.features, data.knowledge)
    assert len(content.sources) > 2
    for source in content.sources:
        table = content.table(source, 4)
        assert table.shape == (data.n_items, data.n_items)
        assert 0 < np.diff(table.indptr).max() <= 4
        assert table.data.min() > 0
        assert not table.diagonal().any()
