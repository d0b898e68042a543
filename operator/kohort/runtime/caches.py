"""Everything of the cluster that one operator process remembers, and what keeps it true."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from kohort.contract import (
    GROUP,
    LABEL_COMPONENT,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    MANAGED_BY,
    PLURAL,
)
from kohort.kube import ApiError, Kube, Server
from kohort.observe.informer import Informer
from kohort.observe.listing import list_all
from kohort.observe.objects import (
    Deployment,
    Owned,
    Pod,
    Record,
    parse_deployment,
    parse_owned,
    parse_pod,
    parse_record,
)
from kohort.observe.store import Store
from kohort.route.gateway_api.routes import API_VERSION as GATEWAY_API_VERSION
from kohort.route.gateway_api.routes import RouteKind
from kohort.route.table import ModelKey
from kohort.runtime.memory import give_back_memory
from kohort.runtime.models import Model, Models
from kohort.runtime.settings import Settings
from kohort.runtime.source import ModelSource

log = logging.getLogger(__name__)

CHILDREN = {"labelSelector": f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_MODEL}"}
GATEWAYS = {"labelSelector": f"{LABEL_COMPONENT}=gateway"}
APPS, CORE, MODELS = "/apis/apps/v1", "/api/v1", f"/apis/{GROUP}/v1alpha1"
GATEWAY_API = f"/apis/{GATEWAY_API_VERSION}"
RETRY_SECONDS = 1.0
SECOND_LIST_SECONDS = 5.0
# The first lists are digested by then; later, a wave of changes.
FIRST_TRIM_SECONDS, TRIM_SECONDS = 5.0, 60.0

OnChange = Callable[[ModelKey], None]


class Caches:
    """Models from kopf, everything else from informers.

    ``on_model``: a model itself changed; ``on_pods``: its pods; ``on_child``: its Deployments or
    records; ``on_gateways``: the fleet.
    """

    def __init__(
        self,
        kube: Kube,
        server: Server,
        settings: Settings,
        *,
        on_model: OnChange,
        on_pods: OnChange,
        on_child: OnChange,
        on_gateways: OnChange,
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._namespaces = settings.watch_namespaces or ("",)
        self._source = ModelSource(server, settings.watch_namespaces, self._on_event)
        self._informers: list[Informer[Any]] = []
        self.models = Models(on_model)
        self.pods: Store[Pod] = Store(on_pods)
        self.deployments: Store[Deployment] = Store(on_child)
        self.records: Store[Record] = Store(on_child)
        self.gateway_pods: Store[Pod] = Store(on_gateways)
        self.services: Store[Owned] = Store(on_child)
        kinds = RouteKind if settings.gateway_api else ()
        self.routes: dict[RouteKind, Store[Owned]] = {kind: Store(on_child) for kind in kinds}
        self.filled = False
        self._missed = asyncio.Event()

    async def fill(self, group: asyncio.TaskGroup) -> None:
        """Returns once all caches are full; tasks in ``group`` keep them so, models apart.

        Waits for the CRD, which may be applied after the operator.
        """
        models = group.create_task(self._first_list(), name="first list")
        own = self._settings.namespace
        for namespace in self._namespaces:
            self._follow(group, self.deployments, APPS, "deployments", parse_deployment, namespace)
            self._follow(group, self.records, APPS, "controllerrevisions", parse_record, namespace)
            if self._settings.gateway_service or self._settings.gateway_api:
                self._follow(group, self.services, CORE, "services", parse_owned, namespace)
        self._follow(group, self.gateway_pods, CORE, "pods", parse_pod, own, GATEWAYS)
        # Pods after models: those that a status speaks of are among them.
        await models
        for namespace in self._namespaces:
            self._follow(group, self.pods, CORE, "pods", parse_pod, namespace)
        for informer in self._informers:
            await informer.synced.wait()
        # Not waited for: without their CRDs, models that do not use them are served all the same.
        for kind, store in self.routes.items():
            for namespace in self._namespaces:
                self._follow(group, store, GATEWAY_API, kind.plural, parse_owned, namespace)
        group.create_task(self._resync(), name="resync")
        group.create_task(_trim(), name="trim")
        self.filled = True

    def watch_models(self) -> None:
        """Hears of changed models from now on, and of all that have changed since the first list."""
        self._source.start(self._missed.set)
        # By then kopf has its own list. It says nothing of what was deleted between the two.
        asyncio.get_running_loop().call_later(SECOND_LIST_SECONDS, self._missed.set)

    async def stop(self) -> None:
        """Ends what does not end with its task."""
        await self._source.stop()

    def age(self) -> float:
        """Seconds since the quietest informer gave a sign of life."""
        now = asyncio.get_running_loop().time()
        return max((now - informer.beat for informer in self._informers), default=0.0)

    def watch_ages(self) -> dict[str, float]:
        """By resource, seconds since the API server last said anything to the quietest informer."""
        now = asyncio.get_running_loop().time()
        ages: dict[str, float] = {}
        for informer in self._informers:
            ages[informer.resource] = max(ages.get(informer.resource, 0.0), now - informer.heard)
        return ages

    def _follow(
        self,
        group: asyncio.TaskGroup,
        store: Store[Any],
        api: str,
        resource: str,
        parse: Callable[..., Any],
        namespace: str,
        selector: Mapping[str, str] = CHILDREN,
    ) -> None:
        informer = Informer(
            self._kube,
            store,
            _path(api, namespace, resource),
            parse,
            selector=selector,
            namespace=namespace,
        )
        self._informers.append(informer)
        group.create_task(informer.run(), name=f"informer {resource} {namespace}")

    def _on_event(self, kind: str, model: Model) -> None:
        if kind == "DELETED":
            self.models.remove(model)
        else:
            self.models.put(model)

    async def _first_list(self) -> None:
        told = False
        while True:
            try:
                await self._list_models()
                return
            except ApiError as error:
                if not told:
                    log.warning("Waiting for %s.%s: %s", PLURAL, GROUP, error)
                told, pause = True, max(RETRY_SECONDS, error.retry_after)
            await asyncio.sleep(pause)

    async def _list_models(self) -> None:
        for namespace in self._namespaces:
            path = _path(MODELS, namespace, PLURAL)
            models, version = await list_all(self._kube, path, {}, self.models.parse)
            self.models.replace(models, int(version or 0), namespace)

    async def _resync(self) -> None:
        """Lists models now and then: kopf never tells of a deletion that it has missed."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._missed.wait(), self._settings.resync)
            self._missed.clear()
            try:
                await self._list_models()
            except ApiError as error:
                log.warning("Cannot list models, trying again: %s", error)
                await asyncio.sleep(max(RETRY_SECONDS, error.retry_after))
                self._missed.set()


def _path(api: str, namespace: str, resource: str) -> str:
    return f"{api}/namespaces/{namespace}/{resource}" if namespace else f"{api}/{resource}"


async def _trim() -> None:
    await asyncio.sleep(FIRST_TRIM_SECONDS)
    while True:
        give_back_memory()
        await asyncio.sleep(TRIM_SECONDS)
