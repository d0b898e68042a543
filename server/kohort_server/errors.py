"""The two ways things go wrong: a start that fails, and a request that cannot be answered."""

from __future__ import annotations

from kohort.contract import Failure, FailureReason

# Characters. In gRPC's headers each may take twelve bytes, and all must fit a frame of 16,384.
LONGEST_MESSAGE = 1000


class StartFailure(Exception):
    """The server cannot start; carries what the operator is told in the last line of stderr."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason, message)


def shorten(message: str) -> str:
    """A message without most of what a client wrote into it."""
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"


class RequestError(Exception):
    """A request that is answered with an error: an HTTP status and a message for the client."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        message = shorten(message)
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after  # seconds; told in the Retry-After header
