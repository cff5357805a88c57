"""An experiment: versions that shares of the users get beside the active one. Sticky, by a hash of the user's id.

A hash of the experiment's name and the user's id puts every user into one of `SLOTS` slots. A variant holds some of the
slots and the active version (`MAIN`) the rest, so every process on every machine says the same. What a variant holds is
kept rather than computed from the shares: shares that change move the slots by which they differ, and nobody else.
(Rendezvous hashing with weights moves users between variants whose own shares stay, since main's share gives way.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

# Parts of the users that can be told apart: shares come in steps of 1/SLOTS.
SLOTS = 10_000
# Variants beside the active version. Each is a model in memory that follows the log, and writes wait for it.
MOST_VARIANTS = 4
MAIN = "main"
LONGEST_NAME = 64
# What reads are counted as whose request names the variant.
FORCED = "forced"
VARIANT_NAME = r"[a-z0-9][a-z0-9_-]{0,31}"


@dataclass(frozen=True)
class Arm:
    """A variant as it is asked for.

    Attributes:
        name: what replies and metrics call it.
        version: the version that it gets.
        share: of the users, 0 (only who asks for it) to 1, rounded to 1/SLOTS.
    """

    name: str
    version: str
    share: float


@dataclass(frozen=True)
class Variant:
    """A variant of an experiment.

    Attributes:
        name: what replies and metrics call it.
        version: the version that it gets.
        slots: ranges [first, end) of the slots that it holds, in order.
    """

    name: str
    version: str
    slots: tuple[tuple[int, int], ...] = ()

    @property
    def share(self) -> float:
        """The share of the users that it gets."""
        return sum(end - first for first, end in self.slots) / SLOTS


@dataclass(frozen=True)
class Experiment:
    """Versions beside the active one.

    Attributes:
        name: of the experiment; another name deals the users anew.
        variants: one at least.
    """

    name: str
    variants: tuple[Variant, ...]

    @classmethod
    def dealt(cls, name: str, arms: Sequence[Arm], before: Experiment | None = None) -> Experiment:
        """An experiment, of the same name as the one before or a new one.

        As few slots as can be change hands: a variant that shrinks gives its last ones, one that grows takes first what
        others give, then main's.

        Args:
            name: its name.
            arms: its variants.
            before: the experiment that runs now.

        Raises:
            ValueError: arms that can't be.
        """
        check_arms(name, arms)
        held = {} if before is None or before.name != name else {v.name: _slots(v.slots) for v in before.variants}
        wanted = {arm.name: round(arm.share * SLOTS) for arm in arms}
        kept = {arm.name: held.get(arm.name, [])[: wanted[arm.name]] for arm in arms}
        taken = {slot for slots in held.values() for slot in slots}
        given = sorted(taken.difference(*kept.values()))
        free = iter([*given, *(slot for slot in range(SLOTS) if slot not in taken)])
        variants = []
        for arm in arms:
            more = [next(free) for _ in range(wanted[arm.name] - len(kept[arm.name]))]
            variants.append(Variant(arm.name, arm.version, _ranges(sorted([*kept[arm.name], *more]))))
        return cls(name, tuple(variants))

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Experiment:
        """An experiment as `dataclasses.asdict` gives it.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        variants = tuple(
            Variant(str(v["name"]), str(v["version"]), tuple((int(first), int(end)) for first, end in v["slots"]))
            for v in raw["variants"]
        )
        held = [slot for variant in variants for slot in _slots(variant.slots)]
        if len(set(held)) != len(held) or not set(held) <= set(range(SLOTS)):
            raise ValueError(f"the slots of {raw['name']!r} overlap or lie outside of 0..{SLOTS - 1}")
        return cls(str(raw["name"]), variants)

    @property
    def main_share(self) -> float:
        """The share of the users that the active version keeps."""
        return round(1.0 - sum(variant.share for variant in self.variants), 6)

    def without(self, gone: Iterable[str]) -> Experiment | None:
        """Without the variants of some versions, None where none is left."""
        gone = set(gone)
        variants = tuple(variant for variant in self.variants if variant.version not in gone)
        return Experiment(self.name, variants) if variants else None

    def variant_of(self, user_id: str) -> str:
        """The name of the variant that a user gets, MAIN for the active version."""
        return self._holders[self._of_slot[slot_of(self.name, user_id)]]

    @cached_property
    def _holders(self) -> tuple[str, ...]:
        return (MAIN, *(variant.name for variant in self.variants))

    @cached_property
    def _of_slot(self) -> bytes:
        """Slot → place of its holder in `_holders`."""
        table = bytearray(SLOTS)
        for place, variant in enumerate(self.variants, 1):
            for first, end in variant.slots:
                table[first:end] = bytes([place]) * (end - first)
        return bytes(table)


def slot_of(name: str, user_id: str) -> int:
    """A user's slot: a pure function of the experiment's name and the user's id (BLAKE2b over lengths and contents)."""
    digest = blake2b(digest_size=8, person=b"kdiffe-split")
    for part in (name, user_id):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little") % SLOTS


def check_arms(name: str, arms: Sequence[Arm]) -> None:
    """Refuse an experiment that can't be.

    Raises:
        ValueError: its name, or a variant's; a share; too few or too many variants; two of one name; more than all.
    """
    if not name:
        raise ValueError("An experiment needs a name: another name deals the users anew.")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"name {name[:LONGEST_NAME]!r}: at most {LONGEST_NAME} printable characters are allowed.")
    if not 1 <= len(arms) <= MOST_VARIANTS:
        raise ValueError(f"{len(arms)} variants: 1 to {MOST_VARIANTS} are allowed beside {MAIN}.")
    for arm in arms:
        if not re.fullmatch(VARIANT_NAME, arm.name) or arm.name in {MAIN, FORCED}:
            raise ValueError(
                f"variant {arm.name!r}: a name is {VARIANT_NAME} and neither {MAIN!r} (the active version) nor "
                f"{FORCED!r}."
            )
        if not 0 <= arm.share <= 1 or (arm.share > 0 and round(arm.share * SLOTS) == 0):
            raise ValueError(f"variant {arm.name!r}: its share must be 0 or lie in {1 / SLOTS}..1, not at {arm.share}.")
    if len({arm.name for arm in arms}) < len(arms):
        raise ValueError("Two variants have one name.")
    if sum(round(arm.share * SLOTS) for arm in arms) > SLOTS:
        raise ValueError(f"The shares add up to {sum(arm.share for arm in arms):g}: at most 1, {MAIN} gets the rest.")


def _slots(ranges: Iterable[tuple[int, int]]) -> list[int]:
    return [slot for first, end in ranges for slot in range(first, end)]


def _ranges(slots: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as ranges [first, end)."""
    ranges: list[tuple[int, int]] = []
    for slot in slots:
        if ranges and ranges[-1][1] == slot:
            ranges[-1] = (ranges[-1][0], slot + 1)
        else:
            ranges.append((slot, slot + 1))
    return tuple(ranges)
