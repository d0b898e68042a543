"""The log: lines for people, or JSON for machines, with the trace that a request belongs to.

What is logged about a request carries its trace as W3C Trace Context has it (the header traceparent).
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime

import msgspec

TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.DOTALL)
FORMATS = ("text", "json")


def trace_of(headers: dict[bytes, bytes]) -> dict[str, str]:
    """The ids of the trace and the span that a request tells; empty where it tells no valid ones."""
    told = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    if told is None or told[0].startswith(b"ff") or (told[3] and told[0].startswith(b"00")):
        return {}
    trace, span = told[1].decode(), told[2].decode()
    return {"trace_id": trace, "span_id": span} if trace.strip("0") and span.strip("0") else {}


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without an exception's lines."""
        trace = getattr(record, "trace_id", None)
        return super().formatMessage(record) + (f" trace_id={trace}" if trace else "")


class JsonFormatter(logging.Formatter):
    """An object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole record."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("trace_id", "span_id"):
            if (value := getattr(record, name, None)) is not None:
                told[name] = value
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told).decode()


def start_logging(form: str) -> None:
    """Log to stderr in one of `FORMATS`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
