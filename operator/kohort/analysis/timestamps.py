"""Times in status: RFC 3339 in UTC with milliseconds, and back."""

from __future__ import annotations

from datetime import UTC, datetime


def to_time(moment: datetime) -> str:
    """An aware datetime as status keeps it, cut to whole milliseconds: ``2026-01-31T12:00:00.000Z``."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"


def from_time(text: str) -> datetime:
    """The aware datetime of an RFC 3339 time; raises ValueError for what is none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it like 2026-01-31T12:00:00.000Z")
    return moment
