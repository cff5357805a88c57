"""Small worlds for the service's tests, and what they should compute: by dense matrices, in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_store.artifact import Artifact
from model_store.attention import AttentionState
from model_store.graph import InteractionGraph
from model_store.keys import node_keys
from service.errors import StateError
from service.index.exact import ExactIndex
from service.live.model import LiveModel
from service.state.entries import entry_of, row_of
from service.state.memory import MemoryState
from service.state.port import Change, Interaction, LogEntry
from tests.support.artifacts import World, publish_world

Pair = tuple[str, str]


def live_model(root: Path, world: World | None = None, *, refresh_every: int = 10) -> LiveModel:
    return LiveModel(publish_world(root, world), ExactIndex, start=0, refresh_every=refresh_every)


def logged(pairs: list[Pair], first: int = 1) -> list[LogEntry]:
    return [LogEntry(first + n, user, item, 0.0) for n, (user, item) in enumerate(pairs)]


def changed(first: int, *entries: Interaction | Change) -> list[LogEntry]:
    """What a log says of these entries."""
    return [entry_of(first + n, row_of(entry)) for n, entry in enumerate(entries)]


def interactions(pairs: list[Pair]) -> list[Interaction]:
    return [Interaction(user, item, 0.0) for user, item in pairs]


def random_pairs(rng: np.random.Generator, count: int, *, n_users: int = 36, n_items: int = 46) -> list[Pair]:
    """Interactions of users and items of the default world, and of some that are new."""
    return [(f"u{rng.integers(n_users)}", f"i{rng.integers(n_items)}") for _ in range(count)]


def apply_all(model: LiveModel, pairs: list[Pair], batch: int = 7) -> None:
    """Apply the whole log as a follower would: in batches, split at the refreshes."""
    events = logged(pairs, model.sequence + 1)
    while events:
        take = min(batch, model.until_refresh)
        model.apply(events[:take])
        events = events[take:]
        if model.refresh_due:
            model.refresh()


class LosingState(MemoryState):
    """A log that can lose its tail, as a server does that comes back from an older file, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    def lose(self, *, upto, grown_by=()):
        """Lose the tail; nobody reads before the log has grown again."""
        with self._lock:
            del self._log[upto:]
            self._log.extend(map(row_of, grown_by))

    def _rows(self, after, limit):
        if self.away:
            raise StateError("away")
        return super()._rows(after, limit)


@dataclass
class Dense:
    """The serving form written out: Z = C + Σ α_l L̄^l X over the graph of an artifact and more pairs."""

    user_ids: list[str]
    item_ids: list[str]
    graph: InteractionGraph
    laplacian: np.ndarray
    base: np.ndarray
    neighbor_embeddings: np.ndarray
    embeddings: np.ndarray

    @classmethod
    def of(cls, artifact: Artifact, pairs: list[Pair]) -> Dense:
        manifest = artifact.manifest
        users, items = artifact.array("user_ids").tolist(), artifact.array("item_ids").tolist()
        rows, columns = (part.tolist() for part in artifact.graph().pairs())
        for user, item in pairs:
            if user not in users:
                users.append(user)
            if item not in items:
                items.append(item)
            rows.append(users.index(user))
            columns.append(items.index(item))
        graph = InteractionGraph.from_pairs(
            np.array(rows), np.array(columns), node_keys("user", users), node_keys("item", items)
        )
        snapshot = AttentionState.build(graph, artifact.walks).snapshot()
        n = graph.n_nodes
        loops = int(manifest.self_loops)
        laplacian = np.zeros((n, n))
        for node in range(n):
            if loops:
                laplacian[node, node] = 1 / (graph.degrees[node] + 1)
            for e in range(graph.indptr[node], graph.indptr[node + 1]):
                other = graph.neighbors[e]
                degrees = (graph.degrees[node] + loops) * (graph.degrees[other] + loops)
                weight = 1 + manifest.similarity_weight * float(snapshot.similarity[e])
                laplacian[node, other] = weight / np.sqrt(degrees)
        base, constant = np.zeros((n, manifest.width)), np.zeros((n, manifest.width))
        stored = artifact.array("form.base").astype(np.float64)
        base[: manifest.n_users] = stored[: manifest.n_users]
        first = len(users)
        base[first : first + manifest.n_items] = stored[manifest.n_users :]
        if "form.constant" in artifact:
            constant[first : first + manifest.n_items] = artifact.array("form.constant")
        alpha = artifact.array("form.alpha").astype(np.float64)
        power, total = base.copy(), np.zeros_like(base)
        for layer in range(1, len(alpha)):
            total += alpha[layer] * power
            power = laplacian @ power
        embeddings = constant + alpha[0] * base + laplacian @ total
        return cls(users, items, graph, laplacian, base, total, embeddings)


def dense_table(artifact: Artifact, n_items: int) -> np.ndarray:
    """B as a matrix."""
    out = np.zeros((n_items, n_items))
    if "item_item.data" in artifact:
        indptr = artifact.array("item_item.indptr")
        for i in range(len(indptr) - 1):
            for p in range(indptr[i], indptr[i + 1]):
                out[i, artifact.array("item_item.indices")[p]] = artifact.array("item_item.data")[p]
    return out


def dense_scores(artifact: Artifact, refreshed: list[Pair], now: list[Pair], user: str) -> tuple[list[str], np.ndarray]:
    """Every item's score for a user: T and Z_v of the log at the refresh, the user's row of the log as it is now."""
    then, current = Dense.of(artifact, refreshed), Dense.of(artifact, now)
    alpha = artifact.array("form.alpha").astype(np.float64)
    row = current.user_ids.index(user)
    vector = alpha[0] * current.base[row]
    where = {("u", name): n for n, name in enumerate(then.user_ids)}
    where |= {("i", name): n + len(then.user_ids) for n, name in enumerate(then.item_ids)}
    names = [("u", name) for name in current.user_ids] + [("i", name) for name in current.item_ids]
    for node, name in enumerate(names):
        if name in where:
            vector = vector + current.laplacian[row, node] * then.neighbor_embeddings[where[name]]
    items = then.embeddings[len(then.user_ids) :]
    scores = items @ vector
    table = dense_table(artifact, len(items))
    seen = {item for other, item in edges_of(artifact, now) if other == user}
    for item in seen:
        if item in then.item_ids:
            scores = scores + table[then.item_ids.index(item)]
    return then.item_ids, scores


def edges_of(artifact: Artifact, pairs: list[Pair]) -> set[Pair]:
    users, items = artifact.array("user_ids"), artifact.array("item_ids")
    rows, columns = artifact.graph().pairs()
    return {(str(users[u]), str(items[v])) for u, v in zip(rows, columns, strict=True)} | set(pairs)
