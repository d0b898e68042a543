"""Figures, times and names as people read them: the words that every view of a rollout shares."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((86_400, "d", "d"), (3_600, "h", "h"), (60, "m", "min"), (1, "s", "s"))


def clean(text: str) -> str:
    """The text on one line and without control characters.

    Messages may quote what a model server printed; an escape sequence in it must not reach a terminal.
    """
    return " ".join("".join(c for c in text if c.isspace() or c.isprintable()).split())


def stopped(text: str) -> str:
    """The text with a full stop, unless it has an end already."""
    text = clean(text)
    return text if not text or text.endswith((".", "!", "?", "…")) else f"{text}."


def sentence(text: str) -> str:
    """The text with a full stop and a capital, unless it begins with a name or a figure."""
    first, gap, rest = clean(text).partition(" ")
    plain = first.isascii() and first.isalpha()
    return stopped(f"{first.capitalize() if plain and first.islower() else first}{gap}{rest}")


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time; None where there is none or it cannot be read."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def clock(time: datetime, now: datetime) -> str:
    """The time of day in the zone of ``now``, with the date when that is another day."""
    try:
        local = time.astimezone(now.tzinfo)
    except OverflowError:  # year 1 or 9999, at the edge of what a zone can shift
        local = time
    return f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def age(seconds: float) -> str:
    """One figure as in ``kubectl get``: ``12s``, ``3m``, ``5h``, ``4d``."""
    whole = max(0, int(seconds))
    size, short, _ = next((u for u in _UNITS if whole >= u[0]), _UNITS[-1])
    return f"{whole // size}{short}"


def duration(seconds: float) -> str:
    """At most two figures, for sentences: ``0.4 s``, ``12 s``, ``1 min 3 s``, ``2 h 5 min``."""
    seconds = max(0.0, seconds)
    if 0 < seconds < 10:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    rest = int(seconds)
    parts: list[str] = []
    for size, _, unit in _UNITS:
        figure, rest = divmod(rest, size)
        if figure or parts:
            parts.append(f"{figure} {unit}" if figure else "")
    return " ".join(filter(None, parts[:2])) or "0 s"


def share(failed: int, requests: int) -> str:
    """Failed per hundred requests, with two leading figures: ``2.7%``; empty without requests."""
    if requests <= 0:
        return ""
    percent = 100 * failed / requests
    return "0%" if percent == 0 else f"{percent:.2g}%" if percent < 99.5 else f"{percent:.0f}%"


def plural(count: int, noun: str) -> str:
    """``1 pod``, ``2 pods``, ``1,200 pods``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def uri_tail(uri: str, width: int) -> str:
    """As many whole path segments from the end of a URI as fit in ``width`` characters."""
    uri = clean(uri)
    if len(uri) <= width:
        return uri
    tail = uri[len(uri) - max(1, width - 2) :]
    slash = tail.find("/")
    if 0 <= slash < len(tail) - 1:
        return f"..{tail[slash:]}"
    return f"..{tail}"


def asked_by(by: str, why: str) -> str:
    """Who wanted something, and why: `` by anna: too early``; empty when nobody did."""
    return "".join([f" by {clean(by)}" if by else "", f": {clean(why)}" if why else ""])
