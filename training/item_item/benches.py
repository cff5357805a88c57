"""How good a table is beside other scores, on a sample of the validation users: what selection asks over and over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.evaluation import Panel, ScoreUsers, Split
from training.item_item.tables import CHUNK
from training.metrics import ndcg_at_k
from training.ranking import SumRankings, top_rows

# Most scores (users × items) of the sample that selection looks at: 256 MB of them.
_SAMPLE_SCORES = 2**26
_SAMPLE_USERS = 8192
_LENGTH = 20


@dataclass(frozen=True)
class _Scores:
    """Scores of a panel's users.

    Attributes:
        all: (n, J), hidden items at -inf and strangers' the popularity.
        best: (n, k) the best items by them alone.
    """

    all: NDArray[np.float32]
    best: NDArray[np.int32]

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> _Scores:
        """Of prepared scores, (n, J)."""
        return cls(scores, top_rows(scores, _LENGTH))

    def beside(self, product: sparse.csr_array) -> SumRankings:
        """Rankings with a product beside them."""
        return SumRankings(self.all, self.best, product)

    def plus(self, product: sparse.csr_array, weight: np.float32) -> _Scores:
        """The scores with a product added to them."""
        scores = self.all.copy()
        rows = np.repeat(np.arange(len(scores)), np.diff(product.indptr))
        scores[rows, product.indices] += weight * product.data
        return _Scores.of(scores)


class _Sums(Panel):
    """Some users of a split, and rankings of their scores with a table's beside them."""

    def __init__(self, split: Split, users: NDArray[np.int64]) -> None:
        super().__init__(split, users)
        self._n_items = split.truth.shape[1]
        self._n_relevant = split.n_relevant(users)

    @classmethod
    def sample(cls, split: Split) -> _Sums:
        """As many users as selection looks at, spread over all of the split's."""
        most = max(1, min(_SAMPLE_USERS, _SAMPLE_SCORES // max(1, split.truth.shape[1])))
        step = -(-len(split.users) // most) if len(split.users) else 1
        return cls(split, split.users[::step])

    def scores(self, scores: ScoreUsers) -> tuple[_Scores, float]:
        """The users' scores, and their spread."""
        parts = [scores(self.users[begin : begin + CHUNK]) for begin in range(0, len(self.users), CHUNK)]
        found = np.concatenate(parts) if parts else np.zeros((0, self._n_items), np.float32)
        spread = max(float(np.std(found[:256])), 1e-6) if len(found) else 1.0
        self.prepare(found)
        return _Scores.of(found), spread

    def product(self, history: sparse.csr_array, table: sparse.csr_array) -> sparse.csr_array:
        """(n, J) what a table adds to the scores; nothing for strangers, whose list is the popular items.

        Args:
            history: (I, J) Y of the training interactions.
            table: (J, J) entries ≥ 0.
        """
        known = sparse.csr_array(sparse.diags_array((~self.strangers).astype(np.float32)) @ history[self.users])
        known.eliminate_zeros()
        return sparse.csr_array(known @ table, dtype=np.float32)

    def ndcg(self, top: NDArray[np.int32]) -> NDArray[np.float64]:
        """(n,) NDCG@20 of the users' (n, 20) best items."""
        return ndcg_at_k(self.hits(top), self._n_relevant)

    def best_power(self, scores: _Scores, product: sparse.csr_array, unit: float) -> tuple[float, int]:
        """(mean NDCG@20, p) of scores + unit · 2^p · product at the best p."""
        rankings = scores.beside(product)
        return _best_power(lambda place: float(self.ndcg(rankings.top(unit * 2.0**place)).mean()))


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
    for begin in range(0, len(split.users), CHUNK):
        panel = _Sums(split, split.users[begin : begin + CHUNK])
        rankings = panel.scores(scores)[0].beside(panel.product(history, table))
        for values, weight in zip(found, weights, strict=True):
            values.append(panel.ndcg(rankings.top(weight)))
    return [float(np.concatenate(values).mean()) if values else 0.0 for values in found]


class BesideScores:
    """A bench: validation NDCG@20 of a sample of users, the table beside other scores at its best power of two."""

    def __init__(self, scores: ScoreUsers, history: sparse.csr_array, split: Split) -> None:
        """Keep the scores of a sample of the split's users.

        Args:
            scores: the other part's scores.
            history: (I, J) Y of the training interactions.
            split: the validation split.
        """
        self._sample = _Sums.sample(split)
        self._history = history
        self._scores, self._spread = self._sample.scores(scores)

    def quality(self, table: sparse.csr_array) -> float:
        """Validation NDCG@20 at the best weight."""
        if len(self._sample) == 0:
            return 0.0
        if table.nnz == 0:
            return float(self._sample.ndcg(self._scores.best).mean())
        return self._best_of_table(table)[0]

    def best_share(self, table: sparse.csr_array, content: sparse.csr_array) -> tuple[float, float]:
        """(quality, share) with the table's weight as it is best without: content comes on top."""
        if table.nnz == 0 or content.nnz == 0 or len(self._sample) == 0:
            return self.quality(table), 0.0
        weight = np.float32(self._best_of_table(table)[1])
        base = self._scores.plus(self._product(table), weight)
        scale = weight * float(table.data.mean()) / float(content.data.mean())
        found, place = self._sample.best_power(base, self._product(content), float(scale))
        return found, 2.0**place

    def _best_of_table(self, table: sparse.csr_array) -> tuple[float, float]:
        """(quality, weight)."""
        unit = self._spread / float(table.data.mean())
        found, place = self._sample.best_power(self._scores, self._product(table), unit)
        return found, unit * 2.0**place

    def _product(self, table: sparse.csr_array) -> sparse.csr_array:
        return self._sample.product(self._history, table)


class BesideTable:
    """How good scores are beside a table, at its best weight: what a fit's epochs are selected by.

    Validation NDCG@20 of a sample of users, as `BesideScores`, which keeps the scores and tries tables.
    """

    def __init__(self, table: sparse.csr_array, history: sparse.csr_array, split: Split) -> None:
        """Keep what the table adds for a sample of the split's users.

        Args:
            table: (J, J) entries ≥ 0.
            history: (I, J) Y of the training interactions.
            split: the validation split.
        """
        self._sample = _Sums.sample(split)
        self._product = self._sample.product(history, table)
        self._mean = float(table.data.mean()) if table.nnz else 1.0

    def quality(self, scores: ScoreUsers) -> float:
        """Validation NDCG@20 at the table's best weight, 0 among them."""
        if len(self._sample) == 0:
            return 0.0
        own, spread = self._sample.scores(scores)
        found, _ = self._sample.best_power(own, self._product, spread / self._mean)
        return max(float(self._sample.ndcg(own.best).mean()), found)


def _best_power(quality: Callable[[int], float], reach: int = 6) -> tuple[float, int]:
    """(quality, place) of the best place within ±`reach` of 0: every other one is tried, then the best one's neighbors.

    There may be several peaks (look-alikes on tiktok have two), so a climb from one place can end on a lower one. Of
    equals the lowest place.
    """
    found = {place: quality(place) for place in range(-reach, reach + 1, 2)}
    best = max(found, key=lambda place: (found[place], -place))
    found |= {place: quality(place) for place in (best - 1, best + 1) if abs(place) <= reach}
    best = max(found, key=lambda place: (found[place], -place))
    return found[best], best
