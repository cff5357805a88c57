"""Cron expressions."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError


def check_cron(expression: str) -> str:
    """A cron expression of five fields.

    Raises:
        ValueError: it is none.
    """
    try:
        if len(expression.split()) != 5:
            raise CronSimError("Wrong number of fields")
        CronSim(expression, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression ({error}), such as '30 3 * * *'") from None
    return expression


def first_after(expression: str, moment: datetime) -> datetime | None:
    """The expression's first time after a moment, None where there is none (30 February)."""
    return next(CronSim(expression, moment), None)
