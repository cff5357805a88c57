"""Tables of look-alikes: items near each other by their content, whoever interacted with them.

A source is one modality's feature vectors (`features.visual`), all of them (`features`), one relation of the knowledge
graph (`relation.brand`) or the whole graph (`relations`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.data.dataset import KnowledgeGraph
from training.errors import ConfigurationError
from training.item_item import tables

Vectors = NDArray[np.float32] | sparse.csr_array

# Directions whose variance is below this share of the largest are noise (float16 features): not to be blown up.
_SMALLEST_VARIANCE = 1e-6


class Content:
    """What is known about the items besides who interacted with them, as sources of tables."""

    def __init__(
        self, n_items: int, features: Mapping[str, NDArray[np.float32]], knowledge: KnowledgeGraph | None
    ) -> None:
        """Keep the features, modality → (J, width), and the graph; nothing is computed yet."""
        self._n_items, self._features, self._knowledge = n_items, dict(features), knowledge
        self._tables: dict[tuple[str, int], sparse.csr_array] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources; `features` and `relations` only where they unite several."""
        graph = self._knowledge
        features = [f"features.{modality}" for modality in self._features]
        relations = [f"relation.{graph.relation_ids[row]}" for row in np.unique(graph.relation_rows)] if graph else []
        united = [name for name, parts in (("features", features), ("relations", relations)) if len(parts) > 1]
        return (*features, *relations, *united)

    def vectors(self, source: str) -> Vectors:
        """(J, width) vectors of length 1, or 0 where nothing is known.

        Raises:
            ConfigurationError: the data has no such source.
        """
        if source not in self.sources:
            there = ", ".join(self.sources) or "neither features nor a graph"
            raise ConfigurationError(
                f"item_item.content = {source!r}, and the data has {there}: name one of these, auto or none."
            )
        kind, _, name = source.partition(".")
        if kind == "features":
            parts = [half_whitened(self._features[m]) for m in ([name] if name else self._features)]
            return unit_rows(np.concatenate(parts, axis=1))
        assert self._knowledge is not None  # noqa: S101
        return weighted_entities(self._knowledge, self._n_items, name or None)

    def table(self, source: str, n_neighbors: int) -> sparse.csr_array:
        """(J, J) the nearest neighbors of each item by one source; made once and kept."""
        if (source, n_neighbors) not in self._tables:
            self._tables[source, n_neighbors] = nearest_items(self.vectors(source), n_neighbors)
        return self._tables[source, n_neighbors]

    def sparse_likeness(self, source: str, n_neighbors: int) -> sparse.csr_array:
        """(J, J) the cosines of one source where either item is among the other's nearest, and 1 of each to itself."""
        nearest = self.table(source, n_neighbors)
        vectors = self.vectors(source)
        squares = vectors * vectors
        known = np.asarray(squares.sum(axis=1)).ravel() > 0
        either = nearest.maximum(sparse.csr_array(nearest.T))
        return sparse.csr_array(either + sparse.diags_array(known.astype(np.float32))).astype(np.float32)


def half_whitened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centered vectors with the square root of their principal axes' spread taken out, of length 1.

    X V s^(-1/2), X = U s Vᵀ: between the raw cosine, where a few axes decide, and full whitening, where noise does. On
    tiktok's visual vectors better than either. Rows of zeros (nothing is known) stay zero and don't count.
    """
    known = np.abs(vectors).max(axis=1, initial=0.0) > 0
    result = np.zeros(vectors.shape, np.float32)
    if not known.any():
        return result
    rows = vectors[known].astype(np.float64)
    rows -= rows.mean(axis=0)
    variances, axes = np.linalg.eigh(rows.T @ rows)
    kept = variances > _SMALLEST_VARIANCE * max(variances[-1], 1e-300)
    projected = rows @ axes[:, kept] * variances[kept] ** -0.25
    result[known, : projected.shape[1]] = unit_rows(projected.astype(np.float32))
    return result


def weighted_entities(graph: KnowledgeGraph, n_items: int, relation: str | None) -> sparse.csr_array:
    """(J, E) rows of the items' entities, each log(J / its number of items), of length 1; of one relation or of all."""
    chosen = np.ones(len(graph), np.bool_)
    if relation is not None:
        chosen = graph.relation_rows == np.flatnonzero(graph.relation_ids == relation)[0]
    columns = graph.entity_rows[chosen].astype(np.int64)
    if relation is None:  # an entity of two relations is two
        columns = graph.relation_rows.astype(np.int64) * len(graph.entity_ids) + columns
    names, columns = np.unique(columns, return_inverse=True)
    weights = np.log(n_items / np.bincount(columns, minlength=len(names)))
    rows = graph.item_rows[chosen]
    matrix = sparse.csr_array((weights[columns], (rows, columns)), shape=(n_items, len(names)))
    lengths = np.sqrt(np.asarray((matrix * matrix).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1 / np.where(lengths > 0, lengths, 1.0)) @ matrix).astype(np.float32)


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), np.float32)


def likeness(vectors: Vectors, begin: int, end: int) -> NDArray[np.float32]:
    """(end - begin, J) cosines of some items to all."""
    block = vectors[begin:end] @ vectors.T
    return np.asarray(block.toarray() if sparse.issparse(block) else block, np.float32)


def nearest_items(vectors: Vectors, n_neighbors: int) -> sparse.csr_array:
    """(J, J) cosines of each item's nearest neighbors, positive ones alone, zero diagonal; chunk by chunk.

    Args:
        vectors: (J, width) of length 1 or 0.
        n_neighbors: most neighbors of an item.
    """
    parts = []
    for begin in range(0, vectors.shape[0], tables.CHUNK):
        dense = likeness(vectors, begin, begin + tables.CHUNK)
        own = np.arange(len(dense))
        dense[own, begin + own] = 0.0
        parts.append(_any_largest(dense, n_neighbors))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def _any_largest(dense: NDArray[np.float32], per_row: int) -> sparse.csr_array:
    """The largest positive entries of each row, whichever of equal ones.

    Items of a graph have many equal cosines: the first of them by column would make a few items everybody's
    look-alikes.
    """
    per_row = min(per_row, dense.shape[1])
    columns = np.argpartition(-dense, per_row - 1, axis=1)[:, :per_row]
    kept = np.zeros(dense.shape, np.bool_)
    np.put_along_axis(kept, columns, True, axis=1)
    return sparse.csr_array(np.where(kept, np.maximum(dense, 0), 0))
