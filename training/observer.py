"""What long work tells about itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Observer(Protocol):
    """What long work tells about itself."""

    def phase(self, name: str, total: int, share: float) -> None:
        """A phase of `total` steps begins; it is about `share` of the whole work."""

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Some steps of the phase are done; `figures` are what is worth showing now."""

    def note(self, text: str) -> None:
        """Something that the user should read."""


class Silence:
    """An observer that says nothing."""

    def phase(self, name: str, total: int, share: float) -> None:
        """Nothing."""

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Part:
    """Tells an observer about a part of its work: the part's shares are shares of the part."""

    def __init__(self, observer: Observer, share: float) -> None:
        self._observer = observer
        self._of_whole = share

    def phase(self, name: str, total: int, share: float) -> None:
        """A phase of the part."""
        self._observer.phase(name, total, share * self._of_whole)

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Pass it on."""
        self._observer.advance(steps, figures)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._observer.note(text)
