"""The paths behind a contribution's link and attention part: user → item → another user ⇢ the explained item.

L̄_ui T_i · Z_v = own + Σ_m L̄_ui L̄_im T'_m · Z_v        (`model_store.contributions.steps`)
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from model_store.contributions import steps
from service.explanation.names import Names
from service.live.model import LiveModel
from service.live.readout import Explained

# Contributions whose paths are followed, and users named for each.
ITEMS = 10
USERS = 5


class PathUser(TypedDict):
    """A user on the way: met the contributing item, and perhaps the explained one. The explained user is one, too."""

    user_id: str
    amount: float
    similarity: float
    met_item: bool


class ItemPaths(TypedDict):
    """The link and attention part of one contribution: own + Σ users + rest = sum."""

    item_id: str
    name: str | None
    own: float
    users: list[PathUser]
    n_users: int
    rest: float
    sum: float


class Paths(TypedDict):
    """The link and attention parts of all contributions: Σ items + rest = sum."""

    items: list[ItemPaths]
    rest: float
    sum: float


def paths(model: LiveModel, found: Explained, item_row: int, names: Names) -> Paths:
    """The paths of the largest contributions, in the graph that T was computed from."""
    view, parts = found.view, found.parts
    readout = view.readout
    adjacency = readout.adjacency
    amounts = parts.link + parts.attention
    total = float(amounts.sum())
    listed: list[ItemPaths] = []
    if item_row < readout.n_items:
        vector = readout.item_embeddings[item_row]
        item_node = int(found.item_nodes[item_row])
        # An item that came since T was computed has a vector, and no neighbors in that graph yet.
        begin, n_met = 0, 0
        if item_node < adjacency.n_nodes:
            begin, n_met = int(adjacency.starts[item_node]), int(adjacency.lengths[item_node])
        met = adjacency.neighbors[begin : begin + n_met]
        for i in np.argsort(-np.abs(amounts), kind="stable")[:ITEMS].tolist():
            found_steps = steps(view.readout.form, adjacency, int(view.neighbors[i]), vector)
            each = parts.weight[i] * found_steps.amounts
            users: list[PathUser] = []
            for n in np.argsort(-np.abs(each), kind="stable").tolist():
                node = int(found_steps.nodes[n])
                user_id = model.users.id_of(int(found.node_rows[node]))
                if not user_id:  # erased since
                    continue
                users.append(
                    {
                        "user_id": user_id,
                        "amount": float(each[n]),
                        "similarity": float(found_steps.similarity[n]),
                        "met_item": bool((met == node).any()),
                    }
                )
                if len(users) == USERS:
                    break
            own = float(parts.weight[i]) * found_steps.own
            row = int(view.seen[i])
            amount = float(amounts[i])
            listed.append(
                {
                    "item_id": names.id_of(row),
                    "name": names.name_of(row),
                    "own": own,
                    "users": users,
                    "n_users": len(found_steps.nodes),
                    "rest": amount - own - sum(user["amount"] for user in users),
                    "sum": amount,
                }
            )
    return {"items": listed, "rest": total - sum(item["sum"] for item in listed), "sum": total}
