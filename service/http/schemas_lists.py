"""What goes in and out of `POST /recommend`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_store.admission import LARGEST
from service.http.schemas import RecommendedItem, Text
from service.recommendation.recommender import Wish
from service.recommendation.selection import Boost, ItemFilter, Range

# Entries of a list in a request, beyond what its own setting says; the body's size bounds all of them together.
MOST_IDS = 10_000
MOST_NAMES = 100

Ids = Annotated[list[Text], Field(max_length=MOST_IDS)]
Names = Annotated[list[Text], Field(max_length=MOST_NAMES)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Categories(_In):
    """Conditions on an item's categories; all that are given must hold."""

    any: Names = Field(default=[], description="In one of these at least.")
    all: Names = Field(default=[], description="In each of these.")
    none: Names = Field(default=[], description="In none of these; an item without categories is.")


class Bounds(_In):
    """Bounds of a number."""

    gte: Number | None = None
    gt: Number | None = None
    lte: Number | None = None
    lt: Number | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Bounds:
        if self.gte is self.gt is self.lte is self.lt is None:
            raise ValueError("give at least one of gte, gt, lte and lt")
        return self


class _Conditions(_In):
    categories: Categories = Field(default_factory=Categories)
    attributes: Annotated[dict[Text, Bounds], Field(max_length=MOST_NAMES)] = Field(
        default={}, description="Attribute → bounds; an item without the attribute is left out."
    )

    def item_filter(self, include: list[str] | None, exclude: list[str] | None = None) -> ItemFilter:
        """The conditions as the use case takes them, in one order whatever the order of the request."""
        return ItemFilter(
            None if include is None else tuple(sorted(set(include))),
            tuple(sorted(set(exclude or []))),
            tuple(sorted(set(self.categories.any))),
            tuple(sorted(set(self.categories.all))),
            tuple(sorted(set(self.categories.none))),
            {name: Range(b.gte, b.gt, b.lte, b.lt) for name, b in sorted(self.attributes.items())},
        )


class BoostIn(_Conditions):
    """What is added to the score of the items for which all conditions hold."""

    add: Number = Field(
        ge=-LARGEST, le=LARGEST, description="In units of the score; negative to push down. Several boosts add up."
    )
    items: Ids | None = Field(None, description="These items; all where it is missing.")


class ExplainIn(_Conditions):
    """An explanation about a list with conditions."""

    parts: Annotated[list[Literal["paths", "reasons", "counterfactual", "why_not"]], Field(max_length=4)] = ["why_not"]
    k: int = Field(20, ge=1, description="Length of the list.")
    most: int = Field(10, ge=1, description="How many interactions a counterfactual may name.")
    include: Ids | None = Field(None, description="These items alone.")
    exclude: Ids = Field(default=[], description="Not these items.")


class RecommendIn(_Conditions):
    """Lists for several users, or for an anonymous session."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            # What `_one_of` checks, for who reads the description.
            "oneOf": [
                {"required": ["user_ids"], "properties": {"session": {"type": "null"}}},
                {"required": ["session"], "properties": {"user_ids": {"type": "null"}}},
            ],
            "examples": [
                {"user_ids": ["u7"], "k": 10, "categories": {"any": ["lamps"]}, "attributes": {"price": {"lte": 50}}},
                {"session": ["i1", "i2"], "diversity": 0.3, "exclude": ["i9"]},
            ],
        },
    )

    user_ids: Annotated[list[Text], Field(min_length=1)] | None = Field(None, description="Users, each once.")
    session: Ids | None = Field(
        None, description="Item ids instead of users: what a new user with these interactions gets. Nothing is stored."
    )
    k: int = Field(20, ge=1, description="Items of each list.")
    include: Ids | None = Field(None, description="These items alone.")
    exclude: Ids = Field(default=[], description="Not these items.")
    boosts: Annotated[list[BoostIn], Field(max_length=32)] = []
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.0, description="Weight of unlikeness to the items before (maximal marginal relevance); 0 orders by score."
    )
    min_score: Number | None = Field(
        None, description="Least score; such a list is not filled up with popular items, whose scores are counts."
    )
    cursor: str | None = Field(
        None, max_length=4096, description="Where the list goes on: from the page before, for one user or session."
    )

    @model_validator(mode="after")
    def _one_of(self) -> RecommendIn:
        if (self.user_ids is None) == (self.session is None):
            raise ValueError("give either user_ids or session")
        if self.user_ids is not None and len(set(self.user_ids)) != len(self.user_ids):
            raise ValueError("user_ids: a user stands in the list twice")
        if self.cursor is not None and self.user_ids is not None and len(self.user_ids) > 1:
            raise ValueError("cursor: a page goes on for one user at a time")
        return self

    def wish(self) -> Wish:
        """The request as the use case takes it."""
        return Wish(
            self.k,
            self.item_filter(self.include, self.exclude),
            tuple(Boost(boost.add, boost.item_filter(boost.items)) for boost in self.boosts),
            self.diversity,
            self.min_score,
        )

    def named_items(self) -> list[str]:
        """Every item that is named."""
        of_boosts = [item_id for boost in self.boosts for item_id in boost.items or []]
        return [*(self.session or []), *(self.include or []), *self.exclude, *of_boosts]


class ListPage(BaseModel):
    """A page of a list."""

    model_config = ConfigDict(extra="forbid")

    user_id: str | None = Field(description="null for a session.")
    items: list[RecommendedItem]
    cursor: str | None = Field(description="For the next page; null where the list ends.")
    model_version: str
    sequence: int = Field(description="The last interaction of the log that the user's row holds.")
    refreshed_at: int = Field(description="The last interaction of the log that T and the item vectors hold.")
    recommendation_id: str | None = Field(description="For /explain; null for a session, which nobody can ask about.")
    index: str = Field(description="The backend that searched; empty where none was asked.")
    variant: str = Field(description="The user's in the experiment; `main` for the active version.")


class Lists(BaseModel):
    """A list for each user, in the order of the request."""

    model_config = ConfigDict(extra="forbid")

    results: list[ListPage]
    unknown_items: list[str] = Field(description="Items that the request names and nobody knows.")
