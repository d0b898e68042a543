"""Ask a Prometheus-compatible API for raw counters: all that is asked at once is of one moment."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import msgspec

QUERY_PATH = "/api/v1/query"
TAG = "kohort_query"
"""Label by which answers to one call are told apart."""

MAX_ANSWER_BYTES = 64 << 20
MAX_ERROR_BYTES = 64 << 10
QUERY_TOLD, ANSWER_TOLD = 160, 200
"""Characters of a query and of an answer in a message."""

WRONG_QUERY = (400, 422)
"""Statuses that say that a query makes no sense, and not that nobody can be asked."""


class PrometheusError(Exception):
    """Why there is no answer that counts, in words for people."""


@dataclass(frozen=True)
class Access:
    """Where an API is and how to be let in; ``timeout`` in seconds."""

    url: str
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def told(self) -> str:
        """What it is called in messages."""
        return f"Prometheus at {urlsplit(self.url).netloc}"


@dataclass(frozen=True)
class Question:
    """Counters, and when they stood so: two expressions in PromQL that are worked out together."""

    values: str
    times: str

    @staticmethod
    def of(selector: str) -> Question:
        """Of one selector."""
        return Question(selector, f"timestamp({selector})")


class Point(msgspec.Struct, frozen=True):
    """One series of an answer: its labels, and a moment with a number as text."""

    metric: dict[str, str]
    value: tuple[float, str]

    @property
    def number(self) -> float:
        """The number; not finite where the text is none."""
        try:
            return float(self.value[1])
        except ValueError:
            return float("nan")


@dataclass(frozen=True)
class Answer:
    """What was told of one question."""

    values: Sequence[Point] = ()
    times: Sequence[Point] = ()


class _Data(msgspec.Struct):
    result_type: str = msgspec.field(default="", name="resultType")
    result: msgspec.Raw = msgspec.Raw(b"[]")


class _Body(msgspec.Struct):
    status: str
    data: _Data = msgspec.field(default_factory=_Data)
    error: str = ""
    warnings: tuple[str, ...] = ()


_BODY = msgspec.json.Decoder(_Body)
_VECTOR = msgspec.json.Decoder(list[Point])


class _WrongQueryError(PrometheusError):
    """One of the queries makes no sense."""


async def ask(
    session: aiohttp.ClientSession, access: Access, questions: Sequence[Question], at: float
) -> list[Answer | PrometheusError]:
    """The answers to all questions, worked out together for one moment (Unix time).

    A question that makes no sense is an error of its own: then each is asked alone.
    """
    if not questions:
        return []
    try:
        return list(await _ask(session, access, questions, at))
    except _WrongQueryError as error:
        if len(questions) == 1:
            return [error]
        alone = (ask(session, access, (question,), at) for question in questions)
        return [answer for (answer,) in await asyncio.gather(*alone)]
    except PrometheusError as error:
        return [error] * len(questions)


def together(questions: Sequence[Question]) -> str:
    """One expression for all: every series says by a label which part of which question it answers."""
    return " or ".join(
        f'label_replace({expression},"{TAG}","{kind}{number}","","")'
        for number, question in enumerate(questions)
        for kind, expression in (("v", question.values), ("t", question.times))
    )


async def _ask(
    session: aiohttp.ClientSession, access: Access, questions: Sequence[Question], at: float
) -> list[Answer]:
    query = together(questions)
    form = {"query": query, "time": f"{at:.3f}", "timeout": f"{access.timeout:.0f}s"}
    options: dict[str, object] = {} if access.tls is None else {"ssl": access.tls}
    told = query if len(questions) > 1 else questions[0].values
    try:
        async with session.post(
            access.url.rstrip("/") + QUERY_PATH,
            data=form,
            headers=access.headers,
            # Credentials are for this host and no other.
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=access.timeout),
            **options,  # type: ignore[arg-type]
        ) as response:
            good = response.status == 200
            content = await _content(response, MAX_ANSWER_BYTES if good else MAX_ERROR_BYTES)
            status, elsewhere = response.status, response.headers.get("Location", "")
    except TimeoutError:
        raise PrometheusError(f"{access.told} gave no answer in {access.timeout:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise PrometheusError(f"{access.told}: {error or repr(error)}") from None
    if 300 <= status < 400:
        raise PrometheusError(
            f"{access.told} answered {status}, see {cut(elsewhere, QUERY_TOLD)}: redirects are not "
            "followed; set url to where it is"
        )
    if status in (401, 403):
        raise PrometheusError(
            f"{access.told} answered {status}: check secretRef; {_words(content)}"
        )
    if not good:
        kind = _WrongQueryError if status in WRONG_QUERY else PrometheusError
        raise kind(f"{access.told} answered {status} to {_quoted(told)}: {_words(content)}")
    return _parsed(content, access, len(questions))


async def _content(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 18):
        content += chunk
        if len(content) > limit:
            if response.status != 200:
                break
            raise ValueError(f"its answer is longer than {limit} bytes")
    return bytes(content[:limit])


def _parsed(content: bytes, access: Access, questions: int) -> list[Answer]:
    try:
        body = _BODY.decode(content)
        points = _VECTOR.decode(body.data.result) if body.status == "success" else []
    except msgspec.MsgspecError:
        raise PrometheusError(
            f"{access.told} answered what is none of its own; check url: {_words(content)}"
        ) from None
    if body.status != "success" or body.data.result_type != "vector":
        raise PrometheusError(f"{access.told} answered {_words(content)}")
    if body.warnings:
        # Where a part of the stores is away, an answer looks like one and is none.
        raise PrometheusError(f"{access.told} warns: {cut(body.warnings[0], ANSWER_TOLD)}")
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.metric.pop(TAG, ""), []).append(point)
    return [Answer(found.get(f"v{n}", ()), found.get(f"t{n}", ())) for n in range(questions)]


def cut(text: str, length: int) -> str:
    """A text that came from elsewhere, on one line and no longer than this."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= length else plain[: length - 1] + "…"


_MARKUP = re.compile("<(style|script).*?</\\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def _words(content: bytes) -> str:
    """What an answer says, whatever it is made of."""
    try:
        told = _BODY.decode(content).error or content.decode(errors="replace")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        told = _MARKUP.sub(" ", content.decode(errors="replace"))
    return cut(told, ANSWER_TOLD) or "nothing"


def _quoted(query: str) -> str:
    return cut(query, QUERY_TOLD)
