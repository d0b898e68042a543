"""Look at the gateways: what they counted, and which route tables they really serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import aiohttp

from kohort.analysis.reading import Reading
from kohort.contract import HEADER_PROCESS, TABLE_VERSION_PATH
from kohort.observe.counters import Cell, Cells, Cohort, arms, parse
from kohort.route.address import hosts, path_prefix
from kohort.route.table import ModelKey

SCRAPE_SECONDS = 2.0
VERSION_SECONDS = 1.0
MAX_SCRAPE_BYTES = 64 << 20
MAX_VERSION_BYTES = 256
# More at once would only wait for each other, and a fleet must not exhaust our descriptors.
CONCURRENCY = 32
_READ_BYTES = 1 << 18
# Above this a look at the counters would hold up everything else that the operator does.
_INLINE_BYTES = 1 << 17


@dataclass(frozen=True)
class GatewayAddress:
    """A ready gateway: its pod's name, where clients reach it, where it tells its counters."""

    name: str
    address: str
    port: int
    status_port: int


@dataclass(frozen=True)
class Scrape(Mapping[Cohort, Reading]):
    """One look at all gateways; maps cohorts to readings.

    Cohorts that no gateway counted anything for are not iterated over, but have a reading too: every
    process that was read says so with no arms.

    ``counts``: by cohort, by process that counts, requests of each cell since that process began.
    ``processes``: those that were read. ``errors``: why others were not.
    """

    at: float
    counts: Mapping[Cohort, Mapping[str, Cells]] = field(default_factory=dict)
    processes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    def __getitem__(self, cohort: Cohort) -> Reading:
        found = self.counts.get(cohort, {})
        return Reading(
            at=self.at,
            sources={process: arms(found.get(process, {})) for process in self.processes},
            errors=self.errors,
        )

    def __iter__(self) -> Iterator[Cohort]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True)
class Page:
    """Counters that a gateway tells: where, what of, and how they are read."""

    path: str
    told: str
    parse: Callable[[bytes], dict[Cohort, dict[Cell, int]]]


COUNTERS = Page("/stats/prometheus", "counters", parse)


class _TooLongError(Exception):
    """An answer that no gateway gives."""


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(_READ_BYTES):
        size += len(chunk)
        if size > limit:
            raise _TooLongError(f"its answer is longer than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _why(error: Exception) -> str:
    """An error in words; some have none of their own."""
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or repr(error)


def _url(address: str, port: int, path: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"


_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, _TooLongError)


async def _counters(
    session: aiohttp.ClientSession, gateway: GatewayAddress, page: Page
) -> tuple[str, dict[Cohort, dict[Cell, int]]]:
    url = _url(gateway.address, gateway.status_port, page.path)
    timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
    async with session.get(url, timeout=timeout) as response:
        response.raise_for_status()
        process = response.headers.get(HEADER_PROCESS, "")
        text = await _read(response, MAX_SCRAPE_BYTES)
    counts = (
        page.parse(text) if len(text) < _INLINE_BYTES else await asyncio.to_thread(page.parse, text)
    )
    return f"{gateway.name}/{process}", counts


async def scrape(
    session: aiohttp.ClientSession, gateways: Iterable[GatewayAddress], page: Page = COUNTERS
) -> Scrape:
    """Read the counters of all gateways at once; one that cannot be read is an error in the result."""
    places = asyncio.Semaphore(CONCURRENCY)
    counts: dict[Cohort, dict[str, Cells]] = {}
    processes: list[str] = []
    errors: list[str] = []

    async def read(gateway: GatewayAddress) -> None:
        try:
            async with places:
                process, found = await _counters(session, gateway, page)
        except _ERRORS as error:
            errors.append(f"{page.told} of gateway {gateway.name}: {_why(error)}")
            return
        processes.append(process)
        for cohort, slots in found.items():
            counts.setdefault(cohort, {})[process] = slots

    at = time.time()
    await asyncio.gather(*(read(gateway) for gateway in gateways))
    return Scrape(at, counts, tuple(sorted(processes)), tuple(sorted(errors)))


@dataclass(frozen=True)
class Unknown:
    """A gateway that did not tell which table it serves, and why."""

    reason: str


async def _table_version(
    session: aiohttp.ClientSession, gateway: GatewayAddress, key: ModelKey
) -> str | Unknown:
    prefix = path_prefix(key)
    names = hosts(key)
    if prefix is None and not names:
        return Unknown("it can serve this model neither by path nor by host")
    headers = {} if prefix is not None else {"Host": names[0]}
    url = _url(gateway.address, gateway.port, f"{prefix or ''}{TABLE_VERSION_PATH}")
    timeout = aiohttp.ClientTimeout(total=VERSION_SECONDS)
    try:
        async with session.get(url, headers=headers, timeout=timeout) as response:
            text = await _read(response, MAX_VERSION_BYTES)
            if response.status == 404:
                return Unknown("it has no routes for this model yet")
            response.raise_for_status()
            return text.decode()
    except _ERRORS as error:
        return Unknown(_why(error))


async def table_versions(
    session: aiohttp.ClientSession, gateways: Iterable[GatewayAddress], key: ModelKey
) -> dict[str, str | Unknown]:
    """The version of a model's route table that each gateway serves, by the gateway's name."""
    asked = tuple(gateways)
    answers = await asyncio.gather(*(_table_version(session, gateway, key) for gateway in asked))
    return {gateway.name: answer for gateway, answer in zip(asked, answers, strict=True)}
