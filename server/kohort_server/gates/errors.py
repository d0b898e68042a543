"""What a gate says when it cannot be decided at all."""

from __future__ import annotations


class GateError(Exception):
    """Golden data, a model's answers or a gate that do not fit together; the message says what to do."""
