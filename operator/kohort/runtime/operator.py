"""One operator process: caches and routes on every replica, decisions on the leader alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp

from kohort.act.apply import Writer
from kohort.act.events import Recorder
from kohort.act.permissions import LEASE
from kohort.contract import (
    GROUP,
    LABEL_COMPONENT,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    MANAGED_BY,
    PLURAL,
)
from kohort.kube import ApiError, Kube, Server
from kohort.observe import gateways
from kohort.observe.informer import Informer
from kohort.observe.listing import list_all
from kohort.observe.objects import (
    Deployment,
    Pod,
    Record,
    parse_deployment,
    parse_pod,
    parse_record,
)
from kohort.observe.store import Store
from kohort.route.envoy.server import RouteServer
from kohort.route.table import ModelKey
from kohort.runtime import status_server
from kohort.runtime.certificates import Secrets
from kohort.runtime.fleet import Fleet
from kohort.runtime.lease import LeaseElection
from kohort.runtime.memory import give_back_memory
from kohort.runtime.metrics import Metrics
from kohort.runtime.models import Model, Models, parse_model
from kohort.runtime.queue import WorkQueue
from kohort.runtime.reconcile import Reconciler, awaits_gateways
from kohort.runtime.routes import Publisher
from kohort.runtime.scraper import Scraper
from kohort.runtime.settings import Settings
from kohort.runtime.source import ModelSource

log = logging.getLogger(__name__)
T = TypeVar("T")

API_ROOT = f"/apis/{GROUP}/v1alpha1"
CHILDREN = {"labelSelector": f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_MODEL}"}
GATEWAYS = {"labelSelector": f"{LABEL_COMPONENT}=gateway"}
CERTIFICATE_CHECK_SECONDS = 3600.0
STOP_GRACE_SECONDS = 2.0
# Older than this, a pass or a watch does not hang on something: it hangs.
STUCK_SECONDS = 600.0
RETRY_SECONDS = 1.0
# The first lists are digested by then.
TRIM_SECONDS = 5.0


class LeaseLost(Exception):
    """Another process may lead by now: nothing may be written any more."""


class Operator:
    """Everything that runs in one process; :meth:`run` until ``stop`` is set."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings
        self._server = server
        self._metrics = Metrics()
        self._kube = Kube(server, self._metrics.call)
        self._queue: WorkQueue[ModelKey] = WorkQueue()
        self._leading = False
        self._serving = False
        self._synced = False
        self._routes = RouteServer(self._route_refused)
        self._models = Models(self._model_changed)
        self._pods: Store[Pod] = Store(self._pods_changed)
        self._deployments: Store[Deployment] = Store(self._queue.add)
        self._records: Store[Record] = Store(self._queue.add)
        self._gateway_pods: Store[Pod] = Store(self._gateways_changed)
        self._informers: list[Informer[Any]] = []
        self._publisher = Publisher(
            self._models, self._pods, self._routes, self._metrics.pushes.inc
        )
        self._writer = Writer(self._kube, settings.server_image)
        self._recorder = Recorder(self._kube, settings.identity)

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until ``stop``.

        Raises:
            LeaseLost: start the process anew.
            ExceptionGroup: a part of the operator failed.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._kube)
            session = await stack.enter_async_context(aiohttp.ClientSession())
            self._register_gauges()
            status = await status_server.serve(
                settings.listen_address,
                settings.status_port,
                health=self._health,
                readiness=self._readiness,
                metrics=self._metrics.text,
            )
            stack.push_async_callback(status.cleanup)
            try:
                await _until(stop, self._work(session))
            except ExceptionGroup as group:
                lost = group.subgroup(LeaseLost)
                if lost:
                    raise LeaseLost(f"{settings.identity} leads no more") from group
                raise

    async def _work(self, session: aiohttp.ClientSession) -> None:
        settings = self._settings
        await self._first_list()
        source = ModelSource(self._server, settings.watch_namespaces, self._on_event)
        election = LeaseElection(
            self._kube,
            settings.namespace,
            LEASE,
            settings.identity,
            duration=settings.lease_duration,
            deadline=settings.lease_deadline,
            retry=settings.lease_retry,
        )
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            source.start(lambda: failed.set_exception(RuntimeError("kopf ended; see above")))
            async with asyncio.TaskGroup() as group:
                group.create_task(_forever(failed), name="kopf")
                self._start_informers(group)
                for informer in self._informers:
                    await informer.synced.wait()
                self._synced = True
                self._publisher.begin()
                secrets = Secrets(self._kube, settings.namespace)
                identity = await _persistently(lambda: secrets.ensure(datetime.now(UTC)))
                await self._routes.start(settings.listen_address, settings.routes_port, identity)
                self._serving = True
                group.create_task(self._renew_certificates(secrets), name="certificates")
                group.create_task(self._resync(), name="resync")
                await election.acquire()
                log.info("%s leads", settings.identity)
                await self._lead(group, session)
                await election.hold()
                raise LeaseLost
        finally:
            self._leading = False
            await election.release()
            await self._routes.stop(STOP_GRACE_SECONDS)
            await source.stop()

    async def _lead(self, group: asyncio.TaskGroup, session: aiohttp.ClientSession) -> None:
        fleet = Fleet(
            self._gateway_pods, lambda who, key: gateways.table_versions(session, who, key)
        )
        self._fleet = fleet
        reconciler = Reconciler(
            models=self._models,
            pods=self._pods,
            deployments=self._deployments,
            records=self._records,
            fleet=fleet,
            publisher=self._publisher,
            writer=self._writer,
            recorder=self._recorder,
            wake=self._queue.add_after,
        )
        scraper = Scraper(
            models=self._models,
            gateways=fleet.ready,
            scrape=lambda who: gateways.scrape(session, who),
            reconciler=reconciler,
            wake=self._queue.add,
            interval=self._settings.scrape_interval,
        )
        self._leading = True
        for model in self._models:
            self._queue.add(model.key)
        group.create_task(self._recorder.run(), name="events")
        group.create_task(scraper.run(), name="scraper")
        for number in range(self._settings.workers):
            group.create_task(self._worker(reconciler), name=f"worker-{number}")

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
                outcome = "conflict" if error.status == 409 else "error"
                delay = self._queue.retry(key)
                if outcome == "error":
                    log.warning("%s: trying again in %.1f s: %s", key, delay, error)
            except Exception:
                # A defect met by one model must not stop the others.
                outcome = "defect"
                log.exception("%s: trying again in %.1f s", key, self._queue.retry(key))
            finally:
                self._queue.done(key)
                self._metrics.passes.labels(outcome).observe(clock() - began)

    # Caches

    async def _first_list(self) -> None:
        """Waits for the CRD, which may be applied after the operator, and lists all models."""
        told = False
        while True:
            try:
                await self._list_models()
                return
            except ApiError as error:
                if not told:
                    log.warning("Waiting for %s.%s: %s", PLURAL, GROUP, error)
                told = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _list_models(self) -> None:
        for namespace in self._settings.watch_namespaces or ("",):
            path = f"{API_ROOT}/{f'namespaces/{namespace}/' if namespace else ''}{PLURAL}"
            models, version = await list_all(self._kube, path, {}, parse_model)
            self._models.replace(models, int(version or 0), namespace)

    async def _resync(self) -> None:
        """Lists models now and then: kopf never tells of a deletion that it has missed."""
        await asyncio.sleep(TRIM_SECONDS)
        give_back_memory()
        while True:
            await asyncio.sleep(self._settings.resync)
            try:
                await self._list_models()
            except ApiError as error:
                log.warning("Cannot list models, trying again: %s", error)
            give_back_memory()

    def _start_informers(self, group: asyncio.TaskGroup) -> None:
        def follow(
            store: Store[Any], resource: str, parse: Any, namespace: str, which: Any
        ) -> None:
            prefix = "/apis/apps/v1" if resource != "pods" else "/api/v1"
            scope = f"/namespaces/{namespace}" if namespace else ""
            informer = Informer(
                self._kube,
                store,
                f"{prefix}{scope}/{resource}",
                parse,
                selector=which,
                namespace=namespace,
            )
            self._informers.append(informer)
            group.create_task(informer.run(), name=f"informer-{resource}-{namespace}")

        for namespace in self._settings.watch_namespaces or ("",):
            follow(self._deployments, "deployments", parse_deployment, namespace, CHILDREN)
            follow(self._records, "controllerrevisions", parse_record, namespace, CHILDREN)
            follow(self._pods, "pods", parse_pod, namespace, CHILDREN)
        follow(self._gateway_pods, "pods", parse_pod, self._settings.namespace, GATEWAYS)

    async def _renew_certificates(self, secrets: Secrets) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
            try:
                self._routes.renew(await secrets.ensure(datetime.now(UTC)))
            except ApiError as error:
                log.warning("Cannot renew certificates, trying again: %s", error)

    # What changed wakes what depends on it.

    def _on_event(self, kind: str, model: Model) -> None:
        if kind == "DELETED":
            self._models.remove(model)
        else:
            self._models.put(model)

    def _model_changed(self, key: ModelKey) -> None:
        self._publisher.refresh(key)
        self._queue.add(key)

    def _pods_changed(self, key: ModelKey) -> None:
        self._publisher.refresh(key)
        self._queue.add(key)

    def _gateways_changed(self, _: ModelKey) -> None:
        for model in self._models:
            if awaits_gateways(model.status):
                self._queue.add(model.key)

    def _route_refused(self, key: ModelKey, message: str) -> None:
        self._metrics.refused.inc()
        if self._leading:
            self._fleet.refused(key, message)
            self._queue.add(key)

    # What others may know

    def _health(self) -> str:
        now = asyncio.get_running_loop().time()
        if self._leading and self._queue.age() > STUCK_SECONDS:
            return f"a model has waited for {self._queue.age():.0f} s"
        if any(now - informer.beat > STUCK_SECONDS for informer in self._informers):
            return "a watch is stuck"
        return ""

    def _readiness(self) -> str:
        if not self._synced:
            return "caches are not filled yet"
        return "" if self._serving else "routes are not served yet"

    def _register_gauges(self) -> None:
        gauge = self._metrics.gauge
        loop = asyncio.get_running_loop()
        gauge("leader", "1 on the replica that decides", lambda: float(self._leading))
        gauge("models", "ModelDeployments in the cache", lambda: float(len(self._models)))
        gauge("pods", "Pods of models in the cache", lambda: float(len(self._pods)))
        gauge("queue_depth", "Models that wait for a worker", lambda: float(len(self._queue)))
        gauge("queue_age_seconds", "Age of the oldest wait", self._queue.age)
        gauge(
            "watch_age_seconds",
            "Since the quietest watch gave a sign of life",
            lambda: max((loop.time() - i.beat for i in self._informers), default=0.0),
        )


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


async def _forever(failed: asyncio.Future[None]) -> None:
    await failed


async def _persistently(
    attempt: Callable[[], Coroutine[Any, Any, T]],
) -> T:
    """The result of the first attempt that the API server lets succeed."""
    while True:
        try:
            return await attempt()
        except ApiError as error:
            log.warning("Trying again: %s", error)
        await asyncio.sleep(RETRY_SECONDS)
