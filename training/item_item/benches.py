"""How good a table is beside other scores, on a sample of the validation users: what selection asks over and over.

Users are looked at a portion at a time: rows as wide as the catalogue are made for one portion alone, but where a
sample's fit into `_KEPT_SCORES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.evaluation import Panel, ScoreUsers, Split
from training.item_item.tables import CHUNK
from training.metrics import ndcg_at_k
from training.ranking import SumRankings, top_rows

# Most scores (users × items) of a sample that are kept instead of made anew for each table: 256 MB of them.
_KEPT_SCORES = 2**26
_LENGTH = 20
# Weights are powers of two within 2^±_REACH of the one that gives scores and table the same spread.
_REACH = 6


@dataclass(frozen=True)
class _Scores:
    """Scores of a portion's users.

    Attributes:
        all: (n, J), hidden items at -inf and strangers' the popularity.
        best: (n, k) the best items by them alone.
        spread: the standard deviation of the scores as they came, of some users.
    """

    all: NDArray[np.float32]
    best: NDArray[np.int32]
    spread: float

    def beside(self, product: sparse.csr_array) -> SumRankings:
        """Rankings with a product beside them."""
        return SumRankings(self.all, self.best, product)

    def plus(self, product: sparse.csr_array, weight: float) -> _Scores:
        """The scores with a product added to them."""
        scores = self.all.copy()
        rows = np.repeat(np.arange(len(scores)), np.diff(product.indptr))
        scores[rows, product.indices] += np.float32(weight) * product.data
        return _Scores(scores, top_rows(scores, _LENGTH), self.spread)


class _Portion(Panel):
    """Some users of a split: their scores, and what a table adds to them."""

    def __init__(self, split: Split, users: NDArray[np.int64], history: sparse.csr_array) -> None:
        super().__init__(split, users)
        self._n_relevant = split.n_relevant(users)
        # Nothing is added for strangers, whose list is the popular items.
        known = sparse.diags_array((~self.strangers).astype(np.float32))
        self._history = sparse.csr_array(known @ history[users])
        self._history.eliminate_zeros()

    def scores(self, scores: ScoreUsers) -> _Scores:
        """The users' scores."""
        found = scores(self.users)
        spread = max(float(np.std(found[:256])), 1e-6)
        self.prepare(found)
        return _Scores(found, top_rows(found, _LENGTH), spread)

    def product(self, table: sparse.csr_array) -> sparse.csr_array:
        """(n, J) what a table, (J, J) of entries ≥ 0, adds to the scores."""
        return sparse.csr_array(self._history @ table, dtype=np.float32)

    def ndcg(self, top: NDArray[np.int32]) -> NDArray[np.float64]:
        """(n,) NDCG@20 of the users' (n, 20) best items."""
        return ndcg_at_k(self.hits(top), self._n_relevant)


def _portions(split: Split, users: NDArray[np.int64], history: sparse.csr_array) -> Iterator[_Portion]:
    for begin in range(0, len(users), CHUNK):
        yield _Portion(split, users[begin : begin + CHUNK], history)


class _Rankings:
    """Rankings of the users of some portions, of scores with a product beside them."""

    def __init__(self, parts: Iterable[tuple[_Portion, SumRankings]]) -> None:
        self._parts = list(parts)

    def ndcg(self, weight: float) -> float:
        """Mean NDCG@20 at a weight of the product."""
        return _mean([portion.ndcg(rankings.top(weight)) for portion, rankings in self._parts])

    def best_power(self, unit: float) -> tuple[float, int]:
        """(mean NDCG@20, p) at the best of the weights unit · 2^p.

        Every other power is tried, then the best one's neighbors: there may be several peaks (look-alikes on tiktok
        have two), so a climb from one place can end on a lower one. Of equals the lowest p.
        """
        found = {place: self.ndcg(unit * 2.0**place) for place in range(-_REACH, _REACH + 1, 2)}
        best = max(found, key=lambda place: (found[place], -place))
        found |= {p: self.ndcg(unit * 2.0**p) for p in (best - 1, best + 1) if abs(p) <= _REACH}
        best = max(found, key=lambda place: (found[place], -place))
        return found[best], best


def ndcg_beside(
    scores: ScoreUsers, history: sparse.csr_array, table: sparse.csr_array, split: Split, weights: Sequence[float]
) -> list[float]:
    """Mean NDCG@20 of all users of a split, of the scores with the table beside them at each of some weights.

    Args:
        scores: the other part's scores.
        history: (I, J) Y of the training interactions.
        table: (J, J).
        split: the split.
        weights: the table's.
    """
    found: list[list[NDArray[np.float64]]] = [[] for _ in weights]
    for portion in _portions(split, split.users, history):
        rankings = portion.scores(scores).beside(portion.product(table))
        for values, weight in zip(found, weights, strict=True):
            values.append(portion.ndcg(rankings.top(weight)))
    return [_mean(values) for values in found]


class BesideScores:
    """A bench: validation NDCG@20 of a sample of users, the table beside other scores at its best power of two."""

    def __init__(self, scores: ScoreUsers, history: sparse.csr_array, split: Split) -> None:
        """Prepare a sample of the split's users.

        Args:
            scores: the other part's scores.
            history: (I, J) Y of the training interactions.
            split: the validation split, or a part of it.
        """
        sample = split.sample()
        self._portions, self._source = list(_portions(split, sample.users, history)), scores
        self._kept: dict[int, _Scores] = {}
        self._keeps = len(sample.users) * history.shape[1] <= _KEPT_SCORES
        self._spread = self._scores(0).spread if self._portions else 1.0

    def quality(self, table: sparse.csr_array) -> float:
        """Validation NDCG@20 at the best weight."""
        if table.nnz == 0:
            return _mean([portion.ndcg(self._scores(row).best) for row, portion in enumerate(self._portions)])
        return self._best_of_table(table)[0]

    def best_weight(self, table: sparse.csr_array) -> float:
        """The table's best weight, 1 where it is empty."""
        return self._best_of_table(table)[1] if table.nnz else 1.0

    def best_share(self, table: sparse.csr_array, other: sparse.csr_array) -> tuple[float, float]:
        """(quality, share) with the table's weight as it is best without the other, which comes on top."""
        if table.nnz == 0 or other.nnz == 0 or not self._portions:
            return self.quality(table), 0.0
        weight = self._best_of_table(table)[1]
        scale = weight * float(table.data.mean()) / float(other.data.mean())
        found, place = _Rankings(
            (portion, self._scores(row).plus(portion.product(table), weight).beside(portion.product(other)))
            for row, portion in enumerate(self._portions)
        ).best_power(scale)
        return found, 2.0**place

    def _best_of_table(self, table: sparse.csr_array) -> tuple[float, float]:
        """(quality, weight)."""
        if not self._portions:
            return 0.0, 0.0
        unit = self._spread / float(table.data.mean())
        found, place = _Rankings(
            (portion, self._scores(row).beside(portion.product(table))) for row, portion in enumerate(self._portions)
        ).best_power(unit)
        return found, unit * 2.0**place

    def _scores(self, row: int) -> _Scores:
        """A portion's scores."""
        found = self._kept.get(row) or self._portions[row].scores(self._source)
        if self._keeps:
            self._kept[row] = found
        return found


class BesideTable:
    """How good scores are beside a table, at its best weight: what a fit's epochs are selected by.

    Validation NDCG@20 of a sample of users, as `BesideScores`, which takes the scores and tries tables.
    """

    def __init__(self, table: sparse.csr_array, history: sparse.csr_array, split: Split) -> None:
        """Keep what the table adds for a sample of the split's users.

        Args:
            table: (J, J) entries ≥ 0.
            history: (I, J) Y of the training interactions.
            split: the validation split.
        """
        portions = _portions(split, split.sample().users, history)
        self._parts = [(portion, portion.product(table)) for portion in portions]
        self._mean = float(table.data.mean()) if table.nnz else 1.0

    def quality(self, scores: ScoreUsers) -> float:
        """Validation NDCG@20 at the table's best weight, 0 among them."""
        if not self._parts:
            return 0.0
        alone, parts, spreads = [], [], []
        for portion, product in self._parts:
            own = portion.scores(scores)
            alone.append(portion.ndcg(own.best))
            parts.append((portion, own.beside(product)))
            spreads.append(own.spread)
        return max(_mean(alone), _Rankings(parts).best_power(spreads[0] / self._mean)[0])


def _mean(parts: Sequence[NDArray[np.float64]]) -> float:
    return float(np.concatenate(parts).mean()) if parts else 0.0
