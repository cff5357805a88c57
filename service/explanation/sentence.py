"""An explanation in plain words: nothing that the numbers beside it don't say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

# Where a user's lists hold the item: ranked by its score; by its number of users, as nothing is known of the user, or
# at the end, as nothing is known of the item before the next refresh, or of it at all; nowhere, as seen or withdrawn.
Place = Literal["ranked", "popular", "awaited", "unknown", "seen", "withdrawn"]

# Contributing items that a sentence names, and entities that it says they share.
ITEMS = 2
ENTITIES = 3
# A share of the weight that is not worth a word.
LITTLE = 0.01
AT_THE_END = "stands at the list's end, by its number of users"
AS_A_WHOLE = "what the model has learned of this user as a whole"


class Because(NamedTuple):
    """A contributing item.

    Attributes:
        name: its name or id.
        share: its part of the score's weight.
        shared: what it has in common with the explained item, in words (`brand Nike`).
        itself: whether it is the explained item.
    """

    name: str
    share: float
    shared: Sequence[str]
    itself: bool = False


def sentence(item: str, place: Place, rank: int, self_share: float, because: list[Because]) -> str:
    """Why an item has its score, and its place.

    Args:
        item: its name or id.
        place: where the user's lists hold it.
        rank: its rank among the unseen items, where it is ranked.
        self_share: the share of the user's own vector.
        because: the contributing items, the largest share first.
    """
    quoted = _quoted(item)
    match place:
        case "withdrawn":
            return f"{quoted} is withdrawn: no list holds it."
        case "popular":
            return f"{quoted} stands where its number of users puts it: nothing is known of this user's taste yet."
        case "awaited":
            return f"{quoted} {AT_THE_END}: that they chose it counts from the next refresh on."
        case "unknown":
            return (
                f"{quoted} {AT_THE_END}: nothing is known yet that would place it (interactions, or entities or "
                "features that the model knows)."
            )
        case "seen":
            return f"{quoted} was chosen already; {_of_seen(self_share, because)}."
    named = _named(because)
    if not named:
        if self_share >= LITTLE:
            return f"{quoted} ranks {_ordinal(rank)} by {AS_A_WHOLE}."
        return f"{quoted} ranks {_ordinal(rank)} although nothing that this user chose speaks for it."
    text = f"{quoted} ranks {_ordinal(rank)} because this user chose {_weighed(named)}{_shared(named)}."
    if self_share >= max(one.share for one in named):
        text += f" More of it ({self_share:.0%}) is what the model has learned of the user as a whole."
    return text


def without(removed: Sequence[str], rank: int | None, replaced_by: str | None) -> str:
    """What the counterfactual says."""
    names = _listed([_quoted(name) for name in removed])
    fall = "it would leave the list" if rank is None else f"it would fall to rank {rank}"
    instead = "" if replaced_by is None else f", and {_quoted(replaced_by)} would come in"
    return f"Without {names} {fall}{instead}."


def _of_seen(self_share: float, because: list[Because]) -> str:
    """What the score of an item comes from that needs no reason to be shown."""
    named = _named(because)
    if named:
        return f"its score comes from {_weighed(named)}{_shared(named)}"
    if self_share >= LITTLE:
        return f"its score comes from {AS_A_WHOLE}"
    if self_share or any(one.share for one in because):
        return "nothing that this user chose speaks for it"
    return "it has no score yet"


def _named(because: list[Because]) -> list[Because]:
    return [one for one in because if one.share >= LITTLE][:ITEMS]


def _weighed(named: list[Because]) -> str:
    words = ["the choice itself" if one.itself else _quoted(one.name) for one in named]
    return " and ".join(f"{word} ({one.share:.0%} of the weight)" for word, one in zip(words, named, strict=True))


def _shared(named: list[Because]) -> str:
    others = [one for one in named if not one.itself]
    if not others:
        return ""
    first = others[0]
    common = [word for word in first.shared if all(word in one.shared for one in named)][:ENTITIES]
    if common and others == named:
        verb = "shares" if len(named) == 1 else "share"
        return f", which {verb} {_listed(common)} with it"
    if first.shared:
        return f"; {_quoted(first.name)} shares {_listed(first.shared[:ENTITIES])} with it"
    return ""


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _quoted(name: str) -> str:
    return f"“{name}”"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
