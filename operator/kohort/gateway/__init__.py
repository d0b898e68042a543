"""The gateway: an Envoy that takes its routes from the operator, started, watched and drained."""

from kohort.gateway.launcher import main

__all__ = ["main"]
