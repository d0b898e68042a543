"""Beside Envoy: answer copies of requests by stable and by canary, and count how the answers compare.

No client ever waits for this process or sees what it gets: it takes what it can and drops the rest.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from kohort.contract import (
    HEADER_CLUSTER,
    HEADER_COHORT,
    HEADER_MIRROR,
    METRIC_MIRRORED,
    MIRROR,
    MIRROR_COUNTERS_PATH,
    Outcome,
)
from kohort.gateway.answers import Answer, compared
from kohort.gateway.sockets import REPLAY_SECONDS, mirror_socket, replay_socket

CONCURRENCY = 8
"""Requests that are answered twice at a time; what more comes is dropped."""

MAX_REQUEST_BYTES = 2 << 20
MAX_ANSWER_BYTES = 4 << 20
JSON_LENGTH = "inference-header-content-length"
# What belongs to one hop, or that we say ourselves.
_NOT_REPLAYED = frozenset(
    {"host", "connection", "content-length", "content-encoding", "transfer-encoding", "te"}
)

Key = tuple[str, str, str, Outcome]
"""Stable's and canary's cluster, cohort, and what came of it."""


class Comparer:
    """Replays requests and counts outcomes."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._counts: Counter[Key] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, request: web.Request) -> web.Response:
        """A copy of a client's request; its answer goes nowhere."""
        arms = request.headers.get(HEADER_MIRROR, "").split(",")
        if len(arms) == 2 and request.method == "POST" and request.path.endswith("/infer"):
            stable, canary = arms
            cohort = request.headers.get(HEADER_COHORT, "")
            body = await request.read()
            if len(self._tasks) < CONCURRENCY:
                headers = replayed(request.headers, cohort)
                work = self._compare(request.path_qs, headers, body, stable, canary, cohort)
                task = asyncio.create_task(work)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._counts[stable, canary, cohort, Outcome.DROPPED] += 1
        return web.Response(status=204)

    async def counters(self, _: web.Request) -> web.Response:
        """All counts in Prometheus's format."""
        lines = [f"# TYPE {METRIC_MIRRORED} counter"]
        for (stable, canary, cohort, outcome), count in sorted(self._counts.items()):
            labels = f'stable="{stable}",canary="{canary}",cohort="{cohort}",outcome="{outcome}"'
            lines.append(f"{METRIC_MIRRORED}{{{labels}}} {count}")
        return web.Response(text="\n".join((*lines, "")))

    async def _compare(
        self,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        stable: str,
        canary: str,
        cohort: str,
    ) -> None:
        answers = await asyncio.gather(
            *(self._ask(target, headers, body, arm) for arm in (stable, canary))
        )
        outcome = (
            Outcome.DROPPED if None in answers else compared(*(a for a in answers if a is not None))
        )
        self._counts[stable, canary, cohort, outcome] += 1

    async def _ask(
        self, target: str, headers: Mapping[str, str], body: bytes, cluster: str
    ) -> Answer | None:
        """An arm's answer; None for one that is too long to be looked at."""
        try:
            async with self._session.post(
                f"http://replay{target}", data=body, headers={**headers, HEADER_CLUSTER: cluster}
            ) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        return None
                told = response.headers.get(JSON_LENGTH, "")
                length = int(told) if told.isdigit() else None
                return Answer(response.status, bytes(content), length)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Answer(0)


def replayed(headers: Mapping[str, str], cohort: str) -> dict[str, str]:
    """The headers with which a request is sent once more: pods are told that nobody waits for it."""
    kept = {
        name: value
        for name, value in headers.items()
        if name.lower() not in _NOT_REPLAYED and not name.lower().startswith("x-kohort-")
    }
    return kept | {HEADER_COHORT: cohort + MIRROR}


async def serve(directory: Path) -> None:
    """Run for ever; ``directory`` is Envoy's private one."""
    timeout = aiohttp.ClientTimeout(total=REPLAY_SECONDS)
    connector = aiohttp.UnixConnector(str(replay_socket(directory)))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        comparer = Comparer(session)
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get(MIRROR_COUNTERS_PATH, comparer.counters)
        app.router.add_route("*", "/{path:.*}", comparer.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        mirror_socket(directory).unlink(missing_ok=True)  # of one that was killed
        await web.UnixSite(runner, str(mirror_socket(directory))).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
