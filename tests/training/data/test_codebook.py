import numpy as np
import pytest

from training.data.codebook import entities_from_features, k_means, merge, nearest, normalized
from training.data.dataset import KnowledgeGraph
from training.errors import ConfigurationError


def rows(*values):
    return np.array(values, np.int32)


def facts(graph):
    return {
        (int(item), str(graph.relation_ids[relation]), str(graph.entity_ids[entity]))
        for item, relation, entity in zip(graph.item_rows, graph.relation_rows, graph.entity_rows, strict=True)
    }


def blobs(seed=0, n=60):
    """Three groups of rows around (10, 0), (0, 10) and (-10, -10), in turn."""
    centres = np.array([[10, 0], [0, 10], [-10, -10]], np.float32)
    noise = np.random.default_rng(seed).normal(0, 0.1, (n, 2))
    return (centres[np.arange(n) % 3] + noise).astype(np.float32)


def test_items_of_one_group_share_an_entity_and_groups_do_not():
    graph, centroids = entities_from_features({"visual": blobs()}, n_centroids=3, n_nearest=1, seed=0)
    assert graph.relation_ids.tolist() == ["visual"]
    assert graph.entity_ids.tolist() == ["visual:0", "visual:1", "visual:2"]
    assert graph.item_rows.tolist() == list(range(60))
    groups = [set(graph.entity_rows[group::3].tolist()) for group in range(3)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 3
    assert centroids["visual"].dtype == np.float32


def test_the_nearest_centroids_agree_with_a_double_loop():
    rng = np.random.default_rng(0)
    vectors, centroids = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    expected = [
        sorted(range(7), key=lambda c: sum((float(v[a]) - float(centroids[c][a])) ** 2 for a in range(5)))[:3]
        for v in vectors
    ]
    assert nearest(vectors, centroids, 3).tolist() == expected
    assert nearest(vectors, centroids, 1)[:, 0].tolist() == [e[0] for e in expected]


def test_an_item_without_content_gets_no_link():
    features = blobs()
    features[4] = 0
    graph, _ = entities_from_features({"visual": features}, n_centroids=3, n_nearest=2, seed=0)
    assert 4 not in graph.item_rows
    assert len(graph) == 59 * 2


def test_there_are_never_more_centroids_than_different_vectors():
    features = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    graph, centroids = entities_from_features({"text": features}, n_centroids=10, n_nearest=5, seed=0)
    assert len(centroids["text"]) == 2
    assert len(graph) == 4 * 2


def test_lengths_count_only_where_vectors_are_not_normalized():
    features = np.array([[1, 0], [100, 0]], np.float32)
    options = {"n_centroids": 2, "n_nearest": 1, "seed": 0}
    assert len(entities_from_features({"a": features}, **options)[1]["a"]) == 1
    assert len(entities_from_features({"a": features}, **options, normalize=False)[1]["a"]) == 2


def test_normalized_rows_have_length_one_and_zeros_stay():
    values = normalized(np.array([[3, 4], [0, 0], [1e-30, 0], [3e30, 4e30]], np.float32))
    np.testing.assert_allclose(values, [[0.6, 0.8], [0, 0], [1, 0], [0.6, 0.8]], rtol=1e-6)


def test_the_seed_decides_and_one_modality_does_not_move_another():
    both = {"visual": blobs(), "text": blobs(1)}
    first = entities_from_features(both, n_centroids={"visual": 5, "text": 4}, n_nearest=2, seed=1)
    second = entities_from_features(both, n_centroids={"visual": 5, "text": 4}, n_nearest=2, seed=1)
    alone = entities_from_features({"visual": both["visual"]}, n_centroids=5, n_nearest=2, seed=1)
    assert facts(first[0]) == facts(second[0])
    np.testing.assert_array_equal(first[1]["visual"], alone[1]["visual"])
    assert first[0].entity_ids.tolist() == [f"text:{n}" for n in range(4)] + [f"visual:{n}" for n in range(5)]


def test_a_sample_shapes_the_codebook_and_every_item_is_linked():
    graph, centroids = entities_from_features({"v": blobs(n=300)}, n_centroids=3, n_nearest=1, seed=0, sample_size=30)
    assert len(graph) == 300
    assert len(centroids["v"]) == 3


def test_centroids_are_the_means_of_their_members():
    vectors = blobs()
    book = k_means(vectors, 3, np.random.default_rng(0))
    members = nearest(vectors, book, 1)[:, 0]
    for number in range(3):
        np.testing.assert_allclose(book[number], vectors[members == number].mean(axis=0), atol=1e-5)


def test_no_centroid_stays_empty():
    vectors = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    book = k_means(vectors, 60, np.random.default_rng(0))
    assert len(np.unique(nearest(vectors, book, 1))) == 60


@pytest.mark.parametrize("wrong", [{"n_centroids": 0}, {"n_nearest": 0}, {"n_centroids": {"text": 3}}])
def test_sizes_out_of_bounds_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        entities_from_features({"visual": blobs()}, **{"n_centroids": 3, "n_nearest": 1, "seed": 0, **wrong})


def test_no_modality_makes_an_empty_graph():
    graph, centroids = entities_from_features({}, n_centroids=3, n_nearest=1, seed=0)
    assert (len(graph), len(graph.entity_ids), centroids) == (0, 0, {})
    graph, _ = entities_from_features({"v": np.zeros((3, 2), np.float32)}, n_centroids=3, n_nearest=1, seed=0)
    assert len(graph) == 0


def test_merged_graphs_share_entities_and_relations_of_the_same_id():
    a = KnowledgeGraph(rows(0, 2), rows(0, 0), rows(0, 1), np.array(["x", "y"]), np.array(["by"]))
    b = KnowledgeGraph(rows(0, 0), rows(0, 1), rows(1, 0), np.array(["z", "x"]), np.array(["by", "visual"]))
    both = merge(a, b)
    assert facts(both) == {(0, "by", "x"), (2, "by", "y"), (0, "visual", "z")}
    assert len(both) == 3
    assert both.entity_ids.tolist() == ["x", "y", "z"]
    assert merge(None, b) is b
