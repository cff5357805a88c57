"""Are explanations faithful: does the score fall as the interactions that an explanation names are taken away?

Metrics as in Barkan et al., "A Counterfactual Framework for Learning and Evaluating Explanations for Recommender
Systems" (WWW 2024): interactions are removed (or put into an empty profile) one by one in an explanation's order, and
the score and the rank are followed; DEL and INS after a fixed number of interactions as in Baklanov et al., "Refining
Fidelity Metrics for Explainable Recommendations" (SIGIR 2025). docs/explanations.md has the definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.artifact import Artifact
from model_store.attention import AttentionState
from model_store.contributions import Contributions, contributions
from model_store.counterfactuals import ALL_SETS, every_removal_is_tried, find_removal
from model_store.graph import InteractionGraph
from model_store.item_item import ItemItemTable
from model_store.propagation import Vectors
from model_store.ragged import Ragged
from model_store.serving_form import ServingForm, score_rows
from model_store.standing import Standing
from model_store.trials import Trials
from model_store.walks import WalkSettings
from training.data.dataset import DataSet, Interactions
from training.observer import Observer

# An explanation's order, and those that it is compared with.
ORDERS = ("contribution", "similarity", "degree", "recency", "random")
# Random orders that are averaged.
RANDOM = 3
# Ranks of POS, numbers of interactions of DEL and INS.
LENGTHS = (1, 5, 20)
# Curves are told at these shares of the interactions.
GRID = np.linspace(0, 1, 21)
# A curve has at most so many steps of its own: more interactions go several at a time.
STEPS = 10
# Users by their interactions, besides all.
SLICES: Mapping[str, tuple[int, int]] = {"2 to 4": (2, 4), "5 to 19": (5, 19), "20 or more": (20, 1 << 30)}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """A model with fixed embeddings, to try changes on.

    Attributes:
        form: X, C, α, ξ.
        table: B.
        state: the attention state, settled.
        adjacency: its graph with S.
        neighbor_embeddings: T.
        item_vectors: (J, width) Z of the items.
        lists: the neighbor lists, for trials.
    """

    form: ServingForm
    table: ItemItemTable
    state: AttentionState
    adjacency: Adjacency
    neighbor_embeddings: Vectors
    item_vectors: Vectors
    lists: Ragged

    @classmethod
    def of(cls, form: ServingForm, table: ItemItemTable, state: AttentionState) -> Scene:
        """T and Z by the kernel that serves."""
        adjacency = state.snapshot()
        embeddings = form.neighbor_embeddings(adjacency)
        nodes = np.arange(form.n_users, adjacency.n_nodes, dtype=np.int32)
        vectors = form.embeddings(nodes, adjacency, embeddings)
        return cls(form, table, state, adjacency, embeddings, vectors, state.detach())

    @classmethod
    def of_artifact(cls, artifact: Artifact) -> Scene:
        """A published version."""
        state = AttentionState.of_arrays(artifact.array, artifact.walks, index="visited_by.indices" in artifact)
        return cls.of(artifact.form(), artifact.item_item(), state)

    def with_graph(self, graph: InteractionGraph, walks: WalkSettings) -> Scene:
        """The same model over other interactions or other walks: S, T and Z anew."""
        return Scene.of(self.form, self.table, AttentionState.build(graph, walks))

    @property
    def n_items(self) -> int:
        """J."""
        return len(self.item_vectors)

    @property
    def n_interactions(self) -> int:
        """Interactions of all users."""
        return int(self.degrees.sum())

    @property
    def degrees(self) -> NDArray[np.int32]:
        """(I,) the users' numbers of interactions."""
        return self.adjacency.lengths[: self.form.n_users]

    def standing(self, user: int) -> Standing:
        """A user's list; what it has seen is hidden."""
        trials = Trials(user, self.lists, self.state.keys, self.state.settings, self.form, self.neighbor_embeddings)
        begin = int(self.adjacency.starts[user])
        similarity = self.adjacency.similarity[begin : begin + len(trials.neighbors)]
        vector = self.form.user_embedding(
            user, trials.neighbors, similarity, self.adjacency.lengths, self.neighbor_embeddings
        )
        n_users = self.form.n_users
        hidden = np.zeros(self.n_items, np.bool_)
        hidden[trials.neighbors - n_users] = True
        items = np.arange(self.n_items, dtype=np.int32)
        return Standing(
            trials,
            self.form,
            self.table,
            self.neighbor_embeddings,
            self.item_vectors,
            np.concatenate([np.arange(n_users, dtype=np.int32), items]),
            items + np.int32(n_users),
            similarity,
            vector,
            hidden,
            self.adjacency.lengths,
            lambda: self.adjacency.lengths[n_users:].astype(np.float64),
        )

    def parts(self, standing: Standing, item: int) -> Contributions:
        """A score, taken apart."""
        return contributions(
            self.form,
            self.table,
            standing.trials.node,
            standing.neighbors,
            standing.seen,
            standing.similarity,
            self.adjacency.lengths,
            self.neighbor_embeddings,
            item,
            self.item_vectors[item],
        )


@dataclass(frozen=True)
class Sample:
    """A user and one of its recommendations.

    Attributes:
        user: row.
        item: row.
    """

    user: int
    item: int


def draw(scene: Scene, count: int, rng: np.random.Generator, *, k: int = 1, least: int = 2) -> list[Sample]:
    """Users drawn at random of those with at least `least` interactions, each with one of its k best items."""
    able = np.flatnonzero(scene.degrees >= least)
    users = np.sort(rng.choice(able, min(count, len(able)), replace=False))
    samples = []
    for user in users.tolist():
        top = scene.standing(user).now().top(k)
        if len(top):
            samples.append(Sample(user, int(top[rng.integers(len(top))])))
    return samples


# ---- orders and curves -----------------------------------------------------------------------------------------------

# Gives (d,) positions of a user's items in the data: the later, the more recent.
Recency = Callable[[int, NDArray[np.int32]], NDArray[np.integer]]


def recency_of(data: DataSet, user_rows: NDArray[np.int32], item_rows: NDArray[np.int32], n_items: int) -> Recency:
    """Positions by time; without times in the files, train before valid before test.

    A version that was refitted holds the interactions of all splits, a retrained one those of its log as well: these
    are newer than the files.

    Args:
        data: the set.
        user_rows: (I,) its users' rows in the model.
        item_rows: (J,) its items' rows in the model.
        n_items: J of the model.
    """
    first, *rest = [part for part in (data.train, data.valid, data.test) if len(part)] or [Interactions.empty()]
    every = reduce(Interactions.concatenate, rest, first)
    order = np.arange(len(every)) if every.timestamps is None else np.argsort(every.timestamps, kind="stable")
    keys = user_rows[every.user_rows[order]].astype(np.int64) * n_items + item_rows[every.item_rows[order]]
    sorting = np.argsort(keys, kind="stable")
    sorted_keys = keys[sorting]

    def positions(user: int, items: NDArray[np.int32]) -> NDArray[np.integer]:
        wanted = np.int64(user) * n_items + items
        last = np.searchsorted(sorted_keys, wanted, side="right") - 1
        there = (last >= 0) & (sorted_keys[np.maximum(last, 0)] == wanted)
        return np.where(there, sorting[np.maximum(last, 0)], len(every))

    return positions


def orders_of(
    scene: Scene, standing: Standing, parts: Contributions, recency: Recency, rng: np.random.Generator
) -> dict[str, list[NDArray[np.int64]]]:
    """Order → places of the user's items, the first to go first; several of the random order."""
    degree = len(parts.neighbors)
    return {
        "contribution": [np.argsort(-parts.total, kind="stable")],
        "similarity": [np.argsort(-parts.similarity, kind="stable")],
        "degree": [np.argsort(-scene.adjacency.lengths[parts.neighbors], kind="stable")],
        "recency": [np.argsort(-recency(standing.trials.node, standing.seen), kind="stable")],
        "random": [rng.permutation(degree) for _ in range(RANDOM)],
    }


@dataclass(frozen=True)
class Curve:
    """What one order does to one score. A value is 1 for the score as served and 0 for that without interactions.

    Attributes:
        deletion: (21,) values at `GRID`'s shares of removed interactions.
        insertion: (21,) values at those shares of interactions put into an empty profile.
        pos: k → the mean over the removal of whether the item stays among the k best.
        deleted: n → the value without the first n interactions (all, where there are fewer).
        inserted: n → the value with the first n interactions alone.
    """

    deletion: Floats
    insertion: Floats
    pos: Mapping[int, float]
    deleted: Mapping[int, float]
    inserted: Mapping[int, float]


def curve_of(standing: Standing, item: int, order: NDArray[np.int64], served: float, empty: float) -> Curve:
    """Remove, and insert, a user's interactions in an order; every step with the user's row exact.

    Args:
        standing: the user's list.
        item: the item.
        order: (d,) places of the user's items.
        served: the score as served.
        empty: the score without interactions.
    """
    degree = len(order)
    steps = np.unique(np.round(np.linspace(0, degree, min(degree, STEPS) + 1)).astype(np.int64))
    wanted = sorted({*steps.tolist(), *(min(n, degree) for n in LENGTHS)})

    def value(score: float) -> float:
        return (score - empty) / (served - empty)

    deleted: dict[int, float] = {}
    ranks: dict[int, int] = {}
    inserted: dict[int, float] = {}
    for n in wanted:
        scores = scores_without(standing, order[:n])
        deleted[n] = value(float(scores[item]))
        ranks[n] = _rank(scores, standing.hidden, item)
        inserted[n] = value(float(scores_without(standing, order[n:])[item]))
    shares = steps / degree
    at = [int(n) for n in steps]
    return Curve(
        np.interp(GRID, shares, [deleted[n] for n in at]),
        np.interp(GRID, shares, [inserted[n] for n in at]),
        {k: area(np.interp(GRID, shares, [float(ranks[n] <= k) for n in at])) for k in LENGTHS},
        {n: deleted[min(n, degree)] for n in LENGTHS},
        {n: inserted[min(n, degree)] for n in LENGTHS},
    )


def scores_without(standing: Standing, places: NDArray[np.int64]) -> Floats:
    """(J,) the model's scores without some of the user's interactions; without all, those of the user's own vector."""
    row = standing.trials.row(standing.neighbors[places])
    scores: Floats = standing.scores_with(row.vector, standing.direct(standing.node_rows[row.neighbors]))
    return scores


def _rank(scores: Floats, hidden: NDArray[np.bool_], item: int) -> int:
    return int(np.count_nonzero((scores > scores[item]) & ~hidden)) + 1


def area(values: Floats) -> float:
    """The area under a curve over `GRID`, by trapezes."""
    return float(np.trapezoid(values, GRID))


@dataclass(frozen=True)
class Best:
    """How near the explanation's order comes to the best one there is, for users whose every order can be tried.

    Attributes:
        n: how many samples.
        best: mean of the smallest areas under a deletion curve.
        contribution: mean of the areas under the explanation's.
        random: mean of the areas under those of random orders.
    """

    n: int
    best: float
    contribution: float
    random: float


@dataclass(frozen=True)
class Curves:
    """The curves of all samples under one order (a random order's are means of several).

    Attributes:
        degrees: (n,) the users' numbers of interactions.
        deletion: (n, 21).
        insertion: (n, 21).
        metrics: name → (n,): `deletion`, `insertion`, `pos@k`, `del@n`, `ins@n`.
    """

    degrees: NDArray[np.int32]
    deletion: Floats
    insertion: Floats
    metrics: Mapping[str, Floats]

    def means(self) -> dict[str, float]:
        """Metric → mean over the samples."""
        return {name: float(values.mean()) for name, values in self.metrics.items()}

    def errors(self) -> dict[str, float]:
        """Metric → standard error of the mean."""
        n = len(self.degrees)
        return {name: float(v.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0 for name, v in self.metrics.items()}

    def slices(self) -> dict[str, dict[str, Any]]:
        """Users by their interactions → number of samples and means."""
        found: dict[str, dict[str, Any]] = {}
        for name, (least, most) in SLICES.items():
            inside = (self.degrees >= least) & (self.degrees <= most)
            if inside.any():
                means = {metric: float(values[inside].mean()) for metric, values in self.metrics.items()}
                found[name] = {"n": int(inside.sum()), **means}
        return found


def follow(
    scene: Scene, samples: Sequence[Sample], recency: Recency, rng: np.random.Generator, observer: Observer
) -> tuple[dict[str, Curves], Best | None]:
    """Every order's curves over the same samples; a score that no interaction raises is left out.

    Returns:
        order → curves, and the best that any order could do, None where no user has so few interactions.
    """
    found: dict[str, list[list[Curve]]] = {name: [] for name in ORDERS}
    degrees: list[int] = []
    best: dict[int, float] = {}
    observer.phase("curves", len(samples), 1.0)
    for sample in samples:
        standing = scene.standing(sample.user)
        parts = scene.parts(standing, sample.item)
        everything = np.arange(len(parts.neighbors))
        served = float(scores_without(standing, everything[:0])[sample.item])
        empty = float(scores_without(standing, everything)[sample.item])
        observer.advance()
        if served - empty <= 1e-3 * parts.magnitude:
            continue
        if len(everything) <= ALL_SETS:
            best[len(degrees)] = best_deletion(standing, sample.item, served, empty)
        degrees.append(len(everything))
        for name, orders in orders_of(scene, standing, parts, recency, rng).items():
            found[name].append([curve_of(standing, sample.item, order, served, empty) for order in orders])
    curves = {name: _gathered(rows, np.array(degrees, np.int32)) for name, rows in found.items()}
    if not best:
        return curves, None
    ours, others = (curves[name].metrics["deletion"][list(best)] for name in ("contribution", "random"))
    return curves, Best(len(best), float(np.mean([*best.values()])), float(ours.mean()), float(others.mean()))


def _gathered(curves: list[list[Curve]], degrees: NDArray[np.int32]) -> Curves:
    """Curves of all samples; of a sample's several orders the mean."""

    def of_each(rows: Iterable[Sequence[Any]]) -> Floats:
        return np.array([np.mean(row, axis=0) for row in rows])

    deletion = of_each([one.deletion for one in same] for same in curves).reshape(-1, len(GRID))
    insertion = of_each([one.insertion for one in same] for same in curves).reshape(-1, len(GRID))
    metrics: dict[str, Floats] = {
        "deletion": np.array([area(row) for row in deletion]),
        "insertion": np.array([area(row) for row in insertion]),
    }
    for n in LENGTHS:
        metrics[f"pos@{n}"] = of_each([one.pos[n] for one in same] for same in curves)
        metrics[f"del@{n}"] = of_each([one.deleted[n] for one in same] for same in curves)
        metrics[f"ins@{n}"] = of_each([one.inserted[n] for one in same] for same in curves)
    return Curves(degrees, deletion, insertion, metrics)


def best_deletion(standing: Standing, item: int, served: float, empty: float) -> float:
    """The smallest area under a deletion curve that any order has: over all sets, each with its best way there."""
    degree = len(standing.neighbors)
    places = np.arange(degree)
    values, least = {0: 1.0}, {0: 0.0}
    for gone in sorted(range(1, 1 << degree), key=int.bit_count):
        removed = [place for place in places.tolist() if gone >> place & 1]
        score = float(scores_without(standing, np.array(removed))[item])
        values[gone] = (score - empty) / (served - empty)
        before = [gone & ~(1 << place) for place in removed]
        least[gone] = min(least[b] + (values[b] + values[gone]) / 2 for b in before)
    return least[(1 << degree) - 1] / degree


# ---- counterfactuals -------------------------------------------------------------------------------------------------


@dataclass
class Checked:
    """Counterfactuals, checked by a state that really changes.

    Attributes:
        asked: how many were asked for.
        sizes: of each that was found, how many interactions it names.
        tried: of each that was asked for, how many removals were tried.
        valid: of those found, without how many the item really leaves the list.
        minimal: of those found, of how many nothing can be left out.
        none_exists: how often every removal was tried in vain.
    """

    asked: int = 0
    sizes: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    valid: int = 0
    minimal: int = 0
    none_exists: int = 0


def check_counterfactuals(scene: Scene, samples: Sequence[Sample], k: int, most: int, observer: Observer) -> Checked:
    """Find each sample's counterfactual and check it: remove for real, read the row, rank, put back."""
    found = Checked()
    observer.phase("counterfactuals", len(samples), 1.0)
    for sample in samples:
        standing = scene.standing(sample.user)
        parts = scene.parts(standing, sample.item)
        removal = find_removal(standing, parts, sample.item, k, most)
        found.asked += 1
        found.tried.append(standing.tried)
        observer.advance()
        if removal is None:
            found.none_exists += int(every_removal_is_tried(len(parts.neighbors), most))
            continue
        found.sizes.append(len(removal.nodes))
        found.valid += _leaves(scene, sample, removal.nodes, standing.hidden, k)
        smaller = [tuple(n for n in removal.nodes if n != one) for one in removal.nodes]
        found.minimal += not any(_leaves(scene, sample, nodes, standing.hidden, k) for nodes in smaller if nodes)
    return found


def _leaves(scene: Scene, sample: Sample, nodes: Sequence[int], hidden: NDArray[np.bool_], k: int) -> bool:
    """Whether the item is not among the k best once the state itself has lost these interactions."""
    state, form = scene.state, scene.form
    ends = np.full(len(nodes), sample.user, np.int32), np.array(nodes, np.int32)
    none = np.zeros(0, np.int32), np.zeros(0, np.int32)
    state.apply(none, ends)
    try:
        neighbors = state.neighbors(sample.user).copy()
        if not len(neighbors):
            scores = state.degrees[form.n_users :].astype(np.float64)
        else:
            similarity = state.similarity(sample.user)
            vector = form.user_embedding(sample.user, neighbors, similarity, state.degrees, scene.neighbor_embeddings)
            direct, _ = scene.table.accumulate(neighbors - np.int32(form.n_users), scene.n_items)
            items = np.arange(scene.n_items, dtype=np.int32)
            scores = score_rows(vector, scene.item_vectors, items, direct)
    finally:
        state.apply(ends)
    better = (scores > scores[sample.item]) & ~hidden
    equal = (scores[: sample.item] == scores[sample.item]) & ~hidden[: sample.item]
    return bool(np.count_nonzero(better) + np.count_nonzero(equal) >= k)


# ---- stability -------------------------------------------------------------------------------------------------------


def other_walks(scene: Scene) -> Scene:
    """The same model whose walks drew other numbers."""
    walks = scene.state.settings
    kept = np.ones(scene.n_interactions, np.bool_)
    return scene.with_graph(_graph_of(scene, kept), replace(walks, seed=walks.seed + 1))


def fewer_interactions(scene: Scene, share: float, spared: Sequence[int], rng: np.random.Generator) -> Scene:
    """The same model over a graph that has lost a share of the interactions of all but some users.

    Where nearly all users are spared that is next to nothing, and agreeing with it says nothing: see `is_fewer`.
    """
    users = np.repeat(np.arange(scene.form.n_users), scene.degrees)
    kept = (rng.random(len(users)) >= share) | np.isin(users, spared)
    return scene.with_graph(_graph_of(scene, kept), scene.state.settings)


def is_fewer(scene: Scene, other: Scene, share: float) -> bool:
    """Whether another scene has lost at least half of a share of all interactions."""
    return scene.n_interactions - other.n_interactions >= max(share / 2 * scene.n_interactions, 1)


def agreement(scene: Scene, other: Scene, samples: Sequence[Sample]) -> dict[str, float]:
    """How alike the explanations of two models are that should be alike, means over the samples.

    Returns:
        `rank_correlation` (Spearman's) and `l1` (Σ|a - b| / Σ|a|) of the contributions; `first`: how often the largest
        is the same one; `first_three`: the Jaccard index of the three largest.
    """
    rows = []
    for sample in samples:
        one, two = (s.parts(s.standing(sample.user), sample.item) for s in (scene, other))
        # Neighbor lists are in key order, and the user's own is the same in both.
        a, b = one.total, two.total
        first, second = np.argsort(-a, kind="stable"), np.argsort(-b, kind="stable")
        top, also = set(first[:3].tolist()), set(second[:3].tolist())
        rows.append(
            (
                _correlation(a, b),
                float(np.abs(a - b).sum() / max(np.abs(a).sum(), 1e-30)),
                float(first[0] == second[0]),
                len(top & also) / len(top | also),
            )
        )
    names = ("rank_correlation", "l1", "first", "first_three")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def _correlation(a: Floats, b: Floats) -> float:
    first, second = (np.argsort(np.argsort(x, kind="stable"), kind="stable").astype(np.float64) for x in (a, b))
    matrix: Floats = np.corrcoef(np.stack([first, second]))
    return float(matrix[0, 1])


def _graph_of(scene: Scene, kept: NDArray[np.bool_]) -> InteractionGraph:
    """The graph with some of its edges, in the order of the users' lists."""
    n_users, adjacency = scene.form.n_users, scene.adjacency
    users = np.repeat(np.arange(n_users), scene.degrees)
    places = np.concatenate(
        [np.arange(s, s + n) for s, n in zip(adjacency.starts[:n_users], scene.degrees, strict=True)]
    )
    items = adjacency.neighbors[places] - n_users
    keys = adjacency.keys
    return InteractionGraph.from_pairs(users[kept], items[kept], keys[:n_users], keys[n_users:])


# ---- retraining ------------------------------------------------------------------------------------------------------


def without_first(
    data: DataSet, scene: Scene, samples: Sequence[Sample], recency: Recency, order: str, rng: np.random.Generator
) -> DataSet:
    """The data less the first interaction of each sample's user in an order.

    Rows of the data are those of the model.
    """
    gone = set()
    for sample in samples:
        standing = scene.standing(sample.user)
        parts = scene.parts(standing, sample.item)
        place = orders_of(scene, standing, parts, recency, rng)[order][0][0]
        gone.add((sample.user, int(standing.seen[place])))
    train = data.train
    kept = np.array([pair not in gone for pair in zip(train.user_rows.tolist(), train.item_rows.tolist(), strict=True)])
    return replace(data, train=train.take(kept))


def effect(before: Scene, after: Scene, samples: Sequence[Sample]) -> dict[str, float]:
    """What a retraining did to the samples' items, ranked with the interactions before it hidden.

    Returns:
        `rank`: geometric mean of the ranks after; `fell`: share of the items that are ranked lower than before;
        `left@k`: share that is no more among the k best.
    """
    ranks = []
    for sample in samples:
        hidden = before.standing(sample.user).hidden
        both = []
        for scene in (before, after):
            scores = scores_without(scene.standing(sample.user), np.zeros(0, np.int64))
            both.append(_rank(scores, hidden, sample.item))
        ranks.append(both)
    first, second = np.array(ranks).T
    return {
        "rank": float(np.exp(np.log(second).mean())),
        "fell": float((second > first).mean()),
        **{f"left@{k}": float((second > k).mean()) for k in (5, 20)},
    }
