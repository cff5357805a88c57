"""A client of the KDiffE service: `Client`, and `AsyncClient` for an event loop.

    from kdiffe_client import Client

    with Client("http://127.0.0.1:8000", key="kdk_…") as client:
        client.add_interactions({"user_id": "u7", "item_id": "i42"})
        for item in client.recommend("u7", k=10)["items"]:
            print(item["item_id"], item["score"])

Every operation of the service's OpenAPI description is a method of both; answers are plain dictionaries, typed by
`kdiffe_client.models`. Both modules are made from the description (`make client`); a test compares them.
"""

from kdiffe_client.client import AsyncClient, Client
from kdiffe_client.errors import (
    ApiError,
    ClientError,
    InvalidRequestError,
    NoAnswerError,
    UnavailableError,
    UnreadableAnswerError,
)

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "InvalidRequestError",
    "NoAnswerError",
    "UnavailableError",
    "UnreadableAnswerError",
]
