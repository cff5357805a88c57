"""Entities from feature vectors (decision D1): a codebook for each modality, items linked to their nearest centroids.

The codebook is k-means with k-means++ seeding (Arthur and Vassilvitskii, 2007). It is written out here because
`scipy.cluster.vq.kmeans2(minit="++")` measures every row against all earlier seeds for each new one, which is quadratic
in the number of centroids: 12 s instead of well under 1 s for 256 centroids of 6,710 × 128.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.data.assembly import id_array, sorted_graph
from training.data.dataset import KnowledgeGraph
from training.errors import ConfigurationError

_Matrix = NDArray[np.float32]

_CELLS = 4_000_000  # cells of a distance table at once: 16 MB of float32


def entities_from_features(
    features: Mapping[str, _Matrix],
    *,
    n_centroids: Mapping[str, int] | int,
    n_nearest: int,
    seed: int,
    normalize: bool = True,
    sample_size: int = 50_000,
    n_iterations: int = 20,
) -> tuple[KnowledgeGraph, dict[str, _Matrix]]:
    """Make a knowledge graph out of feature vectors.

    For each modality the items' vectors are clustered; each item is linked, by a relation named after the modality, to
    the entities of its nearest centroids: `visual:17` is centroid 17 of `visual`. An item whose vector is all zeros
    (it has no content of that kind) gets no link. There are never more centroids than different vectors, and never
    more links of an item than centroids.

    Args:
        features: modality → (J, width), rows in the order of the items.
        n_centroids: the codebook's size, for all modalities or for each.
        n_nearest: links of each item in each modality.
        seed: of sampling and seeding; each modality draws from it on its own.
        normalize: scale vectors to length 1 first, so that distance means angle. Centroids are means of such vectors
            and are not scaled again.
        sample_size: at most so many items, drawn at random, shape the codebook; all are linked.
        n_iterations: at most so many rounds of k-means.

    Returns:
        The graph, with every centroid as an entity, and modality → (K, width) float32 centroids.

    Raises:
        ConfigurationError: a size is below 1, or a modality has no size.
    """
    if n_nearest < 1:
        raise ConfigurationError(f"n_nearest is {n_nearest}; it must be at least 1.")
    relation_ids = sorted(features)
    centroids: dict[str, _Matrix] = {}
    entity_ids: list[str] = []
    item_rows, relation_rows, entity_rows = [], [], []
    for relation_row, modality in enumerate(relation_ids):
        size = n_centroids if isinstance(n_centroids, int) else n_centroids.get(modality)
        if size is None or size < 1:
            raise ConfigurationError(f"n_centroids of {modality!r} is {size}; it must be at least 1.")
        vectors = np.asarray(features[modality], np.float32)
        items = np.flatnonzero(vectors.any(axis=1))
        vectors = vectors[items]
        if normalize:
            vectors = normalized(vectors)
        rng = np.random.default_rng([seed, *modality.encode()])
        book = k_means(vectors, size, rng, sample_size=sample_size, n_iterations=n_iterations)
        centroids[modality] = book
        links = nearest(vectors, book, min(n_nearest, len(book)))
        item_rows.append(np.repeat(items, links.shape[1]))
        relation_rows.append(np.full(links.size, relation_row))
        entity_rows.append(links.ravel() + len(entity_ids))
        entity_ids += [f"{modality}:{number}" for number in range(len(book))]
    heads, relations, tails = (
        np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int32)
        for rows in (item_rows, relation_rows, entity_rows)
    )
    return sorted_graph(heads, relations, tails, id_array(entity_ids), id_array(relation_ids)), centroids


def normalized(vectors: _Matrix) -> _Matrix:
    """Rows scaled to length 1, (n, width); rows of zeros stay zeros."""
    # Twice: the largest entry first, so that the squares of very large or small entries stay in range.
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = vectors / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(scaled / np.where(lengths > 0, lengths, 1), np.float32)


def k_means(
    vectors: _Matrix, n_centroids: int, rng: np.random.Generator, *, sample_size: int = 50_000, n_iterations: int = 20
) -> _Matrix:
    """Centroids of `vectors` by Lloyd's iterations from a k-means++ seeding.

    A centroid that no vector is nearest to takes the place of a vector that is farthest from its own centroid.

    Args:
        vectors: (n, width).
        n_centroids: how many; fewer come out where the sample has fewer different vectors.
        rng: what is random.
        sample_size: at most so many vectors, drawn at random, are looked at.
        n_iterations: at most so many rounds.

    Returns:
        (K, width) float32.
    """
    if len(vectors) > sample_size:
        vectors = vectors[np.sort(rng.choice(len(vectors), sample_size, replace=False))]
    centroids = _seeds(vectors, n_centroids, rng)
    labels = np.full(len(vectors), -1)
    for _ in range(n_iterations):
        before, labels = labels, nearest(vectors, centroids, 1)[:, 0]
        if np.array_equal(before, labels):
            break
        order = np.argsort(labels, kind="stable")
        there, starts = np.unique(labels[order], return_index=True)
        sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
        counts = np.diff(starts, append=len(order))
        empty = np.setdiff1d(np.arange(len(centroids)), there)
        if len(empty):
            away = ((vectors - centroids[labels]) ** 2).sum(axis=1)
            centroids[empty] = vectors[np.argsort(-away, kind="stable")[: len(empty)]]
        centroids[there] = sums / counts[:, None]
    return centroids


def nearest(vectors: _Matrix, centroids: _Matrix, k: int) -> NDArray[np.int64]:
    """The `k` nearest centroids of each vector, the nearest first; of equally near ones the lower number.

    The table of distances is made in chunks, so memory does not grow with n × K.

    Args:
        vectors: (n, width).
        centroids: (K, width), K ≥ k.
        k: how many.

    Returns:
        (n, k) rows of `centroids`.
    """
    found = np.zeros((len(vectors), k), np.int64)
    # ‖v - c‖² = ‖v‖² - 2 v·c + ‖c‖², and ‖v‖² is the same for every c.
    lengths = (centroids.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    step = max(1, _CELLS // max(1, len(centroids)))
    for start in range(0, len(vectors), step):
        distances = lengths - 2 * (vectors[start : start + step] @ centroids.T)
        chunk = np.arange(len(distances))
        for place in range(k):
            closest = distances.argmin(axis=1)
            found[start : start + step, place] = closest
            distances[chunk, closest] = np.inf
    return found


def merge(a: KnowledgeGraph | None, b: KnowledgeGraph) -> KnowledgeGraph:
    """Both graphs as one over the same items: entities and relations with the same id are the same.

    Rows of `a`'s entities and relations stay, those that only `b` names follow.
    """
    if a is None:
        return b
    entity_ids, entity_rows = _united(a.entity_ids, b.entity_ids)
    relation_ids, relation_rows = _united(a.relation_ids, b.relation_ids)
    return sorted_graph(
        np.concatenate([a.item_rows, b.item_rows]),
        np.concatenate([a.relation_rows, relation_rows[b.relation_rows]]),
        np.concatenate([a.entity_rows, entity_rows[b.entity_rows]]),
        id_array(entity_ids),
        id_array(relation_ids),
    )


def _united(first: NDArray[np.str_], second: NDArray[np.str_]) -> tuple[list[str], NDArray[np.int32]]:
    index = {name: row for row, name in enumerate(first.tolist())}
    rows = [index.setdefault(name, len(index)) for name in second.tolist()]
    return list(index), np.array(rows, np.int32)


def _seeds(vectors: _Matrix, n_centroids: int, rng: np.random.Generator) -> _Matrix:
    # k-means++: each next seed is drawn with a probability in proportion to its squared distance to the nearest seed.
    chosen: list[int] = []
    away = np.ones(len(vectors))
    while len(chosen) < n_centroids and away.sum() > 0:
        steps = np.cumsum(away)
        row = int(np.searchsorted(steps, rng.random() * steps[-1], side="right"))
        chosen.append(row)
        # Differences and not the expanded square: equal vectors must come out at exactly 0.
        away = np.minimum(away if len(chosen) > 1 else np.inf, ((vectors - vectors[row]) ** 2).sum(axis=1))
    return vectors[chosen].astype(np.float32)
