"""The use cases: recommend, similar, popular (explain: service/explanation). No HTTP here; ids in, plain values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from model_store.diversity import diverse_order
from model_store.retrieval import best_of, top_items
from model_store.scan import Ranking, top_items_of_many
from model_store.serving_form import score_rows
from service.errors import UnknownItemError
from service.explanation.served import recommendation_id
from service.live.model import LiveModel
from service.live.readout import Readout, UserView
from service.recommendation.cursor import Cursor, digest_of
from service.recommendation.selection import Boost, ItemFilter, Selection

Strategy = Literal["model", "fold_in", "popular"]
NO_ROWS: NDArray[np.int32] = np.zeros(0, np.int32)
# Candidates that diversity reorders; what comes behind follows by score.
POOL = 500


class RecommendedItem(TypedDict):
    """An item of a list. A popular item's score is its number of interactions."""

    item_id: str
    score: float
    strategy: Strategy


class Recommendations(TypedDict):
    """What a user is recommended. `index` is the backend that searched, empty where none was asked."""

    user_id: str
    items: list[RecommendedItem]
    model_version: str
    sequence: int
    refreshed_at: int
    recommendation_id: str
    index: str


class ListPage(TypedDict):
    """A page of the list of a user, or of an anonymous session."""

    user_id: str | None
    items: list[RecommendedItem]
    cursor: str | None
    model_version: str
    sequence: int
    refreshed_at: int
    recommendation_id: str | None
    index: str


class ByCount(NamedTuple):
    """Where an item stands that is in a user's list for its number of interactions, equal ones by row.

    Attributes:
        rank: its place, behind all that the model scores; of an item that no list holds the one that it would have.
        n_interactions: of all users with it.
        cutoff: that number of the list's k-th item, None where the model scores that one, or there are fewer.
    """

    rank: int
    n_interactions: float
    cutoff: float | None


@dataclass(frozen=True)
class Wish:
    """What a list should be like.

    Attributes:
        k: items of a page.
        where: which items it may hold.
        boosts: what is added to their scores.
        diversity: w of maximal marginal relevance (`model_store.diversity`), 0 to 1; 0 orders by score.
        min_score: items of lower scores are left out, and so are popular items that would fill the list up.
    """

    k: int
    where: ItemFilter = field(default_factory=ItemFilter)
    boosts: tuple[Boost, ...] = ()
    diversity: float = 0.0
    min_score: float | None = None


class ScoredItem(TypedDict):
    """An item and a number."""

    item_id: str
    score: float


class ItemList(TypedDict):
    """Items without a user."""

    items: list[ScoredItem]
    model_version: str
    sequence: int
    refreshed_at: int


class SimilarItems(ItemList):
    """Items near an item."""

    item_id: str


def recommend(model: LiveModel, user_id: str, k: int) -> Recommendations:
    """The k best unseen items: k of them unless fewer are unseen.

    A user with interactions gets the model's items (`model` where it was trained with the user, `fold_in` where it was
    not); everybody else, and every place that is left, gets the items with the most interactions (`popular`).
    """
    return _recommended(model, user_id, model.user(user_id), Selection.of(model), k)


def recommend_many(model: LiveModel, wanted: Sequence[tuple[str, int]]) -> list[Recommendations]:
    """What `recommend` gives each of several users, for less: their searches share one pass over the items' vectors.

    Args:
        model: the served model.
        wanted: user id and k of each list.
    """
    views = model.views([user_id for user_id, _ in wanted])
    selection = Selection.of(model)
    rankings = _rankings(model, views, selection, [k for _, k in wanted])
    return [
        _recommended(model, user_id, view, selection, k, ranking)
        for (user_id, k), view, ranking in zip(wanted, views, rankings, strict=True)
    ]


def _rankings(
    model: LiveModel, views: Sequence[UserView | None], selection: Selection, ks: Sequence[int]
) -> list[Ranking | None]:
    """The best of the model's items for each view, all from one pass; None for who is better off alone."""
    rankings: list[Ranking | None] = [None] * len(views)
    readout = next((view.readout for view in views if view is not None), None)
    if readout is None or not readout.index.scans:
        return rankings
    together = [
        (place, view)
        for place, view in enumerate(views)
        if view is not None and view.readout is readout and has_evidence(model, view)
    ]
    if len(together) < 2:
        return rankings
    found = top_items_of_many(
        np.stack([view.vector for _, view in together]),
        readout.item_embeddings,
        [view.seen for _, view in together],
        model.table,
        [ks[place] for place, _ in together],
        readout.longest,
        blocked=_blocked(selection, readout),
    )
    for (place, _), ranking in zip(together, found, strict=True):
        rankings[place] = ranking
    return rankings


def _recommended(
    model: LiveModel,
    user_id: str,
    view: UserView | None,
    selection: Selection,
    k: int,
    ranking: Ranking | None = None,
) -> Recommendations:
    readout = model.readout if view is None else view.readout
    sequence = model.sequence if view is None else view.sequence
    rows, scores, n_scored = _best(model, view, readout, selection, k, ranking=ranking)
    return {
        "user_id": user_id,
        "items": _items(model, view, rows, scores, n_scored),
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": readout.refreshed_at,
        "recommendation_id": recommendation_id(model, user_id, view, readout, sequence),
        "index": readout.index.name if n_scored else "",
    }


def recommend_page(model: LiveModel, who: str | Sequence[str], wish: Wish, cursor: Cursor | None = None) -> ListPage:
    """A page of a list: as `recommend`, among the items that the wish allows, in the order that it asks for.

    All that is allowed and unseen comes, page by page, whatever the filters.

    Args:
        model: the served model.
        who: a user's id, or the item ids of an anonymous session: what a new user with these interactions would get.
            Items that the model doesn't know are left out.
        wish: what the list should be like.
        cursor: where the page begins; the first page where None.

    Raises:
        InvalidRequestError: the cursor belongs to another request.
        GoneError: the cursor's list has become another one.
    """
    user_id = who if isinstance(who, str) else None
    if isinstance(who, str):
        view = model.user(who)
    else:
        rows = np.unique(model.items.rows(who))
        view = model.session(rows[rows >= 0])
    readout = model.readout if view is None else view.readout
    sequence = model.sequence if view is None else view.sequence
    # After the user: an item that is withdrawn meanwhile is not in the list.
    selection = Selection.of(model, wish.where, wish.boosts)
    begin = 0 if cursor is None else cursor.offset
    wanted = begin + wish.k + 1
    pool = max(wanted, POOL) if wish.diversity > 0 else wanted
    rows, scores, n_scored = _best(model, view, readout, selection, pool, wish.min_score)
    if wish.diversity > 0:
        # Scores of the model and numbers of interactions are not compared: one kind alone is reordered.
        n = min(POOL, n_scored or len(rows))
        vectors = _vectors(readout, rows[:n])
        order = diverse_order(scores[:n], vectors, wish.diversity, min(n, wanted))
        rest = np.setdiff1d(np.arange(len(rows)), order)  # never reached before the pool is used up
        rows, scores = (part[np.concatenate([order, rest])] for part in (rows, scores))
    following = None
    if cursor is not None or len(rows) > begin + wish.k:
        asked = digest_of([user_id, repr(None if user_id is not None else sorted(set(who))), repr(replace(wish, k=0))])

        def state_at(offset: int) -> str:
            """What the list follows from; popular items behind the model's count once a page begins among them."""
            popular = _popular_state(model, readout, selection, n_scored) if n_scored < offset else ""
            return _scored_state(view, readout, selection) + popular

        if cursor is not None:
            cursor.check(model.version, sequence, asked, state_at(begin))
        end = begin + wish.k
        if len(rows) > end:
            following = Cursor(model.version, sequence, end, asked, state_at(end)).encode()
    page = slice(begin, begin + wish.k)
    return {
        "user_id": user_id,
        "items": _items(model, view, rows[page], scores[page], max(0, n_scored - begin)),
        "cursor": following,
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": readout.refreshed_at,
        "recommendation_id": None if user_id is None else recommendation_id(model, user_id, view, readout, sequence),
        "index": readout.index.name if n_scored else "",
    }


def unknown_items(model: LiveModel, item_ids: Iterable[str]) -> list[str]:
    """Those of some items that are unknown, each once, in their order."""
    return [item_id for item_id in dict.fromkeys(item_ids) if model.item_row(item_id) is None]


def similar(model: LiveModel, item_id: str, k: int) -> SimilarItems:
    """The k items of the largest cosine with an item; none where the item has no vector yet.

    Raises:
        UnknownItemError: the item is unknown.
    """
    item_row = require_item(model, item_id)
    readout, sequence = model.readout, model.sequence
    items: list[ScoredItem] = []
    vectors = readout.item_embeddings
    if item_row < readout.n_items and vectors[item_row].any():
        rows = np.arange(readout.n_items, dtype=np.int32)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        inner = score_rows(vectors[item_row], vectors, rows, np.zeros(readout.n_items))
        allowed = (norms > 0) & (rows != item_row)
        withdrawn = model.metadata.withdrawn
        allowed[withdrawn[withdrawn < len(rows)]] = False
        candidates = rows[allowed]
        cosines = inner[candidates] / (norms[candidates] * norms[item_row])
        best = np.lexsort((candidates, -cosines))[:k]
        items = [
            {"item_id": model.items.id_of(row), "score": cosine}
            for row, cosine in zip(candidates[best].tolist(), cosines[best].tolist(), strict=True)
        ]
    return {
        "item_id": item_id,
        "items": items,
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": readout.refreshed_at,
    }


def popular(model: LiveModel, k: int) -> ItemList:
    """The k items with the most interactions, equal ones by row."""
    sequence, refreshed_at = model.sequence, model.readout.refreshed_at
    rows, counts = _popular(model, NO_ROWS, Selection.of(model), k)
    return {
        "items": [
            {"item_id": model.items.id_of(row), "score": count}
            for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
        ],
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": refreshed_at,
    }


def require_item(model: LiveModel, item_id: str) -> int:
    """An item's row.

    Raises:
        UnknownItemError: the item is unknown.
    """
    row = model.item_row(item_id)
    if row is None:
        raise UnknownItemError(f"Unknown item {item_id!r}: it has no interaction and is in no artifact.")
    return row


def brought(items: Sequence[RecommendedItem]) -> Mapping[Strategy, int]:
    """How many of a list's items each strategy has brought."""
    if items and items[0]["strategy"] == items[-1]["strategy"]:  # popular items stand behind all others
        return {items[0]["strategy"]: len(items)}
    return Counter(item["strategy"] for item in items)


def has_evidence(model: LiveModel, view: UserView) -> bool:
    """Whether what the user did says anything yet: it has interactions, and not only with items newer than T and B."""
    if len(view.seen) == 0:
        return False
    return bool(view.vector.any()) or bool((view.seen < model.table.n_rows).any())


def strategy_of(view: UserView) -> Strategy:
    """How the lists of a user with evidence are made."""
    return "model" if view.in_artifact else "fold_in"


def _best(
    model: LiveModel,
    view: UserView | None,
    readout: Readout,
    selection: Selection,
    k: int,
    min_score: float | None = None,
    ranking: Ranking | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float64], int]:
    """The k best allowed items that the user has not seen: the model's (`ranking` where given), then popular ones.

    Returns:
        item rows, scores, and how many of them the model has scored.
    """
    rows, scores, taken = NO_ROWS, np.zeros(0), NO_ROWS if view is None else view.seen
    if ranking is not None:
        rows, scores = ranking
    elif view is not None and has_evidence(model, view):
        n = readout.n_items
        rows, scores = top_items(
            view.vector,
            readout.item_embeddings,
            view.seen,
            model.table,
            readout.index.search,
            k,
            readout.longest,
            blocked=_blocked(selection, readout),
            boost=None if selection.boost is None else selection.boost[:n],
            slack=readout.index.slack,
        )
    if min_score is not None:
        rows, scores = rows[scores >= min_score], scores[scores >= min_score]
        return rows, scores, len(rows)
    n_scored = len(rows)
    if n_scored < k:
        more, counts = _popular(model, np.concatenate([taken, rows]), selection, k - n_scored)
        rows, scores = np.concatenate([rows, more]), np.concatenate([scores, counts])
    return rows, scores, n_scored


def _blocked(selection: Selection, readout: Readout) -> NDArray[np.bool_] | None:
    """(J,) the items that the model is not to score; J is the readout's."""
    blocked = None if selection.blocked is None else selection.blocked[: readout.n_items]
    if readout.absent is None:
        return blocked
    return readout.absent if blocked is None else blocked | readout.absent


def _popular(
    model: LiveModel, taken: NDArray[np.int32], selection: Selection, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The k allowed items with the most interactions, boosts added, that are not taken."""
    if selection.blocked is None and selection.boost is None:
        rows, counts = model.popular(k + len(taken))
        free = ~np.isin(rows, taken)
        return rows[free][:k], counts[free][:k].astype(np.float64)
    scores = model.counts()[: selection.n_items].astype(np.float64)
    if selection.boost is not None:
        scores += selection.boost
    free = np.ones(len(scores), np.bool_) if selection.blocked is None else ~selection.blocked
    free[taken[taken < len(scores)]] = False
    candidates = np.flatnonzero(free).astype(np.int32)
    best = best_of(scores[candidates], k)
    return candidates[best], scores[candidates[best]]


def standing_by_count(model: LiveModel, view: UserView, selection: Selection, item_row: int, k: int) -> ByCount:
    """Where an item stands that the model does not rank: it has no vector, or the user no evidence."""
    readout = view.readout
    counts = model.counts()[: selection.n_items]
    others = np.ones(len(counts), np.bool_) if selection.blocked is None else ~selection.blocked
    others[view.seen] = False
    n_scored = 0
    if has_evidence(model, view):
        scored = others[: readout.n_items].copy()
        if readout.absent is not None:
            scored &= ~readout.absent
        n_scored = int(np.count_nonzero(scored))
        others[: readout.n_items] &= ~scored
    count, rows = counts[item_row], np.arange(len(counts))
    ahead = (counts > count) | ((counts == count) & (rows < item_row))
    best = np.sort(counts[others])[::-1][: k - n_scored] if k > n_scored else NO_ROWS
    cutoff = float(best[-1]) if 0 < len(best) == k - n_scored else None
    return ByCount(n_scored + int(np.count_nonzero(ahead & others)) + 1, float(count), cutoff)


def _items(
    model: LiveModel,
    view: UserView | None,
    rows: NDArray[np.int32],
    scores: NDArray[np.float64],
    n_scored: int,
) -> list[RecommendedItem]:
    """A list's items; the first `n_scored` are the model's."""
    strategy: Strategy = "popular" if view is None else strategy_of(view)
    return [
        {
            "item_id": model.items.id_of(row),
            "score": score,
            "strategy": strategy if place < n_scored else "popular",
        }
        for place, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True))
    ]


def _vectors(readout: Readout, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Z of some items, zeros for those that have none."""
    vectors = np.zeros((len(rows), readout.item_embeddings.shape[1]), np.float32)
    known = rows < readout.n_items
    vectors[known] = readout.item_embeddings[rows[known]]
    return vectors


def _scored_state(view: UserView | None, readout: Readout, selection: Selection) -> str:
    """A digest of all that the model's part of a list follows from, beside the request and the version."""
    n = readout.n_items
    before, now = readout.later, readout.laid
    laid = sorted(row for row in before.keys() | now.keys() if before.get(row) is not now.get(row))
    return digest_of(
        [
            readout.refreshed_at,
            *(part for row in laid for part in (row, now.get(row))),
            *((None,) if view is None else (view.vector, view.seen[view.seen < n])),
            None if selection.blocked is None else np.packbits(selection.blocked[:n]),
            None if selection.boost is None else selection.boost[:n],
        ]
    )


def _popular_state(model: LiveModel, readout: Readout, selection: Selection, n_scored: int) -> str:
    """A digest of what the popular part follows from; behind the model's part it holds items without a vector alone."""
    part: slice | NDArray[np.bool_] = slice(None)
    if n_scored:
        part = np.ones(selection.n_items, np.bool_)
        part[: readout.n_items] = False if readout.absent is None else readout.absent
    return digest_of(
        [
            model.counts()[: selection.n_items][part],
            None if selection.blocked is None else np.packbits(selection.blocked[part]),
            None if selection.boost is None else selection.boost[part],
        ]
    )
