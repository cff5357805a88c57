"""Errors of the service, their codes and their HTTP status.

    KDiffEError
    └── ServiceError                    every one has a code of the closed set `ErrorCode`
        ├── UnknownUserError            unknown_user
        ├── UnknownItemError            unknown_item
        ├── UnknownJobError             unknown_job
        ├── UnknownVersionError         unknown_version
        ├── UnknownRouteError           not_found
        ├── MethodNotAllowedError       method_not_allowed
        ├── GoneError                   gone
        ├── InvalidRequestError         invalid_request
        ├── RequestTooLargeError        request_too_large
        ├── UnauthorizedError           unauthorized
        ├── ForbiddenError              forbidden
        ├── RateLimitedError            rate_limited
        ├── KeyNameError                invalid_request: told by the command alone
        ├── JobRunningError             job_running
        ├── NoEarlierVersionError       no_earlier_version
        ├── UnusableVersionError        unusable_version
        ├── JobEndedError               job_ended
        ├── JobFailedError              internal_error: kept as the job's error, never answered
        │   └── JobInterruptedError     the job is queued again
        ├── TrainingUnavailableError    training_unavailable
        ├── NotReadyError               not_ready
        ├── StateError                  state_unavailable
        │   ├── StateVersionError       the state was written by a newer release
        │   └── SetBackError            the log no longer holds what was read of it
        └── StartError                  internal_error: settings or an installation that can't be started with

Every error answers {"error": {"code", "message", "request_id"}}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

from model_store.errors import KDiffEError


class ErrorCode(StrEnum):
    """The closed set of error codes."""

    UNKNOWN_USER = "unknown_user"
    UNKNOWN_ITEM = "unknown_item"
    UNKNOWN_JOB = "unknown_job"
    UNKNOWN_VERSION = "unknown_version"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    GONE = "gone"
    INVALID_REQUEST = "invalid_request"
    REQUEST_TOO_LARGE = "request_too_large"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    JOB_RUNNING = "job_running"
    JOB_ENDED = "job_ended"
    NO_EARLIER_VERSION = "no_earlier_version"
    UNUSABLE_VERSION = "unusable_version"
    TRAINING_UNAVAILABLE = "training_unavailable"
    NOT_READY = "not_ready"
    STATE_UNAVAILABLE = "state_unavailable"
    INTERNAL_ERROR = "internal_error"


STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.UNKNOWN_USER: 404,
    ErrorCode.UNKNOWN_ITEM: 404,
    ErrorCode.UNKNOWN_JOB: 404,
    ErrorCode.UNKNOWN_VERSION: 404,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.GONE: 410,
    ErrorCode.INVALID_REQUEST: 422,
    ErrorCode.REQUEST_TOO_LARGE: 413,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.JOB_RUNNING: 409,
    ErrorCode.JOB_ENDED: 409,
    ErrorCode.NO_EARLIER_VERSION: 409,
    ErrorCode.UNUSABLE_VERSION: 409,
    ErrorCode.TRAINING_UNAVAILABLE: 501,
    ErrorCode.NOT_READY: 503,
    ErrorCode.STATE_UNAVAILABLE: 503,
    ErrorCode.INTERNAL_ERROR: 500,
}


class ServiceError(KDiffEError):
    """The service can't do what was asked."""

    code = ErrorCode.INTERNAL_ERROR
    # Seconds after which it may be asked again; None: there is no telling.
    retry_after: float | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]


class UnknownUserError(ServiceError):
    """A user that is in no artifact and in no interaction."""

    code = ErrorCode.UNKNOWN_USER

    @classmethod
    def of(cls, user_id: str) -> UnknownUserError:
        """The error that names the user."""
        return cls(f"Unknown user {user_id!r}: it has no interaction and is in no artifact.")


class UnknownItemError(ServiceError):
    """An item that is in no artifact and in no interaction."""

    code = ErrorCode.UNKNOWN_ITEM


class UnknownJobError(ServiceError):
    """No such job."""

    code = ErrorCode.UNKNOWN_JOB


class UnknownVersionError(ServiceError):
    """No such version in the store."""

    code = ErrorCode.UNKNOWN_VERSION


class UnknownRouteError(ServiceError):
    """No such path."""

    code = ErrorCode.NOT_FOUND


class MethodNotAllowedError(ServiceError):
    """The path exists, the method doesn't."""

    code = ErrorCode.METHOD_NOT_ALLOWED


class GoneError(ServiceError):
    """What was served can't be rebuilt any more: its version or its part of the log is gone, or a cursor's list is."""

    code = ErrorCode.GONE


class InvalidRequestError(ServiceError):
    """A field or parameter of the request is missing or out of its bounds."""

    code = ErrorCode.INVALID_REQUEST


class RequestTooLargeError(ServiceError):
    """The request's body or batch is larger than the settings allow."""

    code = ErrorCode.REQUEST_TOO_LARGE


class UnauthorizedError(ServiceError):
    """The key is missing or wrong."""

    code = ErrorCode.UNAUTHORIZED


class ForbiddenError(ServiceError):
    """The key has not the scope; or there is no admin key, and an admin request is not from this machine."""

    code = ErrorCode.FORBIDDEN


class JobEndedError(ServiceError):
    """The job has ended, so it can't be cancelled."""

    code = ErrorCode.JOB_ENDED


class RateLimitedError(ServiceError):
    """Too many requests."""

    code = ErrorCode.RATE_LIMITED

    def __init__(self, retry_after: float, rate: float) -> None:
        """Tell when to come back.

        Args:
            retry_after: in so many seconds.
            rate: requests a second that are allowed.
        """
        super().__init__(f"More than {rate:g} requests a second: send again in {math.ceil(retry_after)} s.")
        self.retry_after = retry_after


class KeyNameError(ServiceError):
    """A name or a scope of an API key that is taken or unknown."""

    code = ErrorCode.INVALID_REQUEST


class JobRunningError(ServiceError):
    """A retrain job waits already."""

    code = ErrorCode.JOB_RUNNING


class NoEarlierVersionError(ServiceError):
    """There is no version to roll back to."""

    code = ErrorCode.NO_EARLIER_VERSION


class UnusableVersionError(ServiceError):
    """A version that can't be read or served."""

    code = ErrorCode.UNUSABLE_VERSION


class JobFailedError(ServiceError):
    """A job's process ended without a version."""


class JobInterruptedError(JobFailedError):
    """A job was interrupted, because its service stops."""


class TrainingUnavailableError(ServiceError):
    """The training extra is not installed."""

    code = ErrorCode.TRAINING_UNAVAILABLE


class NotReadyError(ServiceError):
    """No model is loaded yet, or it no longer follows the log."""

    code = ErrorCode.NOT_READY


class StateError(ServiceError):
    """The state store can't be read or written."""

    code = ErrorCode.STATE_UNAVAILABLE


class StateVersionError(StateError):
    """The state was written by a newer release."""


class SetBackError(StateError):
    """The log no longer holds what was read of it: waiting does not help, who has read it must begin anew."""


class StartError(ServiceError):
    """Settings, or an installation, that the service can't be started with."""
