"""What goes in and out of `/items/{item_id}`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from model_store.admission import LARGEST
from service.http.schemas import Name, Text

# Entries of one item; the body's size bounds all of them together.
MOST_NAMES = 1000
MOST_FEATURES = 65_536
# The most characters of what is shown; an array of names is as wide as the longest of them.
LONGEST_TITLE = 1000


class EntityIn(BaseModel):
    """A fact about an item."""

    model_config = ConfigDict(extra="forbid", strict=True)

    relation: Name
    entity: Name


class ItemIn(BaseModel):
    """What is known of an item. It takes the place of what was known before."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "name": "A lamp",
                    "categories": ["lamps", "new"],
                    "attributes": {"price": 49.5},
                    "entities": [{"relation": "brand", "entity": "acme"}],
                    "features": {"visual": [0.1, -0.2, 0.3]},
                }
            ]
        },
    )

    name: Annotated[Text, Field(max_length=LONGEST_TITLE)] | None = Field(None, description="What to show.")
    categories: Annotated[list[Name], Field(max_length=MOST_NAMES)] = Field(
        default=[], description="What filters and boosts of POST /recommend ask for."
    )
    attributes: Annotated[dict[Name, Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=MOST_NAMES)] = (
        Field(default={}, description="Numbers for ranges; a time as seconds since 1970.")
    )
    entities: Annotated[list[EntityIn], Field(max_length=MOST_NAMES)] = Field(
        default=[], description="Facts of the knowledge graph: they place an item that nobody has touched yet."
    )
    features: Annotated[
        dict[
            Name,
            Annotated[
                list[Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]],
                Field(min_length=1, max_length=MOST_FEATURES),
            ],
        ],
        Field(max_length=MOST_NAMES),
    ] = Field(default={}, description="Modality → feature vector, made as those that the model was trained with.")

    def content(self) -> dict[str, Any]:
        """The record as the log holds it: what is empty is left out."""
        return {name: value for name, value in self.model_dump().items() if value not in (None, [], {})}


class ItemTaken(BaseModel):
    """An item was put or withdrawn."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    accepted: bool = Field(
        description="False where the Idempotency-Key was used before, for this write or another: nothing changed."
    )
    sequence: int = Field(description="The log's last sequence number: lists that hold it hold the change.")
    has_vector: bool = Field(description="Whether the served version can place it among the others.")
    unknown: list[str] = Field(description="Relations, entities and modalities that the served version doesn't know.")
    model_version: str


class ItemOut(BaseModel):
    """What is known of an item."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    name: str | None
    record: dict[str, Any] | None = Field(description="As it was put; null where there is none.")
    recorded_at: int | None = Field(description="Sequence number of the record's entry in the log.")
    withdrawn: bool = Field(description="Whether it is never recommended.")
    in_version: bool = Field(description="Whether the served version was trained with it.")
    has_vector: bool
    n_interactions: int
    model_version: str
    sequence: int
