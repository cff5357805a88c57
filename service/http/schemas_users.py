"""What goes in and out about users and about the weights of interaction types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.http.schemas import Text
from service.state.port import MOST_WEIGHT

# Whole numbers that every JSON reader keeps (RFC 8259, section 6).
WHOLE = 2**53 - 1
MOST_ATTRIBUTES = 100
Number = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-WHOLE, le=WHOLE)]
Value = bool | Whole | Number | Annotated[str, Field(max_length=1000)]


class UserIn(BaseModel):
    """What is to be known of a user, in the place of all that was known before."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"attributes": {"country": "AT", "age": 33, "topics": ["ski", "food"]}}]},
    )

    attributes: dict[Text, Value | Annotated[list[Value], Field(max_length=MOST_ATTRIBUTES)]] = Field(
        max_length=MOST_ATTRIBUTES, description="Name → text, number, truth value, or a list of these."
    )


class UserTaken(BaseModel):
    """A user's record was put."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "u7", "accepted": True, "sequence": 1205}]}
    )

    user_id: str
    accepted: bool = Field(
        description="False where the Idempotency-Key was used before, for this write or another: nothing changed."
    )
    sequence: int = Field(description="The log's last sequence number: what holds it holds the record.")


class UserOut(BaseModel):
    """What is known of a user."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "user_id": "u7",
                    "record": {"attributes": {"country": "AT"}},
                    "recorded_at": 1205,
                    "n_interactions": 12,
                    "in_version": True,
                    "model_version": "v0001",
                    "sequence": 1205,
                }
            ]
        },
    )

    user_id: str
    record: dict[str, Any] | None = Field(description="As it was put; null where there is none.")
    recorded_at: int | None = Field(description="Sequence number of the record's entry in the log.")
    n_interactions: int
    in_version: bool = Field(description="Whether the served version was trained with the user.")
    model_version: str
    sequence: int


class UserErased(BaseModel):
    """A user was erased."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"user_id": "u7", "sequence": 1206, "versions": ["v0001"]}]},
    )

    user_id: str
    sequence: int = Field(description="The log's last sequence number: lists that hold it know nothing of the user.")
    versions: list[str] = Field(description="Versions that still hold the user, until they are pruned.")


class TypeWeight(BaseModel):
    """How often the loss samples interactions of a type."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"weight": 3.0}]})

    weight: float = Field(
        ge=0, le=MOST_WEIGHT, allow_inf_nan=False, description="Beside 1; it counts from the next training."
    )


class TypeWeights(BaseModel):
    """Weights of the interaction types."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"types": {"buy": 3.0}, "other": 1.0}]})

    types: dict[str, float]
    other: float = Field(description="The weight of every type that was given none.")
