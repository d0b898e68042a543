"""One operator process: caches and routes on every replica, decisions on the leader alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from kohort.act.apply import Writer
from kohort.act.children import Children
from kohort.act.events import Recorder
from kohort.act.permissions import LEASE
from kohort.act.sink import Sink
from kohort.kube import ApiError, Fenced, Kube, Server
from kohort.observe import gateways
from kohort.observe.mirrors import scrape_mirrors
from kohort.observe.slots import SlotLedger
from kohort.observe.starts import ask_start
from kohort.plan.capacity import awaits_gateways
from kohort.route.envoy.identity import Identity
from kohort.route.envoy.server import RouteServer
from kohort.route.table import ModelKey
from kohort.runtime import status_server
from kohort.runtime.addresses import Addresses
from kohort.runtime.caches import Caches
from kohort.runtime.certificates import Secrets
from kohort.runtime.credentials import Credentials
from kohort.runtime.fleet import Fleet
from kohort.runtime.herald import Herald
from kohort.runtime.lease import LeaseElection
from kohort.runtime.metrics import Metrics
from kohort.runtime.model_metrics import DESCRIBED, WATCH_AGE, ModelCollector, WatchCollector
from kohort.runtime.prometheus import PrometheusReader
from kohort.runtime.queue import WorkQueue
from kohort.runtime.reconcile import Reconciler
from kohort.runtime.routes import Publisher
from kohort.runtime.scraper import Scraper
from kohort.runtime.settings import Settings
from kohort.runtime.starts import StartWatcher

if TYPE_CHECKING:
    from kohort.runtime.viewing import Viewing

log = logging.getLogger(__name__)
T = TypeVar("T")

CONFLICT = 409
CERTIFICATE_CHECK_SECONDS = 3600.0
STOP_GRACE_SECONDS = 2.0
RETRY_SECONDS = 1.0
# kopf lists all models once more, which would hold up the first passes of a leader with thousands.
FIRST_PASSES_SECONDS = 10.0
# Older than this, a pass or a watch does not wait for something: it hangs.
STUCK_SECONDS = 600.0


class Operator:
    """Everything that runs in one process; :meth:`run` until ``stop`` is set."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings
        self.metrics = Metrics()
        self._kube = Kube(server, self.metrics.call)
        self._queue: WorkQueue[ModelKey] = WorkQueue(self.metrics.waits.observe)
        self._caches = Caches(
            self._kube,
            server,
            settings,
            on_model=self._model_changed,
            on_pods=self._model_changed,
            on_child=self._queue.add,
            on_gateways=self._gateways_changed,
        )
        self._routes = RouteServer(self._route_refused)
        self._publisher = Publisher(
            self._caches.models,
            self._caches.pods,
            self._routes,
            self.metrics.pushes.inc,
            lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
        )
        # A lease that is lost for a moment must not cost what slots have shown so far.
        self._slots = SlotLedger()
        self._viewing: Viewing | None = None
        self._fleet: Fleet | None = None
        self._recorder: Recorder | None = None
        self._sink: Sink | None = None
        self._leading = False
        self._serving = False
        self._passed = asyncio.Event()  # every model once, or there is nothing to pass here
        self._register_metrics()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until ``stop``.

        Raises:
            ExceptionGroup: a part of the operator failed.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._kube)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            status = await status_server.serve(
                settings.listen_address,
                settings.status_port,
                health=self._health,
                readiness=self._readiness,
                metrics=self.metrics.text,
            )
            stack.push_async_callback(status.cleanup)
            await _until(stop, self._work(session))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        settings = self._settings
        election = LeaseElection(
            self._kube,
            settings.namespace,
            LEASE,
            settings.identity,
            duration=settings.lease_duration,
            deadline=settings.lease_deadline,
            retry=settings.lease_retry,
        )
        secrets = Secrets(self._kube, settings.namespace)
        try:
            async with asyncio.TaskGroup() as group:
                await self._caches.fill(group)
                self._publisher.begin()
                identity = await _persistently(lambda: secrets.ensure(datetime.now(UTC)))
                await self._routes.start(settings.listen_address, settings.routes_port, identity)
                if settings.view_port:
                    self._viewing = await self._view(identity)
                self._serving = True
                group.create_task(self._renew_certificates(secrets), name="certificates")
                group.create_task(self._watch_models(), name="models")
                while True:
                    if not await election.attempt():
                        self._passed.set()
                        await election.acquire()
                    log.info("%s leads", settings.identity)
                    await self._lead(election, session)
                    log.warning("%s leads no more, and stands by", settings.identity)
        finally:
            await election.release()
            if self._viewing:
                await self._viewing.stop()
            await self._routes.stop(STOP_GRACE_SECONDS)
            await self._caches.stop()

    async def _view(self, identity: Identity) -> Viewing:
        from kohort.runtime.viewing import Viewing  # only here: most operators do without

        viewing = Viewing(self._caches, self._kube, identity)
        await viewing.start(self._settings.listen_address, self._settings.view_port)
        return viewing

    async def _lead(self, election: LeaseElection, session: aiohttp.ClientSession) -> None:
        """Decides and writes until the lease is lost; routes are served before and after alike."""
        settings, caches = self._settings, self._caches
        # A process that was frozen may wake up in the middle of a pass: it must not write on.
        kube = Fenced(self._kube, lambda: election.held)
        metrics = self.metrics
        recorder = Recorder(
            kube, settings.identity, lambda why: metrics.events_lost.labels(why).inc()
        )
        sink = None
        if settings.event_sink:
            sink = Sink(
                session, settings.event_sink, lambda what: metrics.cloudevents.labels(what).inc()
            )
        fleet = Fleet(
            caches.gateway_pods,
            lambda who, key: gateways.table_versions(session, who, key),
            metrics.acknowledged.observe,
        )
        reconciler = Reconciler(
            models=caches.models,
            pods=caches.pods,
            deployments=caches.deployments,
            records=caches.records,
            fleet=fleet,
            publisher=self._publisher,
            writer=Writer(kube, settings.server_image),
            herald=Herald(recorder, sink, metrics),
            addresses=Addresses(
                gateway=settings.gateway_service,
                deployments=caches.deployments,
                services=caches.services,
                routes=caches.routes,
                children=Children(kube),
                wake=self._queue.add_after,
            ),
            wake=self._queue.add_after,
        )
        scraper = Scraper(
            models=caches.models,
            gateways=fleet.ready,
            scrape=lambda who: gateways.scrape(session, who),
            mirrors=lambda who: scrape_mirrors(session, who),
            reconciler=reconciler,
            wake=self._queue.add_after,
            slots=self._slots,
            interval=settings.scrape_interval,
        )
        self._fleet, self._recorder, self._sink, self._leading = fleet, recorder, sink, True
        for model in caches.models:
            self._queue.add(model.key)
        if not self._queue:
            self._passed.set()
        reader = PrometheusReader(
            models=caches.models,
            gateways=fleet.ready,
            credentials=Credentials(self._kube, settings.prometheus_urls),
            reconciler=reconciler,
            wake=self._queue.add_after,
            slots=self._slots,
            interval=settings.scrape_interval,
        )
        starts = StartWatcher(
            models=caches.models,
            pods=caches.pods,
            ask=lambda address: ask_start(session, address),
            reconciler=reconciler,
            wake=self._queue.add_after,
        )
        work = [recorder.run(), scraper.run(), reader.run(), starts.run(), self._retry_when_back()]
        work += [sink.run()] if sink else []
        work += [self._worker(reconciler) for _ in range(settings.workers)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each) for each in work]
                await election.hold()
                for task in tasks:
                    task.cancel()
        finally:
            self._fleet, self._recorder, self._sink, self._leading = None, None, None, False

    async def _worker(self, reconciler: Reconciler) -> None:
        """Works on one key after the other; no failure of a pass ends it."""
        clock = asyncio.get_running_loop().time
        while True:
            key = await self._queue.get()
            began, outcome = clock(), "ok"
            try:
                await reconciler.reconcile(key)
                self._queue.succeeded(key)
            except ApiError as error:
                outcome = "conflict" if error.status == CONFLICT else "error"
                delay = self._queue.retry(key, error.retry_after)
                if outcome == "error":
                    log.warning("%s: trying again in %.1f s: %s", key, delay, error)
            except Exception:
                # A defect met by one model must not stop the others.
                outcome = "defect"
                log.exception("%s: trying again in %.1f s", key, self._queue.retry(key))
            finally:
                self._queue.done(key)
                if not self._queue:
                    self._passed.set()
                self.metrics.passes.labels(outcome).observe(clock() - began)

    async def _watch_models(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._passed.wait(), FIRST_PASSES_SECONDS)
        self._caches.watch_models()

    async def _retry_when_back(self) -> None:
        """An API server that was away is no reason to go on waiting once it is there again."""
        while True:
            await self._kube.back()
            self._queue.retry_now()

    async def _renew_certificates(self, secrets: Secrets) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
            try:
                identity = await secrets.ensure(datetime.now(UTC))
                self._routes.renew(identity)
                if self._viewing:
                    self._viewing.renew(identity)
            except ApiError as error:
                log.warning("Cannot renew certificates, trying again: %s", error)

    def _model_changed(self, key: ModelKey) -> None:
        # Routes first: they are what clients wait for.
        self._publisher.refresh(key)
        self._queue.add(key)
        if self._viewing:
            self._viewing.changed(key)

    def _gateways_changed(self, _: ModelKey) -> None:
        for model in self._caches.models:
            if awaits_gateways(model.status):
                self._queue.add(model.key)

    def _route_refused(self, key: ModelKey, version: str, message: str) -> None:
        self.metrics.refused.inc()
        if self._fleet is not None:
            self._fleet.refused(key, version, message)
            self._queue.add(key)

    def _health(self) -> str:
        if self._queue_age() > STUCK_SECONDS:
            return f"a model has waited for {self._queue_age():.0f} s"
        if self._caches.age() > STUCK_SECONDS:
            return "a watch is stuck"
        heard = max(self._caches.watch_ages().values(), default=0.0) < STUCK_SECONDS
        # While the API server says nothing at all, a new process would hear no more.
        if heard and self._caches.models.watch_lag() > STUCK_SECONDS:
            return "the watch of models does not tell what is known from elsewhere"
        return ""

    def _readiness(self) -> str:
        if not self._caches.filled:
            return "caches are not filled yet"
        return "" if self._serving else "routes are not served yet"

    def _queue_age(self) -> float:
        """Age of the oldest wait; on a replica that stands by, keys wait for nothing."""
        return self._queue.age() if self._leading else 0.0

    def _register_metrics(self) -> None:
        gauge, caches = self.metrics.gauge, self._caches

        def waiting(of: Callable[[], Recorder | Sink | None]) -> Callable[[], float]:
            return lambda: float(told.waiting if (told := of()) else 0)

        gauge("leader", "1 on the replica that decides", lambda: float(self._leading))
        gauge("pods", "Pods of models in the cache", lambda: float(len(caches.pods)))
        gauge("queue_depth", "Models that wait for a worker", lambda: float(len(self._queue)))
        gauge("queue_age_seconds", "Age of the oldest wait", self._queue_age)
        gauge(
            "models_watch_lag_seconds",
            "For how long kopf's watch has not told of a model's state that is known from elsewhere",
            caches.models.watch_lag,
        )
        events, sink = waiting(lambda: self._recorder), waiting(lambda: self._sink)
        gauge("events_waiting", "Kubernetes events that are still to be written", events)
        gauge("cloudevents_waiting", "CloudEvents that are still to be delivered", sink)
        self.metrics.collect(WatchCollector(caches), (WATCH_AGE,))
        self.metrics.collect(ModelCollector(caches.models), DESCRIBED)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Runs ``work`` until it ends by itself or ``stop`` is set, and lets it clean up."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


async def _persistently(attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of the first attempt that the API server lets succeed."""
    while True:
        try:
            return await attempt()
        except ApiError as error:
            log.warning("Trying again: %s", error)
            pause = max(RETRY_SECONDS, error.retry_after)
        await asyncio.sleep(pause)
