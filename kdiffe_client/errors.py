"""Errors of the client.

ClientError
├── InvalidRequestError       it can't be sent: an id that is no text, a key that can't stand in a header
├── NoAnswerError             the service can't be reached, or did not answer in time
├── UnreadableAnswerError     what came as a good answer is none of the service's: a proxy's page, damaged bytes
└── ApiError                  it answered with an error, which has a code of its closed set
    └── UnavailableError      for the moment: it asks to be tried again later
"""

from __future__ import annotations


class ClientError(Exception):
    """A request has failed."""


class InvalidRequestError(ClientError):
    """A request can't be sent, whenever it is tried."""


class NoAnswerError(ClientError):
    """No answer came."""


class UnreadableAnswerError(ClientError):
    """An answer came that can't be read."""


class ApiError(ClientError):
    """The service answered with an error.

    Attributes:
        status: of HTTP.
        code: one of the service's codes, `unknown_user` for instance; empty where the answer was none of its own.
        message: what was wrong, and what next.
        request_id: under which the service's log has it.
        retry_after: seconds after which it may be tried again, None where nothing was said.
    """

    def __init__(
        self, status: int, code: str, message: str, request_id: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(f"{message} ({status} {code}, request {request_id})")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after


class UnavailableError(ApiError):
    """Too many requests, or not ready: try again later."""
