"""The web view in an operator: fed by its caches, shown to whom the API server lets see it."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from kohort.kube import Kube
from kohort.observe.objects import Pod
from kohort.route.envoy.identity import Identity
from kohort.route.table import ModelKey
from kohort.runtime.caches import Caches
from kohort.runtime.models import Model
from kohort.view.rollout import Facts, PodView
from kohort.view.words import clean
from kohort.web.gate import ClusterGate
from kohort.web.seen import Seen
from kohort.web.server import ViewServer
from kohort.web.source import Feed

OLD_SECONDS = 150.0
"""Bookmarks come about once a minute: a watch that says nothing for longer has lost its server."""


class CachedModels:
    """The caches of an operator as what the page is fed by."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches

    def names(self, namespace: str) -> Iterator[tuple[str, str]]:
        """Namespaces and names of the models of a namespace; of all when it is empty."""
        for model in self._caches.models:
            if namespace in ("", model.key.namespace):
                yield model.key.namespace, model.key.name

    def model(self, namespace: str, name: str) -> Facts | None:
        """One of them."""
        model = self._caches.models.get(ModelKey(namespace, name))
        return facts_of(model) if model else None

    def pods(self, namespace: str, name: str) -> Mapping[str, list[PodView]]:
        """A model's pods, by the name of their revision."""
        found: dict[str, list[PodView]] = {}
        for pod in self._caches.pods.of(ModelKey(namespace, name)).values():
            found.setdefault(pod.revision, []).append(pod_view(pod))
        return found

    def problems(self) -> list[str]:
        """That the API server has fallen silent."""
        age = max(self._caches.watch_ages().values(), default=0.0)
        if age < OLD_SECONDS:
            return []
        return [f"The operator has not heard from the API server for {age:.0f} s: this may be old."]


class Viewing:
    """The view of one operator, while it has caches."""

    def __init__(self, caches: Caches, kube: Kube, identity: Identity) -> None:
        self._caches = caches
        self._feed, self._seen = Feed(), Seen()
        self._server = ViewServer(CachedModels(caches), ClusterGate(kube), self._feed, self._seen)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.renew(identity)

    async def start(self, address: str, port: int) -> None:
        """Serves until :meth:`stop`.

        Raises:
            OSError: the address is taken.
        """
        for model in self._caches.models:
            self.changed(model.key)
        await self._server.start(address, port, self._tls)

    async def stop(self) -> None:
        """Ends streams and listens no more."""
        await self._server.stop()

    def renew(self, identity: Identity) -> None:
        """Shows this certificate to whoever connects from now on."""
        # OpenSSL reads keys from files alone; this one is gone again at once.
        with tempfile.NamedTemporaryFile(prefix="kohort-") as file:
            file.write(identity.certificate + b"\n" + identity.key)
            file.flush()
            self._tls.load_cert_chain(file.name)

    def changed(self, key: ModelKey) -> None:
        """A model or its pods are different now."""
        model = self._caches.models.get(key)
        if model is None:
            self._seen.forget(key.namespace, key.name)
        else:
            self._seen.take(facts_of(model), datetime.now(UTC))
        self._feed.changed(key.namespace, key.name)


def facts_of(model: Model) -> Facts:
    """A cached model as the view knows it; one with an unreadable spec has no steps to count."""
    cohorts = model.spec.cohorts if model.spec else ()
    return Facts(
        namespace=model.key.namespace,
        name=model.key.name,
        generation=model.generation,
        status=model.status,
        stages={cohort.name: cohort.stages for cohort in cohorts},
        command=model.command,
    )


def pod_view(pod: Pod) -> PodView:
    """A cached pod as the view knows it; its age is not remembered."""
    waits = pod.problem.reason if pod.problem else "NotReady"
    return PodView(
        name=clean(pod.name),
        ready=pod.ready and not pod.deleting,
        state="Terminating" if pod.deleting else "Ready" if pod.ready else clean(waits),
        restarts=pod.restarts,
        created=None,
    )
