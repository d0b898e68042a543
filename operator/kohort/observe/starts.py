"""What model servers tell of their start: what takes long, how far it is, which engines they tried."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
import msgspec

from kohort.api.status import EngineStatus, EngineTable, ParityResult
from kohort.contract import PORT_SERVER, START_PATH, Stage, Start, TriedEngine
from kohort.plan.world import Problem

ASK_SECONDS = 1.0
MAX_ANSWER_BYTES = 1 << 16
MOST_ENGINES = 8
LONGEST_PROBLEM = 512
LONGEST_DETAIL = 160
MOST = (1 << 53) - 1  # what every reader of JSON takes for an exact number

_DECODER = msgspec.json.Decoder(Start)
_STAGES = {stage.value: place for place, stage in enumerate(Stage)}


@dataclass(frozen=True)
class Started:
    """What is known of the start of a revision's pods: what they are doing, and engines they tried."""

    doing: Problem | None = None
    engines: EngineTable | None = None


async def ask_start(session: aiohttp.ClientSession, address: str) -> Start | None:
    """What the server at an address tells of its start; None where it tells nothing that can be read.

    What serves there may be anything: the pod template is its author's.
    """
    host = f"[{address}]" if ":" in address else address
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    url = f"http://{host}:{PORT_SERVER}{START_PATH}"
    try:
        async with session.get(
            url, timeout=timeout, allow_redirects=False, auto_decompress=False
        ) as response:
            if response.status != 200:
                return None
            content = await response.content.read(MAX_ANSWER_BYTES + 1)
            # A read may give less than there is.
            while len(content) <= MAX_ANSWER_BYTES and (
                more := await response.content.read(1 << 14)
            ):
                content += more
        return read_start(content)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def read_start(content: bytes) -> Start | None:
    """An answer, if it is one and no longer than it may be."""
    if len(content) > MAX_ANSWER_BYTES:
        return None
    try:
        return _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def slowest(starts: Iterable[Start]) -> Start | None:
    """Of several pods that are doing what takes long, the one that is furthest from its end."""
    busy = [start for start in starts if start.stage in _STAGES]
    return min(busy, key=lambda s: (_STAGES[s.stage], s.percent, s.detail), default=None)


def doing(start: Start) -> Problem:
    """What a start that takes long is told as: ``Compiling 62 %, 3 min left: building OpenVINO``."""
    told = start.stage
    if 0 < start.percent < 100:
        told += f" {start.percent} %"
        if start.seconds_left is not None and math.isfinite(start.seconds_left):
            told += f", {_left(start.seconds_left)} left"
    detail = _plain(start.detail, LONGEST_DETAIL)
    return Problem(start.stage, f"{told}: {detail}" if detail else told)


def _left(seconds: float) -> str:
    """A time that is only guessed, in one round figure."""
    if seconds < 10:
        return "a few s"
    if seconds < 100:
        return f"{round(seconds, -1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{min(seconds / 3600, 999):.0f} h"


def table(start: Start) -> EngineTable | None:
    """The engines that were tried, within the bounds of status; None where none were."""
    if not start.engines:
        return None
    return EngineTable(
        tried=tuple(map(_engine, start.engines[:MOST_ENGINES])),
        choice=_plain(start.choice, 256),
        machine=_plain(start.machine, 128),
    )


def _engine(tried: TriedEngine) -> EngineStatus:
    return EngineStatus(
        engine=_plain(tried.engine, 32),
        version=_plain(tried.version, 64),
        precision=_plain(tried.precision, 32),
        parity=ParityResult(tried.parity) if tried.parity in set(ParityResult) else None,
        max_error=f"{tried.max_error:.1e}" if tried.parity else "",
        latency_micros=_count(tried.micros),
        best_rows=_count(tried.best_rows),
        rows_per_second=_count(tried.rows_per_second),
        bytes=_count(tried.size),
        build_millis=_count(tried.build_millis),
        problem=_plain(tried.problem, LONGEST_PROBLEM),
        chosen=tried.chosen,
    )


def _count(value: int) -> int:
    return min(max(0, value), MOST)


def _plain(text: str, most: int) -> str:
    """A text on one line, of so many characters at most."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= most else words[: most - 1] + "…"
