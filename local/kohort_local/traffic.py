"""Clients that send steady inference requests and keep a full account of every answer."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from kohort.contract import HEADER_COHORT, HEADER_REVISION
from kohort_local.models import PIXELS, Digits

TIMEOUT_SECONDS = 10.0
# Between one try and the next, as clients' own libraries do it. All together are less than it may take
# until nobody is sent to a gateway any more that was killed.
RESEND_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8)


class Outcome(StrEnum):
    """What became of a request."""

    OK = "ok"
    REFUSED = "refused"  # the model answered that it cannot: 4xx, from a revision
    LOST = "lost"  # no answer, or one that no model gave


@dataclass(frozen=True)
class Answer:
    """One request's end. ``at``: seconds on the monotonic clock; ``correct``: images told right."""

    at: float
    client: str
    cohort: str
    revision: str
    outcome: Outcome
    misrouted: bool = False
    images: int = 0
    correct: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Clients:
    """A group of alike clients of one cohort: each sends ``rows`` images every ``period`` seconds."""

    cohort: str
    headers: dict[str, str]
    count: int
    rows: int
    period: float

    def ids(self) -> list[str]:
        """The keys by which the gateway tells these clients apart."""
        return [f"{self.cohort}-{i}" for i in range(self.count)]


@dataclass
class Account:
    """Every answer so far, counted as it came."""

    counts: Counter[tuple[str, str, Outcome]] = field(default_factory=Counter)
    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    correct: Counter[tuple[str, str]] = field(default_factory=Counter)
    first_refused: dict[tuple[str, str], float] = field(default_factory=dict)
    last_refused: dict[tuple[str, str], float] = field(default_factory=dict)
    first_answer: dict[tuple[str, str], float] = field(default_factory=dict)
    misrouted: list[Answer] = field(default_factory=list)
    lost: list[Answer] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)  # when a connection broke under a request
    paths: dict[str, list[str]] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        place = (answer.cohort, answer.revision)
        self.counts[*place, answer.outcome] += 1
        self.images[place] += answer.images
        self.correct[place] += answer.correct
        if answer.misrouted:
            self.misrouted.append(answer)
        if answer.outcome is Outcome.LOST:
            self.lost.append(answer)
            return
        self.first_answer.setdefault(place, answer.at)
        if answer.outcome is Outcome.REFUSED:
            self.first_refused.setdefault(place, answer.at)
            self.last_refused[place] = answer.at
        path = self.paths.setdefault(answer.client, [])
        if not path or path[-1] != answer.revision:
            path.append(answer.revision)

    @property
    def total(self) -> int:
        """Requests that have come to an end."""
        return self.counts.total()

    def refused(self, cohort: str, revision: str | None = None) -> int:
        """Requests of a cohort that a model refused."""
        return sum(
            n
            for (c, r, outcome), n in self.counts.items()
            if c == cohort and outcome is Outcome.REFUSED and revision in (None, r)
        )


class Sessions(NamedTuple):
    """How a client connects: ``kept`` keeps connections, ``fresh`` makes one for each request."""

    kept: aiohttp.ClientSession
    fresh: aiohttp.ClientSession


class Traffic:
    """Sends requests of several groups of clients to one model until stopped.

    ``base_url`` is the gateway's; the model is addressed by path. Requests already sent when it is
    stopped are waited for, so that none is unaccounted for. A request is sent once, unless ``resend``:
    then one whose connection broke before an answer is counted as cut and sent again, on a new one, a few
    times.
    """

    def __init__(
        self,
        base_url: str,
        namespace: str,
        name: str,
        groups: list[Clients],
        digits: Digits,
        *,
        account: Account | None = None,
        seed: int = 1,
    ) -> None:
        self.account = account or Account()
        self.resend = False
        self._url = f"{base_url}/{namespace}/{name}/v2/models/{name}/infer"
        self._groups = groups
        self._digits = digits
        self._random = random.Random(seed)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sessions: Sessions | None = None

    async def __aenter__(self) -> Traffic:
        sessions = self._sessions = Sessions(*map(_session, (False, True)))
        self._tasks = [
            asyncio.create_task(self._client(sessions, group, client))
            for group in self._groups
            for client in group.ids()
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        for session in self._sessions or ():
            await session.close()

    async def _client(self, sessions: Sessions, group: Clients, client: str) -> None:
        next_at = time.monotonic() + self._random.random() * group.period
        while not self._stopping.is_set():
            delay = next_at - time.monotonic()
            if delay > 0:
                try:
                    await asyncio.wait_for(self._stopping.wait(), delay)
                    return
                except TimeoutError:
                    pass
            next_at = max(next_at + group.period, time.monotonic() - 1)
            self.account.add(await self._answer(sessions, group, client))

    async def _answer(self, sessions: Sessions, group: Clients, client: str) -> Answer:
        """What becomes of a request, in the end."""
        session = sessions.kept
        for pause in (*(RESEND_SECONDS if self.resend else ()), None):
            try:
                return await self._send(session, group, client)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                broke = isinstance(
                    error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError
                )
                if pause is None or not broke or isinstance(error, TimeoutError):
                    return _unanswered(group, client, error)
            self.account.cut.append(time.monotonic())
            await asyncio.sleep(pause)
            # A gateway that died took all connections with it: one that is kept may be dead as well.
            session = sessions.fresh
        raise AssertionError("the last try always returns")

    async def _send(self, session: aiohttp.ClientSession, group: Clients, client: str) -> Answer:
        first = self._random.randrange(len(self._digits.labels) - group.rows)
        rows = slice(first, first + group.rows)
        head, body = encode(self._digits.images[rows])
        headers = {
            "x-client-id": client,
            "Inference-Header-Content-Length": str(head),
            "Content-Type": "application/octet-stream",
            **group.headers,
        }
        async with session.post(self._url, data=body, headers=headers) as response:
            content = await response.read()
        revision = response.headers.get(HEADER_REVISION, "")
        misrouted = response.headers.get(HEADER_COHORT) != group.cohort
        answer = Answer(time.monotonic(), client, group.cohort, revision, Outcome.OK, misrouted)
        if response.status == 200:
            labels = decode_labels(content, response.headers.get("Inference-Header-Content-Length"))
            correct = int(np.sum(labels == self._digits.labels[rows]))
            return replace(answer, images=group.rows, correct=correct)
        detail = f"{response.status}: {content[:200].decode(errors='replace')}"
        if response.status < 500 and revision:
            return replace(answer, outcome=Outcome.REFUSED, detail=detail)
        return replace(answer, outcome=Outcome.LOST, misrouted=False, detail=detail)


def _session(fresh: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=fresh),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
    )


def _unanswered(group: Clients, client: str, error: Exception) -> Answer:
    detail = f"{type(error).__name__}: {error}"
    return Answer(time.monotonic(), client, group.cohort, "", Outcome.LOST, detail=detail)


def encode(images: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[int, bytes]:
    """A request with the binary extension: length of its JSON part, and the whole body."""
    raw = np.ascontiguousarray(images).tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "shape": [len(images), PIXELS],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "outputs": [{"name": "label"}],
        }
    ).encode()
    return len(head), head + raw


def decode_labels(body: bytes, head: str | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The labels of an answer, from its JSON or its binary part; raises ValueError on another shape."""
    told = json.loads(body[: int(head)] if head else body)
    output = next(o for o in told["outputs"] if o["name"] == "label")
    if "data" in output:
        return np.asarray(output["data"], dtype=np.int64)
    size = output["parameters"]["binary_data_size"]
    start = int(head or 0)
    return np.asarray(struct.unpack(f"<{size // 8}q", body[start : start + size]), dtype=np.int64)
