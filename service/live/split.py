"""Which variant of the model a user gets: sticky, by a hash of the user's id. For canaries and for A/B tests alike.

Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights after Schindelhauer and Schomaker, 2005): a user gets
the variant with the largest weight / -ln(h), h a hash of the split's name, the variant and the user, uniform in (0, 1).
So every process on every machine says the same with nothing stored, a variant's share of the users is its weight's
share of all weights, and a weight that changes moves only users who come to, or leave, that one variant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType


@dataclass(frozen=True)
class Split:
    """A division of the users among variants.

    Attributes:
        name: of the experiment; another name deals the users anew.
        weights: variant → weight ≥ 0, relative to each other; at least one is above 0.
    """

    name: str
    weights: Mapping[str, float] = field(hash=False)

    def __post_init__(self) -> None:
        """Refuse weights that don't divide anything.

        Raises:
            ValueError: no variant, or a weight that is negative, not finite, or all are 0.
        """
        for variant, weight in self.weights.items():
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"variant {variant!r} has weight {weight}: it must be a number ≥ 0")
        if not any(self.weights.values()):
            raise ValueError(f"split {self.name!r}: no variant has a weight above 0")
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    @classmethod
    def canary(cls, name: str, main: str, canary: str, share: float) -> Split:
        """A share of the users (0 to 1) for `canary`, the others for `main`.

        Raises:
            ValueError: the share lies elsewhere, or the two are one.
        """
        if not 0 <= share <= 1 or main == canary:
            raise ValueError(f"a canary {canary!r} beside {main!r} with share {share}: two names and 0 ≤ share ≤ 1")
        return cls(name, {main: 1.0 - share, canary: share})

    def variant_of(self, user_id: str) -> str:
        """The user's variant; always the same one for the same weights."""
        best, chosen = -1.0, ""
        for variant, weight in self.weights.items():
            if weight > 0:
                worth = weight / -math.log(uniform(self.name, variant, user_id))
                if worth > best or (worth == best and variant < chosen):
                    best, chosen = worth, variant
        return chosen

    def share_of(self, variant: str) -> float:
        """The variant's share of the users, 0 where there is none of that name."""
        return self.weights.get(variant, 0.0) / math.fsum(self.weights.values())


def uniform(*parts: str) -> float:
    """A number in (0, 1) that is a pure function of some texts: 53 bits of BLAKE2b over their lengths and contents."""
    digest = blake2b(digest_size=8, person=b"kdiffe-split")
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return ((int.from_bytes(digest.digest(), "little") >> 11) + 0.5) / 2**53
