"""How B is made: what the settings say, and what they leave open selected on validation, beside the graph part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import numpy as np
from scipy import sparse

from training.errors import ConfigurationError
from training.item_item.content import Content
from training.item_item.ease import ease_table, gram_inverse, weighted_gram
from training.item_item.local import local_table
from training.item_item.rp3beta import rp3beta_weights
from training.item_item.tables import largest_entries, two_hops, with_share
from training.settings import ItemItemSettings, TableSettings

# λ from which EASE's is selected on validation; published figures lie between 20 and 1000 (Steck, WWW 2019).
EASE_L2 = (20.0, 50.0, 100.0, 200.0, 500.0)
# p from which the target's exponent is selected: EASE's own first.
TARGET_EXPONENTS = (1.0, 0.5, 0.0)
# α from which the content's weight in the regression is selected, besides 0.
CONTENT_GRAMS = (1.0, 3.0, 10.0, 30.0, 100.0)
# How often λ and α are climbed in turn, at most.
_ROUNDS = 2

T = TypeVar("T")


class Bench(Protocol):
    """Says how good tables are."""

    def quality(self, table: sparse.csr_array) -> float:
        """How good the table is, at its best weight; higher is better."""

    def best_weight(self, table: sparse.csr_array) -> float:
        """The table's best weight."""

    def best_share(self, table: sparse.csr_array, other: sparse.csr_array) -> tuple[float, float]:
        """(quality, share): how good `with_share` of the two is, at its best share of the other."""


def resolved_method(settings: ItemItemSettings, n_items: int) -> Literal["ease", "local", "rp3beta", "none"]:
    """How B is made for a catalogue of this size."""
    if settings.method == "auto":
        return "ease" if n_items <= min(settings.exact_items, settings.ease_limit) else "local"
    return settings.method


def without_selection(settings: ItemItemSettings, n_items: int) -> ItemItemSettings:
    """The settings where nothing can be selected: EASE's own exponent, one hop and no content where they are left open.

    λ and the weights have no such value.

    Raises:
        ConfigurationError: one of these is left open.
    """
    settings = replace(settings, method=resolved_method(settings, n_items))
    if not settings.is_wanted:
        return settings
    if settings.mean_of:
        if settings.weight < 0:
            raise _unselectable("weight", settings.weight, 64)
        return settings
    if settings.target_exponent < 0:
        settings = replace(settings, target_exponent=1.0)
    if settings.two_hop_weight < 0 or settings.method == "rp3beta":
        settings = replace(settings, two_hop_weight=0.0)
    if settings.content == "auto":
        settings = replace(settings, content="none")
    if settings.content_gram < 0 or settings.content == "none":
        settings = replace(settings, content_gram=0.0)
    open_ones = [("weight", settings.weight < 0, 64)]
    if settings.method in ("ease", "local"):
        open_ones.append(("l2", settings.l2 <= 0, 100))
    if settings.content != "none":
        open_ones.append(("content_weight", settings.content_weight < 0, 1))
    for name, is_open, example in open_ones:
        if is_open:
            raise _unselectable(name, getattr(settings, name), example)
    return settings


def _unselectable(name: str, value: float, example: int) -> ConfigurationError:
    return ConfigurationError(
        f"item_item.{name} = {value:g}: it can only be selected on a validation split, and there is none here. Set it "
        f"(--set item_item.{name}={example}) or bring a validation split."
    )


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
    regressions = Regressions(interactions, settings, content)
    if settings.mean_of:
        return regressions.mean(settings.mean_of)
    return regressions.table(_choice(settings))


def _choice(settings: ItemItemSettings) -> TableSettings:
    """What the settings name, nothing open, for one table."""
    return TableSettings(
        l2=settings.l2,
        target_exponent=settings.target_exponent,
        two_hop_weight=max(settings.two_hop_weight, 0.0),
        content=settings.content,
        content_weight=max(settings.content_weight, 0.0),  # open where there is no content
        content_gram=max(settings.content_gram, 0.0),
    )


def _key(l2: float, source: str, content_gram: float) -> tuple[float, str, float]:
    """(λ, source, α) of a regression; where it takes in no content, the source makes no difference."""
    return (l2, source, content_gram) if content_gram > 0 else (l2, "none", 0.0)


class Regressions:
    """The tables of a history, each made once: they are the same beside whatever scores they are judged."""

    def __init__(self, interactions: sparse.csr_array, settings: ItemItemSettings, content: Content) -> None:
        """Make none yet.

        Args:
            interactions: (I, J) Y of the training interactions.
            settings: how B is made.
            content: features and knowledge graph of the items.
        """
        self.interactions, self.content = interactions, content
        self.settings = replace(settings, method=resolved_method(settings, interactions.shape[1]))
        exponent = settings.target_exponent
        self.exponents: tuple[float, ...] = TARGET_EXPONENTS if exponent < 0 else (exponent,)
        if settings.mean_of:
            self.exponents = tuple(dict.fromkeys(choice.target_exponent for choice in settings.mean_of))
        self._made: dict[tuple[float, str, float], list[sparse.csr_array]] = {}
        self._hops: dict[int, tuple[sparse.csr_array, sparse.csr_array]] = {}

    @property
    def is_regression(self) -> bool:
        """Whether the tables have a λ, an exponent and an α."""
        return self.settings.method in ("ease", "local")

    def tables(self, l2: float, source: str = "none", content_gram: float = 0.0) -> list[sparse.csr_array]:
        """One (J, J) table for each exponent; one alone where the method has neither λ nor exponent.

        Args:
            l2: λ.
            source: of the content.
            content_gram: α, how much its likeness weighs in the regression.
        """
        key = _key(l2, source, content_gram)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def table(self, choice: TableSettings) -> sparse.csr_array:
        """The table of a choice, before its weight."""
        tables = self.tables(choice.l2, choice.content, choice.content_gram)
        table = tables[self.exponents.index(choice.target_exponent) if self.is_regression else 0]
        table = self.with_two_hops(table, choice.two_hop_weight)
        if choice.content == "none" or choice.content_weight == 0:
            return table
        return with_share(table, self.near(choice.content), choice.content_weight)

    def mean(self, choices: Sequence[TableSettings]) -> sparse.csr_array:
        """The mean of tables by their weights, at most `per_row` + `n_neighbors` entries a row.

        Raises:
            ConfigurationError: one of them has no λ or exponent, or none a weight.
        """
        total = sum(choice.weight for choice in choices)
        for place, choice in enumerate(choices):
            for name, is_open in (("l2", choice.l2 <= 0), ("target_exponent", choice.target_exponent < 0)):
                if self.is_regression and is_open:
                    raise ConfigurationError(
                        f"item_item.mean_of.{place}.{name} = {getattr(choice, name):g}: every table of a mean needs "
                        "its own. Set it, or leave mean_of away and bring a validation split."
                    )
        if total == 0:
            raise ConfigurationError("item_item.mean_of: every table's weight is 0. Give one of them a weight.")
        mean = sparse.csr_array(self.interactions.shape[1:] * 2, dtype=np.float32)
        for choice in choices:
            mean = sparse.csr_array(mean + np.float32(choice.weight / total) * self.table(choice))
        return largest_entries(mean, self.settings.per_row + self.settings.n_neighbors)

    def with_two_hops(self, table: sparse.csr_array, weight: float) -> sparse.csr_array:
        """The table + weight × `two_hops` of it, as many entries a row as it had."""
        if weight <= 0:
            return table
        return largest_entries(with_share(table, self.two_hops(table), weight), self.settings.per_row)

    def two_hops(self, table: sparse.csr_array) -> sparse.csr_array:
        """(J, J) `two_hops` of one of the tables."""
        if id(table) not in self._hops:  # kept with the table, so that no other gets its id
            self._hops[id(table)] = (table, two_hops(table, self.settings.per_row))
        return self._hops[id(table)][1]

    def near(self, source: str) -> sparse.csr_array:
        """(J, J) the look-alikes by a source."""
        return self.content.table(source, self.settings.n_neighbors)

    def _make(self, l2: float, source: str, content_gram: float) -> list[sparse.csr_array]:
        settings = self.settings
        if settings.method == "rp3beta":
            return [rp3beta_weights(self.interactions, settings.beta, settings.per_row)]
        if settings.method == "ease":
            vectors = self.content.vectors(source) if content_gram > 0 else None
            inverse = gram_inverse(self.interactions, l2, settings.user_exponent, vectors, content_gram)
            return [ease_table(inverse, l2, p, settings.per_row) for p in self.exponents]
        gram = weighted_gram(self.interactions, settings.user_exponent)
        if content_gram > 0:
            likeness = self.content.sparse_likeness(source, settings.n_neighbors)
            gram = sparse.csr_array(gram + np.float32(content_gram) * likeness)
        table, rest = local_table(gram, l2, settings.n_candidates)
        scales = [sparse.diags_array(((l2 / rest) ** (1 - p)).astype(np.float32)) for p in self.exponents]
        return [largest_entries(sparse.csr_array(table @ scale), settings.per_row) for scale in scales]


def select_weights(
    regressions: Regressions, bench: Bench, parts: Iterable[Bench] = ()
) -> tuple[sparse.csr_array | None, ItemItemSettings]:
    """B before its weight and the settings that it was made with: what they left open is selected.

    One after the other, as all together would be hundreds of tables: λ with its best exponent, without content; the
    source of the content, by its look-alikes; how much it weighs in the regression, and λ again beside that, for the
    `n_sources` best sources; what share of two hops is added to the result, and what share of look-alikes to that.

    Where there are parts of the validation, B is the mean of what is best on each: bagging (Breiman, Machine Learning
    24, 1996). Which table is the best on a few thousand users is chance to a good part, and the mean of several good
    ones is better than any of them. Each part chooses among the regressions that were asked about on the whole, with
    two hops and look-alikes of its own.

    Args:
        regressions: the tables to select from.
        bench: how good a table is on validation.
        parts: how good it is on a part of it each; looked at one after the other.
    """
    settings = regressions.settings
    if settings.mean_of:
        return regressions.mean(settings.mean_of), settings
    search = _Search(regressions, bench)
    table, chosen = search.run()
    if table is None or chosen == settings:  # nothing was open
        return table, chosen
    weights: dict[TableSettings, float] = {}
    for part in parts:
        found, preferred = _Search(regressions, part).run_among(search.asked, chosen)
        choice = _choice(preferred)
        weights[choice] = weights.get(choice, 0.0) + part.best_weight(found)
    if not weights or list(weights) == [_choice(chosen)]:
        return table, chosen
    total = sum(weights.values())
    choices = tuple(replace(choice, weight=weight / total) for choice, weight in weights.items())
    return regressions.mean(choices), replace(settings, mean_of=choices)


class _Search:
    """The steps of a selection. What is given is taken; nothing is asked where nothing is open."""

    def __init__(self, regressions: Regressions, bench: Bench) -> None:
        self._regressions, self._bench, self._settings = regressions, bench, regressions.settings
        # The regressions that were asked about, each once, in that order.
        self.asked: dict[tuple[float, str, float], None] = {}

    def run(self) -> tuple[sparse.csr_array | None, ItemItemSettings]:
        """All steps."""
        if self._settings.method == "none" or self._regressions.interactions.nnz == 0:
            return None, self._settings
        plain = self.plain()
        sources = self.sources(plain)
        if not sources:
            return self.finished(plain, "none", 0.0)
        least, added, first = sources[0]
        found = [
            (taken_in, source)
            for _, _, source in sources[: self._settings.n_sources]
            if (taken_in := self.with_gram(plain.l2, source, least)) is not None
        ]
        if not found:
            return self.finished(plain, first, added)
        taken_in, source = max(found, key=lambda one: one[0].quality)
        return self.finished(taken_in, source, None)

    def run_among(
        self, asked: Iterable[tuple[float, str, float]], chosen: ItemItemSettings
    ) -> tuple[sparse.csr_array, ItemItemSettings]:
        """The steps with no other regressions than those that were asked about on the way to a choice.

        Where that takes in content, its source stays: of others there are few regressions, or none.
        """
        taken_in = chosen.content_gram > 0
        source = chosen.content if taken_in else "none"
        best = max((self._candidate(*key) for key in asked if key[1] == source), key=_quality)
        if taken_in:
            return self.finished(best, source, None)
        _, added, source = next(iter(self.sources(best)), (0.0, 0.0, "none"))
        return self.finished(best, source, added)

    def plain(self) -> _Candidate:
        """The best table without content."""
        settings = self._settings
        if not self._regressions.is_regression:
            return self._candidate(settings.l2, "none", 0.0)
        return climb(self._of_l2("none", 0.0), _quality, self._l2s)[0]

    def sources(self, plain: _Candidate) -> list[tuple[float, float, str]]:
        """(quality, share, source) of the sources of content whose look-alikes help the plain table, the best first.

        Where the settings name the source, it is that one; empty where they name none, or none is better than nothing.
        """
        settings, content = self._settings, self._regressions.content
        is_open = settings.content == "auto"
        sources = content.sources if is_open else (settings.content,)
        if sources in ((), ("none",)) or (settings.content_weight == 0 and settings.content_gram == 0):
            return []
        if not is_open and settings.content_weight >= 0 and settings.content_gram >= 0:
            return [(-np.inf, settings.content_weight, settings.content)]
        nothing = self._bench.quality(plain.table) if is_open else -np.inf
        found = [(*self._shared(plain, source), source) for source in sources]
        return sorted((one for one in found if one[0] > nothing), key=lambda one: one[0], reverse=True)

    def with_gram(self, l2: float, source: str, least: float) -> _Candidate | None:
        """The best table whose regression takes in the content; None where it is better left out of it.

        Of entities, unless α is given: feature vectors are alike in ways that the regression had better not predict.

        Args:
            l2: λ to begin with.
            source: of the content.
            least: what an α that is not given must be better than.
        """
        settings = self._settings
        if not self._regressions.is_regression or settings.content_gram == 0:
            return None
        if settings.content_gram < 0 and source.startswith("features"):
            return None
        grams = CONTENT_GRAMS if settings.content_gram < 0 else (settings.content_gram,)
        best = self._of_l2(source, grams[len(grams) // 2])(l2)
        for _ in range(_ROUNDS):
            before = best
            best = climb(self._of_gram(source, best.l2), _quality, grams, best.content_gram)[0]
            best = climb(self._of_l2(source, best.content_gram), _quality, self._l2s, best.l2)[0]
            if (best.l2, best.content_gram) == (before.l2, before.content_gram):
                break
        if settings.content_gram > 0 or best.quality > least:
            return best
        return None

    def finished(self, best: _Candidate, source: str, added: float | None) -> tuple[sparse.csr_array, ItemItemSettings]:
        """The table with its best shares of two hops and of look-alikes, and its settings.

        Args:
            best: the regression.
            source: of the look-alikes.
            added: their best share beside the regression alone, None where it is not known.
        """
        table, hops = self.two_hops(best.table)
        if source == "none":
            return table, self.settings_of(best, hops, source, 0.0)
        share = added if added is not None and hops == 0 else self.share(table, source)
        table = with_share(table, self._regressions.near(source), share)
        return table, self.settings_of(best, hops, source, share)

    def two_hops(self, table: sparse.csr_array) -> tuple[sparse.csr_array, float]:
        """The table with the share of two hops that is best, and that share; 0 where none helps."""
        weight, regressions = self._settings.two_hop_weight, self._regressions
        if not regressions.is_regression or weight == 0:
            return table, 0.0
        if weight > 0:
            return regressions.with_two_hops(table, weight), weight
        _, share = self._bench.best_share(table, regressions.two_hops(table))
        found = regressions.with_two_hops(table, share)
        return (found, share) if self._bench.quality(found) > self._bench.quality(table) else (table, 0.0)

    def share(self, table: sparse.csr_array, source: str) -> float:
        """The share of look-alikes that is added to a table; 0 where none helps."""
        if self._settings.content_weight >= 0:
            return self._settings.content_weight
        quality, share = self._bench.best_share(table, self._regressions.near(source))
        return share if quality > self._bench.quality(table) else 0.0

    def settings_of(self, table: _Candidate, two_hop_weight: float, source: str, share: float) -> ItemItemSettings:
        """The settings with what was selected filled in."""
        selected = replace(
            self._settings,
            two_hop_weight=two_hop_weight,
            content=source,
            content_weight=share,
            content_gram=table.content_gram,
        )
        if not self._regressions.is_regression:
            return selected
        return replace(selected, l2=table.l2, target_exponent=table.target_exponent)

    @property
    def _l2s(self) -> tuple[float, ...]:
        return EASE_L2 if self._settings.l2 <= 0 else (self._settings.l2,)

    def _shared(self, plain: _Candidate, source: str) -> tuple[float, float]:
        """(quality, share) of the plain table with a source's look-alikes."""
        near, share = self._regressions.near(source), self._settings.content_weight
        if share < 0:
            return self._bench.best_share(plain.table, near)
        return self._bench.quality(with_share(plain.table, near, share)), share

    def _of_l2(self, source: str, content_gram: float) -> Callable[[float], _Candidate]:
        return lambda l2: self._candidate(l2, source, content_gram)

    def _of_gram(self, source: str, l2: float) -> Callable[[float], _Candidate]:
        return lambda content_gram: self._candidate(l2, source, content_gram)

    def _candidate(self, l2: float, source: str, content_gram: float) -> _Candidate:
        """The table of the best exponent."""
        self.asked[_key(l2, source, content_gram)] = None
        tables, exponents = self._regressions.tables(l2, source, content_gram), self._regressions.exponents
        settings = self._settings
        given = settings.l2 > 0 and (content_gram == 0 or settings.content_gram > 0)
        if len(tables) == 1 and (given or not self._regressions.is_regression):
            return _Candidate(tables[0], exponents[0], l2, content_gram, 0.0)
        found = [
            _Candidate(table, p, l2, content_gram, self._bench.quality(table))
            for table, p in zip(tables, exponents, strict=True)
        ]
        return max(found, key=_quality)


def climb(
    make: Callable[[float], T],
    quality: Callable[[T], float],
    grid: Sequence[float] = EASE_L2,
    start: float | None = None,
) -> tuple[T, float]:
    """The best of a grid by a climb from its middle, or from `start`: three or four are made instead of all.

    Quality has one peak over λ on every set that was looked at. Equal qualities keep the place nearer to the start.
    """
    place = len(grid) // 2 if start is None else list(grid).index(start)
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
    l2: float
    content_gram: float
    quality: float


def _quality(candidate: _Candidate) -> float:
    return candidate.quality
