"""How good a table is beside other scores, on a sample of the validation users: what selection asks over and over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.evaluation import Panel, ScoreUsers, Split
from training.item_item.tables import CHUNK
from training.metrics import ndcg_at_k
from training.ranking import top_rows_of_sums

# Most scores (users × items) of the sample that selection looks at: 256 MB of them.
_SAMPLE_SCORES = 2**26
_SAMPLE_USERS = 8192
_LENGTH = 20


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

    def scores(self, scores: ScoreUsers) -> tuple[NDArray[np.float32], float]:
        """(n, J) the users' scores, hidden items at -inf and strangers' the popularity; and the scores' spread."""
        parts = [scores(self.users[begin : begin + CHUNK]) for begin in range(0, len(self.users), CHUNK)]
        found = np.concatenate(parts) if parts else np.zeros((0, self._n_items), np.float32)
        spread = max(float(np.std(found[:256])), 1e-6) if len(found) else 1.0
        self.prepare(found)
        return found, spread

    def product(self, history: sparse.csr_array, table: sparse.csr_array) -> NDArray[np.float32]:
        """(n, J) what a table adds to the scores; nothing for strangers, whose list is the popular items.

        Args:
            history: (I, J) Y of the training interactions.
            table: (J, J).
        """
        found = np.asarray((history[self.users] @ table).toarray(), np.float32)
        found[self.strangers] = 0.0
        return found

    def ndcg(self, scores: NDArray[np.float32], product: NDArray[np.float32], weight: float) -> NDArray[np.float64]:
        """(n,) NDCG@20 of scores + weight · product."""
        top = top_rows_of_sums(scores, product, np.float32(weight), _LENGTH)
        return ndcg_at_k(self.hits(top), self._n_relevant)


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
        own, product = panel.scores(scores)[0], panel.product(history, table)
        for values, weight in zip(found, weights, strict=True):
            values.append(panel.ndcg(own, product, weight))
    return [float(np.concatenate(values).mean()) if values else 0.0 for values in found]


class BesideScores:
    """A bench: validation NDCG@20 of a sample of users, the table beside other scores at its best weight.

    Weights are tried in powers of two, climbing from the last best one: tables of one kind have like weights.
    """

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
        self._start = 0
        self._share_start = 0

    def quality(self, table: sparse.csr_array) -> float:
        """Validation NDCG@20 at the best weight."""
        if len(self._sample) == 0:
            return 0.0
        if table.nnz == 0:
            return float(self._sample.ndcg(self._scores, np.zeros_like(self._scores), 0.0).mean())
        found, self._start, _ = self._best_of_table(table)
        return found

    def best_share(self, table: sparse.csr_array, content: sparse.csr_array) -> tuple[float, float]:
        """(quality, share) with the table's weight as it is best without: content comes on top."""
        if table.nnz == 0 or content.nnz == 0 or len(self._sample) == 0:
            return self.quality(table), 0.0
        _, _, weight = self._best_of_table(table)
        base = self._scores + weight * self._product(table)
        scale = weight * float(table.data.mean()) / float(content.data.mean())
        at = _weighted(self._sample, base, self._product(content), float(scale))
        found, place = _climb_powers(at, self._share_start)
        self._share_start = place
        return found, 2.0**place

    def _best_of_table(self, table: sparse.csr_array) -> tuple[float, int, np.float32]:
        unit = self._spread / float(table.data.mean())
        at = _weighted(self._sample, self._scores, self._product(table), unit)
        found, place = _climb_powers(at, self._start)
        return found, place, np.float32(unit * 2.0**place)

    def _product(self, table: sparse.csr_array) -> NDArray[np.float32]:
        return self._sample.product(self._history, table)


class BesideTable:
    """How good scores are beside a table, at its best weight: what a fit's epochs are selected by.

    Validation NDCG@20 of a sample of users, as `BesideScores`, which keeps the scores and tries tables. Every climb
    starts at the same weight, so that a fit that is resumed selects as one that was never interrupted.
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
        at = _weighted(self._sample, own, self._product, spread / self._mean)
        return max(float(self._sample.ndcg(own, self._product, 0.0).mean()), _climb_powers(at, 0)[0])


def _weighted(
    sample: _Sums, scores: NDArray[np.float32], product: NDArray[np.float32], unit: float
) -> Callable[[int], float]:
    """Place → NDCG@20 of the scores with the product beside them, which weighs `unit` · 2^place."""

    def at(place: int) -> float:
        return float(sample.ndcg(scores, product, unit * 2.0**place).mean())

    return at


def _climb_powers(quality: Callable[[int], float], start: int, reach: int = 6) -> tuple[float, int]:
    """(quality, place) of the peak that a climb from `start` in steps of 1 ends on, within ±`reach` of 0."""
    start = max(-reach, min(reach, start))
    best, place = quality(start), start
    for step in (-1, 1):
        moved = False
        while abs(place + step) <= reach:
            found = quality(place + step)
            if found <= best:
                break
            best, place, moved = found, place + step, True
        if moved:
            break
    return best, place
