"""What a stranger may not do before anybody knows who they are: hold connections and say nothing."""

from __future__ import annotations

import asyncio

from aiohttp import web

MOST_CONNECTIONS = 256
SILENT_SECONDS = 10.0
SWEEP_SECONDS = 2.0


class Connections:
    """Closes connections that have sent no whole request in time, and the silent ones of too many."""

    def __init__(self) -> None:
        self._first_seen: dict[object, float] = {}
        self._spoke: set[object] = set()

    def spoke(self, request: web.BaseRequest) -> None:
        """A whole request has come over this connection: from now on aiohttp's own time-outs hold."""
        self._spoke.add(request.protocol)

    async def watch(self, server: web.Server) -> None:
        """Looks after a server's connections until cancelled."""
        while True:
            self.sweep(server, asyncio.get_running_loop().time())
            await asyncio.sleep(SWEEP_SECONDS)

    def sweep(self, server: web.Server, now: float) -> None:
        """Closes what has to be closed at ``now``, in the loop's time."""
        present = set(server.connections)
        self._spoke &= present
        silent = [c for c in present if c not in self._spoke]
        self._first_seen = {c: self._first_seen.get(c, now) for c in silent}
        surplus = len(server.connections) - MOST_CONNECTIONS
        silent.sort(key=lambda c: self._first_seen[c])
        for index, connection in enumerate(silent):
            if index < surplus or now - self._first_seen[connection] >= SILENT_SECONDS:
                connection.force_close()
