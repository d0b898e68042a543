"""Probes: asking a container whether it is well, as often and as long as its spec says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from kohort_local.client import Object
from kohort_local.node.environment import Launch
from kohort_local.node.run import run_command

_EAGER_SECONDS = 0.1
_EAGER_FOR_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """How a container answered; `reason` says why it is not well."""

    well: bool
    reason: str = ""


class Prober:
    """Asks containers; one for the whole node."""

    def __init__(self) -> None:
        # A connection per question, as a kubelet: one that is kept says nothing of a listener.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, ssl=False, limit=0)
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._session.close()

    async def ask(
        self, handler: Object, container: Object, address: str, launch: Launch, seconds: float
    ) -> Answer:
        """Ask once, by httpGet, tcpSocket or exec.

        Args:
            handler: A probe or lifecycle handler.
            container: The container's spec, for the names of its ports.
            address: The pod's.
            launch: For commands.
            seconds: How long it may take to answer.
        """
        try:
            if "httpGet" in handler:
                return await self._http(handler["httpGet"], container, address, seconds)
            if "tcpSocket" in handler:
                return await _tcp(handler["tcpSocket"], container, address, seconds)
            if "exec" in handler:
                code, output = await run_command(launch, handler["exec"]["command"], seconds)
                return Answer(code == 0, output.strip() or f"exit code {code}")
        except TimeoutError:
            return Answer(False, f"no answer within {seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(False, f"{type(error).__name__}: {error}")
        return Answer(False, "the local node asks by httpGet, tcpSocket and exec only")

    async def _http(self, get: Object, container: Object, address: str, seconds: float) -> Answer:
        host = get.get("host") or address
        url = f"{get.get('scheme', 'HTTP').lower()}://{host}:{port_number(get['port'], container)}"
        path = get.get("path", "/")
        headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"}
        headers |= {header["name"]: header["value"] for header in get.get("httpHeaders", [])}
        async with self._session.get(
            url + (path if path.startswith("/") else f"/{path}"),
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            well = 200 <= response.status < 400
            return Answer(well, f"HTTP probe failed with statuscode: {response.status}")


async def _tcp(socket: Object, container: Object, address: str, seconds: float) -> Answer:
    host, port = socket.get("host") or address, port_number(socket["port"], container)
    _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), seconds)
    writer.close()
    return Answer(True)


def port_number(port: int | str, container: Object) -> int:
    """The number of a port given by number or name.

    Raises:
        ValueError: the container has no port of that name.
    """
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for declared in container.get("ports", []):
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise ValueError(f"container {container['name']} has no port named {port}")


@dataclass
class Counter:
    """Counts answers in a row, and says when a threshold is reached."""

    success_threshold: int = 1
    failure_threshold: int = 3
    successes: int = 0
    failures: int = 0

    def count(self, well: bool) -> bool | None:
        """Count an answer: True when it is well by now, False when it is not, None if undecided."""
        if well:
            self.successes, self.failures = self.successes + 1, 0
            return True if self.successes >= self.success_threshold else None
        self.successes, self.failures = 0, self.failures + 1
        return False if self.failures >= self.failure_threshold else None


async def follow(
    probe: Object,
    ask: Callable[[float], Awaitable[Answer]],
    decided: Callable[[bool, str], Awaitable[bool]],
    failed: Callable[[str], None],
    *,
    eager: bool,
) -> None:
    """Ask again and again until `decided` says that it is enough.

    Args:
        probe: The probe's spec: delays, period, thresholds.
        ask: Asks once, with a time limit in seconds.
        decided: Is told each time a threshold is reached; returns whether to go on.
        failed: Is told the reason of every failure that counts.
        eager: Until it is well for the first time, ask more often than the period, so that it is
            seen at once; failures still count once a period.
    """
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    period = float(probe.get("periodSeconds") or 10)
    timeout = float(probe.get("timeoutSeconds") or 1)
    counter = Counter(probe.get("successThreshold") or 1, probe.get("failureThreshold") or 3)
    began = time.monotonic()
    next_counted = began
    been_well = not eager
    while True:
        asked = time.monotonic()
        answer = await ask(timeout)
        if answer.well or asked >= next_counted:
            next_counted = asked + period
            if not answer.well:
                failed(answer.reason)
            verdict = counter.count(answer.well)
            been_well = been_well or answer.well
            if verdict is not None and not await decided(verdict, answer.reason):
                return
        hasty = not been_well and asked - began < _EAGER_FOR_SECONDS
        pause = min(_EAGER_SECONDS, period) if hasty else period
        await asyncio.sleep(max(0.0, asked + pause - time.monotonic()))
