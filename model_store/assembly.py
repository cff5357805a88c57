"""Putting an artifact together: from the serving form and the graph to the arrays that are published."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.attention import AttentionState
from model_store.item_item import ItemItemTable
from model_store.serving_form import ServingForm


def model_arrays(
    user_ids: NDArray[np.str_],
    item_ids: NDArray[np.str_],
    form: ServingForm,
    state: AttentionState,
    table: ItemItemTable,
) -> dict[str, NDArray[Any]]:
    """The arrays that every artifact holds, Z and T computed by the kernel that the service refreshes them with.

    Args:
        user_ids: (I,) external ids in row order.
        item_ids: (J,) external ids in row order.
        form: the serving form.
        state: the attention state of the training graph.
        table: B.
    """
    arrays: dict[str, NDArray[Any]] = dict(state.to_arrays())
    adjacency: Adjacency = state.snapshot()
    neighbor_embeddings = form.neighbor_embeddings(adjacency)
    nodes = np.arange(adjacency.n_nodes, dtype=np.int32)
    embeddings = form.embeddings(nodes, adjacency, neighbor_embeddings)
    arrays |= {
        "user_ids": user_ids,
        "item_ids": item_ids,
        "user_embeddings": embeddings[: form.n_users],
        "item_embeddings": embeddings[form.n_users :],
        "neighbor_embeddings": neighbor_embeddings,
        "form.base": form.base,
        "form.alpha": form.alpha,
    }
    if form.constant is not None:
        arrays["form.constant"] = form.constant
    if table.n_rows:
        arrays |= {
            "item_item.indptr": table.indptr,
            "item_item.indices": table.indices,
            "item_item.data": table.data,
        }
    return arrays
