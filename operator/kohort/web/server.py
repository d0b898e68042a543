"""The page's server: files for everybody, rollouts for those whom the gate lets see them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
from aiohttp import web

from kohort.view.changes import changes
from kohort.view.rollout import Facts, ModelView, view_of
from kohort.web import telling
from kohort.web.connections import Connections
from kohort.web.files import TYPES, Files, guard
from kohort.web.gate import Gate, Refused, Wish
from kohort.web.seen import Seen
from kohort.web.source import Feed, Source, Topic
from kohort.web.stream import LIST_PACE_SECONDS, PACE_SECONDS, stream

log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
MOST_ROWS = 500
MOST_STREAMS, MOST_STREAMS_OF_ONE = 128, 12
KEEP_ALIVE_SECONDS, STOP_SECONDS = 15.0, 2.0
MOST_MINUTES = 14 * 60  # of a zone, east or west
LONGEST_NAME = 253

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listed(msgspec.Struct, rename="camel"):
    """The list; ``more``: models that are not on it."""

    models: list[telling.ModelRow]
    more: int
    problems: list[str]


class Shown(msgspec.Struct, rename="camel"):
    """One rollout; ``news``: what changed since this stream's last event, in words."""

    model: telling.ModelTold
    problems: list[str]
    news: list[str]


class ViewServer:
    """Serves one source; ``hosts``: hosts that requests must be for, if not any."""

    def __init__(
        self,
        source: Source,
        gate: Gate,
        feed: Feed,
        seen: Seen,
        *,
        hosts: frozenset[str] = frozenset(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source, self._gate, self._feed, self._seen = source, gate, feed, seen
        self._hosts = hosts
        self._now = now
        self._files = Files()
        self._connections = Connections()
        self._streams: Counter[str] = Counter()
        self._rows: dict[tuple[str, str], tuple[Facts, telling.ModelRow]] = {}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listens until :meth:`stop`; returns the port, of which 0 asks for a free one.

        Raises:
            OSError: the address is taken.
        """
        app = web.Application(middlewares=[self._guarded], client_max_size=1024)
        for name in TYPES:
            app.router.add_get(f"/{name}", self._file(name))
        app.router.add_get("/", self._file("index.html"))
        app.router.add_get("/api/models", self._list, allow_head=False)
        app.router.add_get("/api/models/{namespace}/{name}", self._one, allow_head=False)
        self._runner = web.AppRunner(
            app,
            access_log=None,  # request lines tell names of models; the API server's audit log has them
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            handler_cancellation=True,  # who has gone leaves their place at once
            shutdown_timeout=STOP_SECONDS,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port, ssl_context=tls).start()
        server: Any = self._runner.server
        self._tasks = [asyncio.create_task(self._connections.watch(server), name="view")]
        listening: int = self._runner.addresses[0][1]
        return listening

    async def stop(self) -> None:
        """Ends streams, which browsers then take up elsewhere, and listens no more."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        if self._runner:
            await self._runner.cleanup()

    def _file(self, name: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return self._files.answer(name, request)

        return handle

    async def _list(self, request: web.Request) -> web.StreamResponse:
        namespace = _named(request.query.get("namespace", ""))
        search = _named(request.query.get("search", "")).lower()
        wish = Wish("list", namespace)
        user = await self._admit(request, wish)

        def payload() -> bytes:
            return msgspec.json.encode(self._listed(namespace, search))

        return await self._answer(request, user, wish, Topic(namespace), payload, LIST_PACE_SECONDS)

    async def _one(self, request: web.Request) -> web.StreamResponse:
        namespace, name = (_named(request.match_info[each]) for each in ("namespace", "name"))
        wish = Wish("get", namespace, name)
        user = await self._admit(request, wish)
        pods = await self._gate.allows(_token(request), Wish("list", namespace, "", "", "pods"))
        if self._source.model(namespace, name) is None:
            raise Refused(404, f"There is no model deployment {name} in namespace {namespace}.")
        zone = _zone(request)
        before: ModelView | None = None

        def payload() -> bytes | None:
            nonlocal before
            facts = self._source.model(namespace, name)
            if facts is None:
                return None
            its_pods = self._source.pods(namespace, name) if pods else {}
            view = view_of(facts, its_pods, self._now().astimezone(zone))
            news = changes(before, view) if before else []
            before = view
            lines = self._seen.of(namespace, name)
            told = telling.model(view, facts, lines, pods)
            return msgspec.json.encode(Shown(told, self._source.problems(), news))

        return await self._answer(request, user, wish, Topic(namespace, name), payload)

    def _listed(self, namespace: str, search: str) -> Listed:
        found = sorted(n for n in self._source.names(namespace) if search in n[1].lower())
        first = [self._source.model(*name) for name in found[:MOST_ROWS]]
        return Listed(
            [self._row(facts) for facts in first if facts],
            max(0, len(found) - MOST_ROWS),
            self._source.problems(),
        )

    def _row(self, facts: Facts) -> telling.ModelRow:
        """A row says nothing of the time, and is made anew when the model's status is."""
        key = facts.namespace, facts.name
        known = self._rows.get(key)
        if known is None or known[0].status is not facts.status or known[0].stages != facts.stages:
            known = facts, telling.row(facts, self._now())
            self._rows[key] = known
            if len(self._rows) > 4 * MOST_ROWS:
                self._rows.clear()
        return known[1]

    async def _admit(self, request: web.Request, wish: Wish) -> str:
        """The person's name, if they may see it."""
        token = _token(request)
        user = await self._gate.user(token)
        if not await self._gate.allows(token, wish):
            hint = "" if wish.namespace else " Choose a namespace that you may see."
            raise Refused(403, f"{user} may not {wish.words()}.{hint}")
        return user

    async def _answer(
        self,
        request: web.Request,
        user: str,
        wish: Wish,
        topic: Topic,
        payload: Callable[[], bytes | None],
        pace: float = PACE_SECONDS,
    ) -> web.StreamResponse:
        """Once as JSON, or again and again as events if the person asks for those."""
        if EVENT_STREAM not in request.headers.get("Accept", ""):
            return web.Response(body=payload(), content_type="application/json")
        token = _token(request)

        async def recheck() -> str:
            try:
                allowed = await self._gate.allows(token, wish)
            except Refused as refused:
                if refused.status in (429, 503):  # nobody can tell just now; asked again soon
                    return ""
                return msgspec.json.encode(refused.message).decode()
            return "" if allowed else msgspec.json.encode("You may not see this any more.").decode()

        with self._counted(user), self._feed.following(topic) as changed:
            response = web.StreamResponse(
                headers={"Content-Type": EVENT_STREAM, "X-Accel-Buffering": "no"}
            )
            guard(response)
            await response.prepare(request)
            with contextlib.suppress(TimeoutError, ConnectionError):
                await stream(response, payload, changed, recheck, self._stopping, pace)
            return response

    @contextlib.contextmanager
    def _counted(self, user: str) -> Iterator[None]:
        if self._streams.total() >= MOST_STREAMS:
            raise Refused(503, "Too many people are watching: close a page or try later.", 10)
        if self._streams[user] >= MOST_STREAMS_OF_ONE:
            raise Refused(429, f"{user} watches on too many pages: close some.", 10)
        self._streams[user] += 1
        try:
            yield
        finally:
            self._streams[user] -= 1
            if not self._streams[user]:
                del self._streams[user]

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._connections.spoke(request)
        response: web.StreamResponse
        try:
            if self._hosts and request.url.host not in self._hosts:
                raise Refused(421, "This page is served under another name.")
            response = await handler(request)
        except Refused as refused:
            response = web.json_response({"message": refused.message}, status=refused.status)
            if refused.status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="kohort"'
            if refused.retry_after:
                response.headers["Retry-After"] = str(refused.retry_after)
        except web.HTTPException as error:
            response = web.json_response({"message": error.reason}, status=error.status)
        except Exception:
            # What is wrong with one model must not tell strangers about the operator's insides.
            log.exception("%s cannot be shown", request.path)
            message = "This cannot be shown: the operator's log says why."
            response = web.json_response({"message": message}, status=500)
        if not response.prepared:
            guard(response)
        return response


def _token(request: web.Request) -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _named(text: str) -> str:
    if len(text) > LONGEST_NAME or not text.isprintable():
        raise Refused(400, "Names have at most 253 printable characters.")
    return text


def _zone(request: web.Request) -> timezone:
    """The zone that times are told in: minutes east of UTC."""
    text = request.query.get("minutesEast", "0")
    plain = text.removeprefix("-")
    minutes = int(text) if plain.isdecimal() and plain.isascii() and len(plain) <= 4 else None
    if minutes is None or abs(minutes) > MOST_MINUTES:
        raise Refused(400, "minutesEast is a number of minutes from -840 to 840.")
    return timezone(timedelta(minutes=minutes))
