"""What a service was told of items (their records) as data to train on: new items, facts and feature vectors.

What a record says is added to what the data know; a fact that a record no longer names stays. A record of another form
than the service writes may have been imported: what can't be read of it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.admission import is_vector
from training.data.assembly import id_array, sorted_graph
from training.data.codebook import nearest, normalized
from training.data.dataset import DataSet, KnowledgeGraph

Contents = Mapping[str, Mapping[str, Any]]


def with_records(
    data: DataSet, contents: Contents, codebooks: Mapping[str, NDArray[np.float32]], n_nearest: int
) -> DataSet:
    """The data with what records say of their items, which all have rows.

    A graph, features or names that the data lack are not begun: a handful of records says nothing of the other items.

    Args:
        data: the data set.
        contents: item id → record.
        codebooks: modality → centroids, for entities made from features (D1).
        n_nearest: centroids that an item is linked to.
    """
    rows = {item_id: row for row, item_id in enumerate(data.item_ids.tolist())}
    told = {rows[item_id]: content for item_id, content in contents.items()}
    features = {modality: vectors.copy() for modality, vectors in data.features.items()}
    triplets: list[tuple[int, str, str]] = []
    for row, content in told.items():
        triplets += [(row, relation, entity) for relation, entity in _facts(content)]
        for modality, vector in _vectors(content).items():
            if modality in features and len(vector) == features[modality].shape[1]:
                features[modality][row] = vector
            book = codebooks.get(modality)
            if book is not None and len(vector) == book.shape[1]:
                links = nearest(normalized(vector[None]), book, min(n_nearest, len(book)))[0]
                triplets += [(row, modality, f"{modality}:{centroid}") for centroid in links.tolist()]
    names = data.item_names
    if names is not None:
        texts = names.tolist()
        for row, content in told.items():
            name = content.get("name")
            texts[row] = name if isinstance(name, str) else texts[row]
        names = np.array(texts, np.str_)
    knowledge = data.knowledge if data.knowledge is None else _with_triplets(data.knowledge, triplets)
    return replace(data, features=features, item_names=names, knowledge=knowledge)


def _with_triplets(graph: KnowledgeGraph, triplets: list[tuple[int, str, str]]) -> KnowledgeGraph:
    """The graph with more triplets (item row, relation id, entity id); what they name anew follows in their order."""
    relations, entities = (
        {name: row for row, name in enumerate(ids.tolist())} for ids in (graph.relation_ids, graph.entity_ids)
    )
    more = np.array(
        [
            (row, relations.setdefault(r, len(relations)), entities.setdefault(e, len(entities)))
            for row, r, e in triplets
        ],
        np.int32,
    ).reshape(-1, 3)
    return sorted_graph(
        np.concatenate([graph.item_rows, more[:, 0]]),
        np.concatenate([graph.relation_rows, more[:, 1]]),
        np.concatenate([graph.entity_rows, more[:, 2]]),
        id_array(list(entities)),
        id_array(list(relations)),
    )


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    entities = content.get("entities")
    pairs = [
        (entry.get("relation"), entry.get("entity"))
        for entry in (entities if isinstance(entities, list) else [])
        if isinstance(entry, Mapping)
    ]
    return [(r, e) for r, e in pairs if isinstance(r, str) and isinstance(e, str)]


def _vectors(content: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The record's feature vectors that say something."""
    features = content.get("features")
    found = {}
    for modality, values in (features if isinstance(features, Mapping) else {}).items():
        if is_vector(values):
            vector = np.array(values, np.float32)
            if vector.any():
                found[str(modality)] = vector
    return found
