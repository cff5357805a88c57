"""Full-ranking evaluation: every user with items in the split, all items but the masked ones ranked.

`evaluate` is the short form that the fit, the choice of B's weight and the peers' grids call many times: the means of
Recall@k and NDCG@k. `evaluate_fully` is the long form for reports: every metric of `training.metrics` at several k, the
values of each user (so that slices are selections and models can be compared in pairs), and the cold-start slices.
docs/evaluation.md says what each figure means and what masks what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.data.dataset import DataSet, Interactions
from training.metrics import (
    coverage_at_k,
    gini_at_k,
    hit_rate_at_k,
    mean_over_lists,
    mrr_at_k,
    ndcg_at_k,
    popularity_lift,
    precision_at_k,
    recall_at_k,
    self_information,
)
from training.ranking import top_rows

# (n,) user rows → (n, J) float32 scores, higher is better, a fresh writable array.
ScoreUsers = Callable[[NDArray[np.int64]], NDArray[np.float32]]

# Lengths of the ranking that a full evaluation tells about; 20 is the papers' and the one that models are selected by.
LENGTHS = (5, 10, 20)

# Slices of the users by their number of train interactions: name → (least, most). The first is the cold start; the
# second is its part that has nothing at all.
USER_SLICES: Mapping[str, tuple[int, int | None]] = {
    "users_to_5": (0, 5),
    "users_none": (0, 0),
    "users_6_to_10": (6, 10),
    "users_11_to_20": (11, 20),
    "users_21_to_50": (21, 50),
    "users_over_50": (51, None),
}


@dataclass(frozen=True)
class Split:
    """What an evaluation ranks against.

    Attributes:
        users: (n,) users with items in the split, ascending.
        truth: (I, J) 0/1, items of the split.
        masked: (I, J) 0/1, items that are left out of the ranking.
        strangers: (I,) users without an interaction that a model was fitted on. They are shown the popular items, as
            the service shows them to everybody it knows nothing of.
        popularity: (J,) how many users interacted with each item, in what the models were fitted on.
    """

    users: NDArray[np.int64]
    truth: sparse.csr_array
    masked: sparse.csr_array
    strangers: NDArray[np.bool_]
    popularity: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        split: Interactions,
        masked: Interactions,
        n_users: int,
        n_items: int,
        *,
        history: sparse.csr_array | None = None,
    ) -> Split:
        """Prepare a split once for many evaluations. A masked item never counts as truth.

        Args:
            split: the items to find.
            masked: what is left out of the ranking.
            n_users: I.
            n_items: J.
            history: (I, J) the interactions that the models were fitted on; None where they are those that are masked.
        """
        truth = interaction_matrix(split, n_users, n_items)
        hidden = interaction_matrix(masked, n_users, n_items)
        history = hidden if history is None else history
        truth = sparse.csr_array(truth - truth.multiply(hidden))
        truth.eliminate_zeros()
        return cls(
            np.flatnonzero(np.diff(truth.indptr)).astype(np.int64),
            truth,
            hidden,
            np.diff(history.indptr) == 0,
            np.bincount(history.indices, minlength=n_items).astype(np.float32),
        )

    def sample(self, most: int = 8192) -> Split:
        """The split with no more users than are needed to compare models, spread over all of its users."""
        return replace(self, users=self.users[:: max(1, -(-len(self.users) // most))])

    def parts(self, n_parts: int, share: float, most: int) -> list[Split]:
        """The split with `share` of its users at most, drawn at random without replacement, several times.

        Args:
            n_parts: how often.
            share: of the users.
            most: users of a part.
        """
        size = min(most, max(1, round(share * len(self.users))))
        rng = np.random.default_rng(0)
        return [replace(self, users=np.sort(rng.permutation(self.users)[:size])) for _ in range(n_parts)]

    def n_relevant(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many items of the split some users have."""
        return np.diff(self.truth.indptr)[users].astype(np.int64)


def interaction_matrix(interactions: Interactions, n_users: int, n_items: int) -> sparse.csr_array:
    """Y: (I, J) sparse, 1 where the user interacted with the item."""
    ones = np.ones(len(interactions), np.float32)
    matrix = sparse.csr_array((ones, (interactions.user_rows, interactions.item_rows)), shape=(n_users, n_items))
    matrix.data[:] = 1.0  # a pair that stands twice is one
    return matrix


def scores_of(
    embeddings: NDArray[np.float32], n_users: int, history: sparse.csr_array, table: sparse.csr_array | None
) -> ScoreUsers:
    """score(u, ·) = Z_u · Z_v + Σ_{i in N(u)} B_iv, chunk by chunk. `table` includes its weight."""
    items = np.ascontiguousarray(embeddings[n_users:].T)

    def score_users(users: NDArray[np.int64]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = embeddings[users] @ items
        if table is not None:
            reached = (history[users] @ table).tocoo()
            scores[reached.row, reached.col] += reached.data.astype(np.float32)
        return scores

    return score_users


@dataclass(frozen=True)
class Rankings:
    """The top k of some users.

    Attributes:
        users: (n,) user rows, ascending.
        lists: (n, k) item rows, best first, -1 where fewer than k items are left to rank.
        hits: (n, k) which of them are in the split.
        n_relevant: (n,) how many items of the split each user has, ≥ 1.
    """

    users: NDArray[np.int64]
    lists: NDArray[np.int32]
    hits: NDArray[np.bool_]
    n_relevant: NDArray[np.int64]


class Panel:
    """Some users of a split, prepared for rankings: what is hidden from each, and what each should find."""

    def __init__(self, split: Split, users: NDArray[np.int64]) -> None:
        """Prepare some of the split's users, (n,) rows."""
        self.users = users
        self.strangers, self._popularity = split.strangers[users], split.popularity
        self._hidden = split.masked[users].tocoo()
        truth, self._n_items = split.truth[users].tocoo(), split.truth.shape[1]
        self._truth = np.sort(truth.row.astype(np.int64) * self._n_items + truth.col)

    def __len__(self) -> int:
        return len(self.users)

    def prepare(self, scores: NDArray[np.float32]) -> None:
        """In (n, J) scores: strangers' become the popularity, whatever the model says, and hidden items -inf."""
        scores[self.strangers] = self._popularity
        scores[self._hidden.row, self._hidden.col] = -np.inf

    def hits(self, top: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(n, k) which of the users' (n, k) best items, -1 for none, are in the split."""
        codes = np.arange(len(top))[:, None] * self._n_items + top
        place = np.minimum(np.searchsorted(self._truth, codes), len(self._truth) - 1)
        return np.asarray((self._truth[place] == codes) & (top >= 0), np.bool_)


def rank(score_users: ScoreUsers, split: Split, k: int, *, chunk: int = 1024) -> Rankings:
    """Rank all items but the masked ones for every user of a split, `chunk` users at a time.

    Strangers are shown the most popular items, whatever the model scores.
    """
    lists = np.full((len(split.users), k), -1, np.int32)
    hits = np.zeros(lists.shape, np.bool_)
    for begin in range(0, len(split.users), chunk):
        panel = Panel(split, split.users[begin : begin + chunk])
        scores = score_users(panel.users)
        panel.prepare(scores)
        top = top_rows(scores, k)
        lists[begin : begin + chunk] = top
        hits[begin : begin + chunk] = panel.hits(top)
    return Rankings(split.users, lists, hits, split.n_relevant(split.users))


def evaluate(score_users: ScoreUsers, split: Split, k: int = 20) -> dict[str, float]:
    """Mean Recall@k and NDCG@k over the users of a split.

    Args:
        score_users: scores of some users over all items.
        split: what to rank against.
        k: length of the ranking.

    Returns:
        {"recall@k", "ndcg@k", "n_users"}; zeros where the split has no users.
    """
    if len(split.users) == 0:
        return {f"recall@{k}": 0.0, f"ndcg@{k}": 0.0, "n_users": 0}
    found = rank(score_users, split, k)
    return {
        f"recall@{k}": float(recall_at_k(found.hits, found.n_relevant).mean()),
        f"ndcg@{k}": float(ndcg_at_k(found.hits, found.n_relevant).mean()),
        "n_users": len(split.users),
    }


# ---- in full ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UserMetrics:
    """The metrics of every user: slices and paired comparisons are selections of these rows.

    Attributes:
        users: (n,) user rows, ascending.
        n_relevant: (n,) how many items of the split each has.
        values: metric ("recall@20", ...) → (n,).
    """

    users: NDArray[np.int64]
    n_relevant: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, rankings: Rankings, lengths: Sequence[int]) -> UserMetrics:
        """Recall, NDCG, precision, hit rate and MRR at each of some lengths, at most the rankings' own."""
        values: dict[str, NDArray[np.float64]] = {}
        for k in lengths:
            hits = rankings.hits[:, :k]
            values[f"recall@{k}"] = recall_at_k(hits, rankings.n_relevant)
            values[f"ndcg@{k}"] = ndcg_at_k(hits, rankings.n_relevant)
            values[f"precision@{k}"] = precision_at_k(hits)
            values[f"hit_rate@{k}"] = hit_rate_at_k(hits)
            values[f"mrr@{k}"] = mrr_at_k(hits)
        return cls(rankings.users, rankings.n_relevant, values)

    def __len__(self) -> int:
        return len(self.users)

    def take(self, chosen: NDArray[np.bool_]) -> UserMetrics:
        """The users where `chosen`, (n,), is true."""
        values = {name: of_users[chosen] for name, of_users in self.values.items()}
        return UserMetrics(self.users[chosen], self.n_relevant[chosen], values)

    def means(self) -> dict[str, float]:
        """The mean of every metric; empty without users, since a mean over nobody says nothing."""
        return {name: float(of_users.mean()) for name, of_users in self.values.items()} if len(self) else {}

    def standard_errors(self) -> dict[str, float]:
        """s/√n of every metric: how far its mean would move with other users of the same kind. Empty below two."""
        root = np.sqrt(len(self))
        return {n: float(v.std(ddof=1) / root) for n, v in self.values.items()} if len(self) > 1 else {}


@dataclass(frozen=True)
class ItemFacts:
    """What is known about the items besides who interacted with them.

    Attributes:
        in_graph: (J,) whether the data set's knowledge graph has a triplet of the item.
        with_features: (J,) whether some modality has a feature vector other than zero for it.
    """

    in_graph: NDArray[np.bool_]
    with_features: NDArray[np.bool_]

    @classmethod
    def of(cls, data: DataSet) -> ItemFacts:
        """The facts of a data set's items."""
        in_graph, with_features = np.zeros(data.n_items, np.bool_), np.zeros(data.n_items, np.bool_)
        if data.knowledge is not None:
            in_graph[data.knowledge.item_rows] = True
        for features in data.features.values():
            with_features |= features.any(1)
        return cls(in_graph, with_features)

    def at(self, rows: NDArray[np.integer], n_items: int) -> ItemFacts:
        """The same facts where item j stands in row rows[j] of n_items."""
        moved = ItemFacts(np.zeros(n_items, np.bool_), np.zeros(n_items, np.bool_))
        moved.in_graph[rows], moved.with_features[rows] = self.in_graph, self.with_features
        return moved


@dataclass(frozen=True)
class Slice:
    """A part of an evaluation: some of the users, or all users with some of their items as truth.

    Attributes:
        what: one sentence: who or what is in it, and how many.
        users: the metrics of the users that it holds.
    """

    what: str
    users: UserMetrics

    def to_json(self) -> dict[str, Any]:
        """{"what", "n_users", "n_interactions", "metrics"}; no metrics without users."""
        return {
            "what": self.what,
            "n_users": len(self.users),
            "n_interactions": int(self.users.n_relevant.sum()),
            "metrics": self.users.means(),
        }


@dataclass(frozen=True)
class Evaluation:
    """Everything that one ranking of a split tells.

    Attributes:
        users: the metrics of every user.
        lists: metrics of the lists together (coverage, Gini, novelty, popularity lift).
        slices: name → slice.
    """

    users: UserMetrics
    lists: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, Slice] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Means, metrics of the lists, "n_users", "n_interactions", "standard_errors" and "slices"."""
        return {
            **self.users.means(),
            **self.lists,
            "n_users": len(self.users),
            "n_interactions": int(self.users.n_relevant.sum()),
            "standard_errors": self.users.standard_errors(),
            "slices": {name: part.to_json() for name, part in self.slices.items()},
        }


def evaluate_fully(
    score_users: ScoreUsers,
    split: Split,
    history: sparse.csr_array,
    items: ItemFacts,
    *,
    lengths: Sequence[int] = LENGTHS,
    chunk: int = 1024,
) -> Evaluation:
    """Every metric of a split in one pass over its users, with the cold-start slices.

    Args:
        score_users: scores of some users over all items.
        split: what to rank against.
        history: (I, J) the interactions that the model was fitted on: popularity and slices are counted in these.
        items: what is known of the items.
        lengths: lengths of the ranking.
        chunk: users ranked at a time.
    """
    found = rank(score_users, split, max(lengths), chunk=chunk)
    metrics = UserMetrics.of(found, lengths)
    item_counts = np.bincount(history.indices, minlength=history.shape[1]).astype(np.int64)
    history_sizes = np.diff(history.indptr)
    slices = {
        **dict(_user_slices(metrics, history_sizes[found.users])),
        **dict(_unseen_items(found, split, item_counts == 0, items, lengths)),
    }
    return Evaluation(metrics, _of_lists(found, history, item_counts, lengths), slices)


def _of_lists(
    found: Rankings, history: sparse.csr_array, item_counts: NDArray[np.int64], lengths: Sequence[int]
) -> dict[str, float]:
    """Coverage, Gini, novelty and popularity lift; those that rest on a history are left out where nobody has one."""
    if not len(found.users):
        return {}
    n_items = history.shape[1]
    sizes = np.diff(history.indptr)
    chosen = sizes[found.users] > 0
    of_histories = (history @ item_counts.astype(np.float64))[found.users] / np.maximum(sizes[found.users], 1)
    bits = self_information(item_counts, max(1, int(np.count_nonzero(sizes))))
    values: dict[str, float] = {}
    for k in lengths:
        lists = found.lists[:, :k]
        values[f"coverage@{k}"] = coverage_at_k(lists, n_items)
        values[f"gini@{k}"] = gini_at_k(lists, n_items)
        values[f"novelty@{k}"] = float(mean_over_lists(lists, bits).mean())
        if chosen.any():
            of_lists = mean_over_lists(lists, item_counts.astype(np.float64))
            values[f"popularity_lift@{k}"] = popularity_lift(of_lists[chosen], of_histories[chosen])
    return values


def _user_slices(metrics: UserMetrics, history_sizes: NDArray[np.integer]) -> Iterator[tuple[str, Slice]]:
    for name, (least, most) in USER_SLICES.items():
        chosen = (history_sizes >= least) & (history_sizes <= (np.inf if most is None else most))
        if most is None:
            bounds = f"more than {least - 1}"
        elif least == most == 0:
            bounds = "no"
        else:
            bounds = f"at most {most}" if least == 0 else f"{least} to {most}"
        yield name, Slice(f"Users with {bounds} train interactions.", metrics.take(chosen))


def _unseen_items(
    found: Rankings, split: Split, unseen: NDArray[np.bool_], items: ItemFacts, lengths: Sequence[int]
) -> Iterator[tuple[str, Slice]]:
    """Truth is the unseen items alone; they are ranked among all items, in the same lists."""
    described = items.in_graph | items.with_features
    n_graph, n_features = (np.count_nonzero(unseen & known) for known in (items.in_graph, items.with_features))
    n_unseen, n_described = np.count_nonzero(unseen), np.count_nonzero(unseen & described)
    sentences = {
        "items_unseen": "Only items without train interactions count as relevant. "
        f"Such items: {n_unseen} ({n_graph} in the knowledge graph, {n_features} with features).",
        "items_unseen_described": "Only items without train interactions that the knowledge graph or features "
        f"describe count as relevant. Such items: {n_described}.",
    }
    for (name, what), wanted in zip(sentences.items(), (unseen, unseen & described), strict=True):
        hits = found.hits & wanted[np.maximum(found.lists, 0)]
        relevant = np.asarray(split.truth @ wanted.astype(np.float64)).astype(np.int64)[found.users]
        there = relevant > 0
        part = Rankings(found.users[there], found.lists[there], hits[there], relevant[there])
        yield name, Slice(what, UserMetrics.of(part, lengths))
