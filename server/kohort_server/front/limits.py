"""What the HTTP transport lets clients take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client, and all together, may take. Sizes in bytes, times in seconds."""

    head: int = 16 << 10
    body: int = 64 << 20
    bodies: int = 1 << 30  # received and unanswered, of all connections
    connections: int = 20_000
    # A request must be complete this long after it began, plus what its size takes at `rate`.
    request: float = 20.0
    rate: float = 16 << 10
    # An answer that its client does not take is given up after this long.
    unread: float = 120.0
    # Longer than an Envoy keeps an idle upstream connection, so that the gateway always closes
    # first and never sends a request on a connection that is being closed.
    idle: float = 3900.0
