"""An inference request between its decoding and its answer, whichever way it came."""

from __future__ import annotations

import logging
import math

from kohort_server.batch.call import Result
from kohort_server.engine.interface import InputError
from kohort_server.errors import RequestError
from kohort_server.front.codec import InferRequest
from kohort_server.logs import trace_of

log = logging.getLogger(__name__)


class InferCall:
    """What the batcher runs. Subclasses say how an answer and a refusal go out."""

    __slots__ = (
        "abandoned",
        "batch_key",
        "deadline",
        "inputs",
        "received",
        "request",
        "rows",
        "size",
    )

    def __init__(self, request: InferRequest, received: float, deadline: float = math.inf) -> None:
        """`received` and `deadline` are times of time.perf_counter."""
        self.request = request
        self.inputs = request.inputs
        self.rows = request.rows
        self.size = request.size
        self.batch_key = request.batch_key
        self.abandoned = False
        self.received = received
        if request.timeout is not None:
            deadline = min(deadline, received + request.timeout)
        self.deadline = deadline

    def headers(self) -> dict[bytes, bytes]:
        """What came before the request; names in lower case."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The client has gone."""
        self.abandoned = True

    def answer(self, result: Result, start: int | None) -> None:
        """Answer with this call's rows; what is raised becomes a refusal."""
        raise NotImplementedError

    def refuse(self, error: RequestError) -> None:
        """Answer with an error."""
        raise NotImplementedError

    def deliver(self, result: Result, start: int | None) -> None:
        """See `Call`; an answer that cannot be made does not harm the others."""
        try:
            self.answer(result, start)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """See `Call`."""
        if isinstance(error, RequestError):
            self.refuse(error)
        elif isinstance(error, InputError):
            self.refuse(RequestError(400, str(error)))
        else:
            log.error("the model failed: %s", error, extra=trace_of(self.headers()))
            self.refuse(RequestError(500, f"the model failed: {error}"))
