"""How B is made: what the settings say, and what they leave open selected on validation, beside the graph part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.errors import ConfigurationError
from training.evaluation import ScoreUsers, Split, evaluate
from training.item_item.content import Content, with_content
from training.item_item.ease import ease_table, gram_inverse, weighted_gram
from training.item_item.local import local_table
from training.item_item.rp3beta import rp3beta_weights
from training.item_item.tables import largest_entries
from training.settings import ItemItemSettings

# λ from which EASE's is selected on validation; published figures lie between 20 and 1000 (Steck, WWW 2019).
EASE_L2 = (20.0, 50.0, 100.0, 200.0, 500.0)
# p from which the target's exponent is selected: EASE's own first.
TARGET_EXPONENTS = (1.0, 0.5, 0.0)

# Most scores (users × items) of the sample that selection looks at: 256 MB of them.
_SAMPLE_SCORES = 2**26
_SAMPLE_USERS = 8192
_METRIC = "ndcg@20"

T = TypeVar("T")


class Bench(Protocol):
    """Says how good tables are."""

    def quality(self, table: sparse.csr_array) -> float:
        """How good the table is, at its best weight; higher is better."""

    def best_share(self, table: sparse.csr_array, content: sparse.csr_array) -> tuple[float, float]:
        """(quality, share): how good `with_content` of the two is, at its best share of the content."""


def resolved_method(settings: ItemItemSettings, n_items: int) -> Literal["ease", "local", "rp3beta", "none"]:
    """How B is made for a catalogue of this size."""
    if settings.method == "auto":
        return "ease" if n_items <= min(settings.exact_items, settings.ease_limit) else "local"
    return settings.method


def without_selection(settings: ItemItemSettings, n_items: int) -> ItemItemSettings:
    """The settings where nothing can be selected: EASE's own exponent and no content where they are left open.

    λ and the weights have no such value.

    Raises:
        ConfigurationError: one of these is left open.
    """
    settings = replace(settings, method=resolved_method(settings, n_items))
    if settings.method == "none" or settings.weight == 0:
        return settings
    if settings.target_exponent < 0:
        settings = replace(settings, target_exponent=1.0)
    if settings.content == "auto":
        settings = replace(settings, content="none")
    open_ones = [("weight", settings.weight < 0, 64)]
    if settings.method in ("ease", "local"):
        open_ones.append(("l2", settings.l2 <= 0, 100))
    if settings.content != "none":
        open_ones.append(("content_weight", settings.content_weight < 0, 1))
    for name, is_open, example in open_ones:
        if is_open:
            raise ConfigurationError(
                f"item_item.{name} = {getattr(settings, name):g}: it can only be selected on a validation split, and "
                f"there is none here. Set it (--set item_item.{name}={example}) or bring a validation split."
            )
    return settings


def item_item_weights(
    interactions: sparse.csr_array, settings: ItemItemSettings, content: Content
) -> sparse.csr_array | None:
    """B before its weight, as the settings ask for it; None where B = 0.

    Args:
        interactions: (I, J) Y of the training interactions.
        settings: how B is made; what is left open, `without_selection` fills in. The weight is not looked at.
        content: features and knowledge graph of the items.

    Returns:
        (J, J) sparse, entries ≥ 0, at most `per_row` + `n_neighbors` in a row.

    Raises:
        ConfigurationError: something is left open, or the data lacks what the settings name.
    """
    settings = without_selection(replace(settings, weight=1.0), interactions.shape[1])
    if settings.method == "none" or interactions.nnz == 0:
        return None
    (table,) = _tables(interactions, settings, settings.l2, (settings.target_exponent,))
    if settings.content == "none" or settings.content_weight == 0:
        return table
    return with_content(table, content.table(settings.content, settings.n_neighbors), settings.content_weight)


class Regressions:
    """The tables of a history by λ, each made once: they are the same beside whatever scores they are judged."""

    def __init__(self, interactions: sparse.csr_array, settings: ItemItemSettings) -> None:
        """Make none yet.

        Args:
            interactions: (I, J) Y of the training interactions.
            settings: how B is made.
        """
        self.interactions = interactions
        self.settings = replace(settings, method=resolved_method(settings, interactions.shape[1]))
        exponent = settings.target_exponent
        self.exponents = TARGET_EXPONENTS if exponent < 0 else (exponent,)
        self._made: dict[float, list[sparse.csr_array]] = {}

    def tables(self, l2: float) -> list[sparse.csr_array]:
        """One (J, J) table for each exponent; one alone where the method has neither λ nor exponent."""
        if l2 not in self._made:
            self._made[l2] = _tables(self.interactions, self.settings, l2, self.exponents)
        return self._made[l2]


def select_weights(
    regressions: Regressions, content: Content, bench: Bench
) -> tuple[sparse.csr_array | None, ItemItemSettings]:
    """B before its weight and the settings that it was made with: what they left open is selected.

    λ first, by a climb, each with its best exponent; then the source of the content and its share. One after the other:
    all together would be hundreds of tables.

    Args:
        regressions: the tables to select from.
        content: features and knowledge graph of the items.
        bench: how good a table is on validation.
    """
    settings, exponents = regressions.settings, regressions.exponents
    if settings.method == "none" or regressions.interactions.nnz == 0:
        return None, settings
    is_regression = settings.method in ("ease", "local")

    def candidate(l2: float) -> _Candidate:
        tables = regressions.tables(l2)
        if len(tables) == 1 and settings.l2 > 0:
            return _Candidate(tables[0], exponents[0], 0.0)
        found = [_Candidate(t, p, bench.quality(t)) for t, p in zip(tables, exponents, strict=False)]
        return max(found, key=lambda c: c.quality)

    if not is_regression:
        (table,) = regressions.tables(settings.l2)
    else:
        l2s = EASE_L2 if settings.l2 <= 0 else (settings.l2,)
        best, l2 = climb(candidate, lambda c: c.quality, l2s)
        table = best.table
        settings = replace(settings, l2=l2, target_exponent=best.target_exponent)
    return _add_content(table, settings, content, bench)


def climb(
    make: Callable[[float], T], quality: Callable[[T], float], grid: Sequence[float] = EASE_L2
) -> tuple[T, float]:
    """The best of a grid by a climb from its middle: three or four are made instead of all.

    Quality has one peak over λ on every set that was looked at. Equal qualities keep the place nearer to the middle.
    """
    place = len(grid) // 2
    best = make(grid[place])
    for step in (-1, 1):
        moved = False
        while 0 <= place + step < len(grid):
            found = make(grid[place + step])
            if quality(found) <= quality(best):
                break
            place, best, moved = place + step, found, True
        if moved:
            break
    return best, grid[place]


@dataclass(frozen=True)
class _Candidate:
    table: sparse.csr_array
    target_exponent: float
    quality: float


def _tables(
    interactions: sparse.csr_array, settings: ItemItemSettings, l2: float, exponents: Sequence[float]
) -> list[sparse.csr_array]:
    """The tables of one λ, one for each target exponent; one alone where the method has neither."""
    method, per_row = resolved_method(settings, interactions.shape[1]), settings.per_row
    if method == "rp3beta":
        return [rp3beta_weights(interactions, settings.beta, per_row)]
    if method == "ease":
        inverse = gram_inverse(interactions, l2, settings.user_exponent)
        return [ease_table(inverse, l2, p, per_row) for p in exponents]
    table, rest = local_table(weighted_gram(interactions, settings.user_exponent), l2, settings.n_candidates)
    scales = [sparse.diags_array(((l2 / rest) ** (1 - p)).astype(np.float32)) for p in exponents]
    return [largest_entries(sparse.csr_array(table @ scale), per_row) for scale in scales]


def _add_content(
    table: sparse.csr_array, settings: ItemItemSettings, content: Content, bench: Bench
) -> tuple[sparse.csr_array, ItemItemSettings]:
    sources = content.sources if settings.content == "auto" else (settings.content,)
    without = replace(settings, content="none", content_weight=0.0)
    if sources in ((), ("none",)) or settings.content_weight == 0:
        return table, without
    best, best_table, best_settings = -np.inf, table, without
    if settings.content == "auto":
        best = bench.quality(table)
    for source in sources:
        near = content.table(source, settings.n_neighbors)
        share = settings.content_weight
        if share < 0:
            quality, share = bench.best_share(table, near)
        else:
            quality = bench.quality(with_content(table, near, share))
        if quality > best:
            best, best_table = quality, with_content(table, near, share)
            best_settings = replace(settings, content=source, content_weight=share)
    return best_table, best_settings


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
        self._split = _sample_of(split, history.shape[1])
        users = self._split.users
        self._history = sparse.csr_array(history[users])
        self._scores = _scores_of(scores, users) if len(users) else np.zeros((0, history.shape[1]), np.float32)
        self._spread = _spread(self._scores)
        self._start = 0
        self._share_start = 0

    def quality(self, table: sparse.csr_array) -> float:
        """Validation NDCG@20 at the best weight."""
        if table.nnz == 0 or len(self._split.users) == 0:
            return _evaluate(self._scores, self._split)
        found, self._start, _ = self._best_of_table(table)
        return found

    def best_share(self, table: sparse.csr_array, content: sparse.csr_array) -> tuple[float, float]:
        """(quality, share) with the table's weight as it is best without: content comes on top."""
        if table.nnz == 0 or content.nnz == 0 or len(self._split.users) == 0:
            return self.quality(table), 0.0
        _, _, weight = self._best_of_table(table)
        base = self._scores + weight * self._product(table)
        scale = weight * float(table.data.mean()) / float(content.data.mean())
        at = _weighted(base, self._product(content), float(scale), self._split)
        found, place = _climb_powers(at, self._share_start)
        self._share_start = place
        return found, 2.0**place

    def _best_of_table(self, table: sparse.csr_array) -> tuple[float, int, np.float32]:
        unit = self._spread / float(table.data.mean())
        at = _weighted(self._scores, self._product(table), unit, self._split)
        found, place = _climb_powers(at, self._start)
        return found, place, np.float32(unit * 2.0**place)

    def _product(self, table: sparse.csr_array) -> NDArray[np.float32]:
        return np.asarray((self._history @ table).toarray(), np.float32)


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
        self._split = _sample_of(split, history.shape[1])
        self._product = np.asarray((history[self._split.users] @ table).toarray(), np.float32)
        self._mean = float(table.data.mean()) if table.nnz else 1.0

    def quality(self, scores: ScoreUsers) -> float:
        """Validation NDCG@20 at the table's best weight, 0 among them."""
        if len(self._split.users) == 0:
            return 0.0
        own = _scores_of(scores, self._split.users)
        at = _weighted(own, self._product, _spread(own) / self._mean, self._split)
        return max(_evaluate(own, self._split), _climb_powers(at, 0)[0])


def _sample_of(split: Split, n_items: int) -> Split:
    most = max(1, min(_SAMPLE_USERS, _SAMPLE_SCORES // max(1, n_items)))
    step = -(-len(split.users) // most) if len(split.users) else 1
    return replace(split, users=split.users[::step])


def _scores_of(scores: ScoreUsers, users: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.concatenate([scores(users[begin : begin + 1024]) for begin in range(0, len(users), 1024)])


def _spread(scores: NDArray[np.float32]) -> float:
    return max(float(np.std(scores[:256])), 1e-6) if len(scores) else 1.0


def _evaluate(scores: NDArray[np.float32], split: Split) -> float:
    """NDCG@20 of the scores of the split's users, row by row."""

    def of(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return scores[np.searchsorted(split.users, users)]

    return evaluate(of, split)[_METRIC]


def _weighted(
    scores: NDArray[np.float32], product: NDArray[np.float32], unit: float, split: Split
) -> Callable[[int], float]:
    """Place → NDCG@20 of the scores with the product beside them, which weighs `unit` · 2^place."""

    def at(place: int) -> float:
        return _evaluate(scores + np.float32(unit * 2.0**place) * product, split)

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
