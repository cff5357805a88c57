"""A data set in memory: interactions of three splits, item features and a knowledge graph, in rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.str_]
Rows = NDArray[np.int32]


@dataclass(frozen=True)
class Interactions:
    """Pairs of a user and an item, in the order of the file.

    Attributes:
        user_rows: (n,) rows into the data set's `user_ids`.
        item_rows: (n,) rows into the data set's `item_ids`.
        timestamps: (n,) seconds since the epoch, or None where the set brings none.
        weights: (n,) how often the loss samples each beside 1, or None where all count alike. Graph, S and B are
            binary, whatever the weights.
    """

    user_rows: Rows
    item_rows: Rows
    timestamps: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.user_rows)

    @classmethod
    def empty(cls) -> Interactions:
        """No interactions at all."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.int32))

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Interactions:
        """The interactions at `index`, in that order."""
        times = None if self.timestamps is None else self.timestamps[index]
        weights = None if self.weights is None else self.weights[index]
        return Interactions(self.user_rows[index], self.item_rows[index], times, weights)

    def concatenate(self, other: Interactions) -> Interactions:
        """These interactions and then `other`'s. Timestamps survive only if both have them; no weights are ones."""
        times = None
        if self.timestamps is not None and other.timestamps is not None:
            times = np.concatenate([self.timestamps, other.timestamps])
        weights = None
        if self.weights is not None or other.weights is not None:
            weights = np.concatenate([np.ones(len(x)) if x.weights is None else x.weights for x in (self, other)])
        return Interactions(
            np.concatenate([self.user_rows, other.user_rows]),
            np.concatenate([self.item_rows, other.item_rows]),
            times,
            weights,
        )


@dataclass(frozen=True)
class KnowledgeGraph:
    """Triplets (item, relation, entity), unique and sorted by item row, then relation, then entity.

    Attributes:
        item_rows: (n,) heads, rows into the data set's `item_ids`.
        relation_rows: (n,) rows into `relation_ids`.
        entity_rows: (n,) tails, rows into `entity_ids`.
        entity_ids: (E,) external ids of the entities (their names, where the set names them).
        relation_ids: (R,) external ids of the relations.
    """

    item_rows: Rows
    relation_rows: Rows
    entity_rows: Rows
    entity_ids: Ids
    relation_ids: Ids

    def __len__(self) -> int:
        return len(self.item_rows)


@dataclass(frozen=True)
class DataSet:
    """A data set: everything that a model may learn from.

    Attributes:
        name: the set's name, as in its file names.
        user_ids: (I,) external ids in row order.
        item_ids: (J,) external ids in row order.
        train: the interactions to learn from.
        valid: the interactions to select on (may be empty).
        test: the interactions of the final figure (may be empty).
        knowledge: the knowledge graph, or None where the set brings none.
        features: modality → (J, width) float32, rows in the order of `item_ids`.
        item_names: (J,) a text to show for each item, or None where the set brings none.
        made_relations: relations of the graph whose entities were made from features (D1), where a version brings both.
    """

    name: str
    user_ids: Ids
    item_ids: Ids
    train: Interactions
    valid: Interactions = field(default_factory=Interactions.empty)
    test: Interactions = field(default_factory=Interactions.empty)
    knowledge: KnowledgeGraph | None = None
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    item_names: Ids | None = None
    made_relations: frozenset[str] = frozenset()

    @property
    def own_knowledge(self) -> KnowledgeGraph | None:
        """The knowledge graph without what was made from features; None where nothing else is there."""
        graph = self.knowledge
        if graph is None or not self.made_relations:
            return graph
        own = ~np.isin(graph.relation_ids, list(self.made_relations))[graph.relation_rows]
        if not own.any():
            return None
        rows = (graph.item_rows[own], graph.relation_rows[own], graph.entity_rows[own])
        return KnowledgeGraph(*rows, graph.entity_ids, graph.relation_ids)

    @property
    def n_users(self) -> int:
        """Number of users, I."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items, J."""
        return len(self.item_ids)
