"""A made-up catalogue of clips with the structure that a recommender lives on, for demos, tests and benchmarks.

Every item is a mixture of a few themes (24 of them, in 8 genres) and has a creator with a style of their own. Title,
features and entities come out of that mixture, and so do the users: every user has a taste, a mixture of
themes, and draws items of the themes they like, popular ones more often. So interactions, features and graph tell of
the same hidden thing, each with noise of its own. Popularity has a long tail, a part of the items is released and a
part of the users arrives while the log is running, and nobody interacts with what is not released yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.assembly import id_array, knowledge_graph
from training.data.dataset import DataSet, Interactions, KnowledgeGraph
from training.errors import ConfigurationError

START = 1_735_689_600.0
"""The first moment of every log: 2025-01-01T00:00:00Z, in seconds since the epoch."""

VISUAL_WIDTH = 64
TEXT_WIDTH = 48

# genre → three themes, each as (an adjective, nouns); the nouns are its keywords, too.
_GENRES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "Noir": (
        ("Crooked", ("Alibi", "Detective", "Shadow", "Motive", "Witness")),
        ("Rainy", ("Harbour", "Alley", "Lamplight", "Hotel", "Cigarette")),
        ("Hollow", ("Heist", "Vault", "Double-Cross", "Ransom", "Getaway")),
    ),
    "Nature": (
        ("Silent", ("Forest", "Fern", "Owl", "Moss", "Clearing")),
        ("Deep", ("Reef", "Whale", "Current", "Tide", "Coral")),
        ("High", ("Summit", "Glacier", "Eagle", "Avalanche", "Ridge")),
    ),
    "Space": (
        ("Distant", ("Orbit", "Station", "Comet", "Signal", "Probe")),
        ("Red", ("Colony", "Dust", "Rover", "Dome", "Canyon")),
        ("Strange", ("Visitor", "Beacon", "Wormhole", "Swarm", "Monolith")),
    ),
    "Music": (
        ("Midnight", ("Saxophone", "Club", "Trumpet", "Swing", "Encore")),
        ("Electric", ("Synth", "Neon", "Bassline", "Rave", "Remix")),
        ("Quiet", ("Cello", "Prelude", "Quartet", "Nocturne", "Conductor")),
    ),
    "Kitchen": (
        ("Slow", ("Bread", "Sourdough", "Oven", "Crust", "Baker")),
        ("Spicy", ("Market", "Noodle", "Wok", "Street", "Chili")),
        ("Sweet", ("Pastry", "Caramel", "Orchard", "Jam", "Honey")),
    ),
    "Sport": (
        ("Steep", ("Climb", "Rope", "Chalk", "Wall", "Crag")),
        ("Fast", ("Lap", "Circuit", "Pit-Stop", "Engine", "Podium")),
        ("Last", ("Goal", "Derby", "Penalty", "Keeper", "Stadium")),
    ),
    "History": (
        ("Ancient", ("Temple", "Scroll", "Pharaoh", "Tomb", "Delta")),
        ("Iron", ("Castle", "Siege", "Banner", "Knight", "Forge")),
        ("Broken", ("Trench", "Telegram", "Armistice", "Convoy", "Bunker")),
    ),
    "Comedy": (
        ("Awkward", ("Wedding", "Speech", "Cousin", "Toast", "Best-Man")),
        ("Hopeless", ("Office", "Printer", "Memo", "Intern", "Meeting")),
        ("Runaway", ("Dog", "Parrot", "Goat", "Circus", "Balloon")),
    ),
}
_THEMES = [(genre, adjective, nouns) for genre, themes in _GENRES.items() for adjective, nouns in themes]
_FIRST_NAMES = ("Ada", "Bruno", "Chioma", "Dario", "Elif", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kaya", "Lindiwe")
_LAST_NAMES = (
    "Marlow",
    "Novak",
    "Okafor",
    "Petrov",
    "Quist",
    "Rossi",
    "Sato",
    "Tanaka",
    "Ueda",
    "Varga",
    "Weiss",
    "Yilmaz",
)

_CHUNK = 2_000_000  # draws at once


def synthesize(
    n_users: int = 600,
    n_items: int = 400,
    seed: int = 0,
    *,
    mean_interactions: float = 24.0,
    days: int = 180,
    noise: float = 0.1,
    name: str = "synthetic",
) -> DataSet:
    """Make up a data set.

    Args:
        n_users: number of users, `u0001` and so on; each has at least one interaction.
        n_items: number of items, `clip-0001` and so on; in the long tail some may have no interaction.
        seed: the same seed and sizes give the same set.
        mean_interactions: interactions of a user, about, before repeated pairs are dropped.
        days: how long the log is.
        noise: share of interactions that follow popularity alone and not the user's taste.
        name: the set's name.

    Returns:
        The data set: all interactions in `train`, in the order of time, with timestamps (whole seconds); features
        `visual` (64 wide) and `text` (48 wide); a graph with the relations `creator`, `genre` and `keyword`; titles.

    Raises:
        ConfigurationError: a size is out of its bounds.
    """
    if min(n_users, n_items, days) < 1 or mean_interactions < 1 or not 0 <= noise <= 1 or seed < 0:
        raise ConfigurationError(
            f"n_users {n_users}, n_items {n_items}, days {days} and mean_interactions {mean_interactions} must be at "
            f"least 1, noise {noise} between 0 and 1, and seed {seed} at least 0."
        )
    rng = np.random.default_rng([seed, n_users, n_items])
    n_themes = len(_THEMES)
    main_theme = rng.integers(n_themes, size=n_items)
    mixture = _peaked(rng, main_theme, n_themes)
    popularity = rng.permutation(np.arange(1, n_items + 1) ** -0.8)
    n_creators = max(n_themes, n_items // 12)
    creator = _creators(rng, main_theme, n_creators)

    late = rng.random(n_items) < 0.15  # released while the log is running; the rest was there before
    released = np.where(late, rng.random(n_items), 0.0)
    users, items = _draw_pairs(rng, n_users, mixture, popularity, released == 0, mean_interactions, noise)
    arrived = np.where(rng.random(n_users) < 0.15, rng.random(n_users) * 0.9, 0.0)
    earliest = np.maximum(released[items], arrived[users])
    moments = earliest + (1 - earliest) * rng.random(len(items))
    times = START + np.floor(moments * days * 86_400)
    order = np.lexsort((items, users, times))

    width = max(4, len(str(n_users))), max(4, len(str(n_items)))
    return DataSet(
        name=name,
        user_ids=id_array([f"u{row:0{width[0]}d}" for row in range(1, n_users + 1)]),
        item_ids=id_array([f"clip-{row:0{width[1]}d}" for row in range(1, n_items + 1)]),
        train=Interactions(users[order].astype(np.int32), items[order].astype(np.int32), times[order]),
        knowledge=_graph(rng, mixture, main_theme, creator),
        features={
            "visual": _features(rng, mixture, creator, VISUAL_WIDTH, style=0.5),
            "text": _features(rng, mixture, creator, TEXT_WIDTH, style=0.1),
        },
        item_names=id_array(_titles(rng, main_theme)),
    )


def _peaked(rng: np.random.Generator, main: NDArray[np.int64], n_themes: int) -> NDArray[np.float64]:
    """Mixtures over the themes, (n, n_themes), each with most of its mass on its main theme."""
    mixture = rng.gamma(0.15, size=(len(main), n_themes)) + 1e-9
    mixture /= mixture.sum(axis=1, keepdims=True)
    mixture *= 0.35
    mixture[np.arange(len(main)), main] += 0.65
    return mixture


def _creators(rng: np.random.Generator, main_theme: NDArray[np.int64], n_creators: int) -> NDArray[np.int64]:
    """The creator of each item: creator c works in theme c modulo the number of themes, the first of each the most."""
    n_themes = len(_THEMES)
    in_theme = (n_creators - 1 - main_theme) // n_themes + 1
    return main_theme + n_themes * np.floor(in_theme * rng.random(len(main_theme)) ** 1.5).astype(np.int64)


def _draw_pairs(
    rng: np.random.Generator,
    n_users: int,
    mixture: NDArray[np.float64],
    popularity: NDArray[np.float64],
    there_at_first: NDArray[np.bool_],
    mean_interactions: float,
    noise: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a user and an item, unique, ordered by user and then as drawn.

    p(item | user) = noise · p(item) + (1 - noise) · Σ over themes of taste(user, theme) · p(item | theme), with
    p(item | theme) in proportion to popularity(item) · mixture(item, theme)².
    """
    n_items, n_themes = mixture.shape
    taste = rng.gamma(0.08, size=(n_users, n_themes)) + 1e-9
    tastes_up_to = np.cumsum(taste / taste.sum(axis=1, keepdims=True), axis=1)
    # Long-tailed as well: a log-normal number of draws, its mean as asked for (mean = median · exp(σ²/2)).
    spread = 0.6
    draws = rng.lognormal(np.log(mean_interactions) - spread**2 / 2, spread, n_users)
    n_draws = np.maximum(1, np.minimum(np.rint(draws), n_items)).astype(np.int64)
    weights = np.column_stack([popularity[:, None] * mixture**2, popularity])  # the last column: popularity alone
    weights_up_to = np.cumsum(weights, axis=0)
    users = np.repeat(np.arange(n_users), n_draws)
    items = np.empty(len(users), np.int64)
    for start in range(0, len(users), _CHUNK):
        of = users[start : start + _CHUNK]
        theme = (tastes_up_to[of] < rng.random(len(of))[:, None]).sum(axis=1).clip(max=n_themes - 1)
        theme[rng.random(len(of)) < noise] = n_themes
        place = rng.random(len(of))
        for number in range(n_themes + 1):
            drawn = theme == number
            up_to = weights_up_to[:, number]
            found = np.searchsorted(up_to, place[drawn] * up_to[-1], side="right")
            items[start : start + _CHUNK][drawn] = found.clip(max=n_items - 1)
    # Late releases had less time to be seen: half of their draws go, but never the first draw of a user.
    first_draw = np.diff(users, prepend=-1) > 0
    keep = there_at_first[items] | (rng.random(len(items)) < 0.5) | first_draw
    users, items = users[keep], items[keep]
    unique = np.sort(np.unique(users * n_items + items, return_index=True)[1])
    return users[unique], items[unique]


def _features(
    rng: np.random.Generator, mixture: NDArray[np.float64], creator: NDArray[np.int64], width: int, style: float
) -> NDArray[np.float32]:
    """(J, width): the themes' directions in the item's mixture, the creator's style, and noise."""
    themes = rng.standard_normal((mixture.shape[1], width))
    styles = rng.standard_normal((int(creator.max()) + 1, width))
    values = mixture @ themes + style * styles[creator] + 0.4 * rng.standard_normal((len(mixture), width))
    return values.astype(np.float32)


def _graph(
    rng: np.random.Generator, mixture: NDArray[np.float64], main_theme: NDArray[np.int64], creator: NDArray[np.int64]
) -> KnowledgeGraph:
    n_items, n_themes = mixture.shape
    genres = [f"genre:{genre}" for genre, _, _ in _THEMES]
    everyone = np.arange(n_items)
    second = np.where(mixture >= 0.15, mixture, 0)
    second[everyone, main_theme] = 0
    has_second = np.flatnonzero(second.any(axis=1))
    second_theme = second[has_second].argmax(axis=1)
    # Three keywords: nouns of themes drawn from the item's own mixture (repeats fall together).
    up_to = np.cumsum(mixture, axis=1)
    n_words = len(_THEMES[0][2])
    word_items = np.repeat(everyone, 3)
    word_themes = (up_to[word_items] < rng.random(len(word_items))[:, None]).sum(axis=1).clip(max=n_themes - 1)
    words = rng.integers(n_words, size=len(word_items))
    names = _creator_names(int(creator.max()) + 1)
    triplets = [
        *((item, "genre", genres[theme]) for item, theme in enumerate(main_theme.tolist())),
        *((i, "genre", genres[theme]) for i, theme in zip(has_second.tolist(), second_theme.tolist(), strict=True)),
        *((item, "creator", f"creator:{names[row]}") for item, row in enumerate(creator.tolist())),
        *(
            (item, "keyword", f"keyword:{_THEMES[theme][2][word].lower()}")
            for item, theme, word in zip(word_items.tolist(), word_themes.tolist(), words.tolist(), strict=True)
        ),
    ]
    items, relations, entities = zip(*triplets, strict=True)
    return knowledge_graph(np.array(items, np.int32), relations, entities)


def _creator_names(count: int) -> list[str]:
    names = [f"{first} {last}" for last in _LAST_NAMES for first in _FIRST_NAMES]
    return [names[row % len(names)] + _again(row // len(names)) for row in range(count)]


def _titles(rng: np.random.Generator, main_theme: NDArray[np.int64]) -> list[str]:
    """A readable title for each item, all of them different: a repeated one gets a number."""
    kinds = rng.integers(4, size=len(main_theme)).tolist()
    words = rng.random((len(main_theme), 2))
    seen: dict[str, int] = {}
    titles = []
    for theme, kind, (one, two) in zip(main_theme.tolist(), kinds, words.tolist(), strict=True):
        _, adjective, nouns = _THEMES[theme]
        first = int(one * len(nouns))
        second = (first + 1 + int(two * (len(nouns) - 1))) % len(nouns)
        title = (
            f"The {adjective} {nouns[first]}",
            f"{nouns[first]} and {nouns[second]}",
            f"{adjective} {nouns[first]}, {adjective} {nouns[second]}",
            f"One {nouns[second]} for the {nouns[first]}",
        )[kind]
        seen[title] = seen.get(title, -1) + 1
        titles.append(title + _again(seen[title]))
    return titles


def _again(times: int) -> str:
    return f" {times + 1}" if times else ""
