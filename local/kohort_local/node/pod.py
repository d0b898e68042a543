"""One pod on this node, from its first volume to its last process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable

from kohort_local.client import STRATEGIC_MERGE_PATCH, Object, RequestFailed, status_code
from kohort_local.node import podstatus
from kohort_local.node.clock import now
from kohort_local.node.container import Container
from kohort_local.node.fields import PodContext
from kohort_local.node.supervisor import PodScope, Services, Supervisor, logged
from kohort_local.node.volumes import Volumes, VolumeUnsupported

log = logging.getLogger(__name__)
_REFRESH_SECONDS = 5.0
_RETRY_SECONDS = 0.5


class Pod:
    """Runs a pod's containers, tells their status, and ends them."""

    def __init__(
        self,
        found: Object,
        services: Services,
        allocatable: dict[str, str],
        gone: Callable[[str], None],
    ) -> None:
        """Begin to run the pod.

        Args:
            found: The Pod as the API has it; what it says of earlier runs is taken over.
            services: What the pods of the node share.
            allocatable: The node's resources.
            gone: Is told the uid when nothing of the pod is left.
        """
        settings, status, spec = services.settings, found.get("status", {}), found["spec"]
        self._services = services
        self._report_gone = gone
        self._address: str | None = services.addresses.take(status.get("podIP"))
        self.context = PodContext(
            found, settings.name, settings.address, self._address, allocatable
        )
        directory = settings.pods / self.context.uid
        directory.mkdir(parents=True, exist_ok=True)
        volumes = Volumes(self.context, directory / "volumes", services.sources)
        self._changed, self._stopping = asyncio.Event(), asyncio.Event()
        self._scope = PodScope(self.context, directory, volumes, self._changed, self._stopping)
        earlier = {
            told["name"]: told
            for key in ("initContainerStatuses", "containerStatuses")
            for told in status.get(key, [])
        }
        self._first, self._others = (
            [
                Supervisor(Container(c, directory, earlier.get(c["name"])), self._scope, services)
                for c in spec.get(key, [])
            ]
            for key in ("initContainers", "containers")
        )
        self._policy = str(spec.get("restartPolicy", "Always"))
        self._initialized = False
        self._started_at = status.get("startTime") or now()
        self._conditions = podstatus.Conditions()
        self._forced = False
        self._told: Object | None = None
        self._running = asyncio.create_task(logged(self._run(), self.context))
        self._telling = asyncio.create_task(self._tell_changes())
        self._refreshing = asyncio.create_task(self._refresh_volumes())
        self._ending: asyncio.Task[None] | None = None

    @property
    def containers(self) -> list[Container]:
        """Init containers and the others."""
        return [supervisor.container for supervisor in [*self._first, *self._others]]

    def update(self, found: Object) -> None:
        """The API tells of a change."""
        self.context.object = found
        if podstatus.differs(found, self.status()["conditions"]):
            # Somebody else has written them, such as the node controller after a silence of ours.
            self._told = None
            self._changed.set()
        if self.context.deleted:
            self.end()

    def status(self) -> Object:
        """Its PodStatus."""
        told = [s.container.status() for s in self._others]
        ended = self._stopping.is_set() and not any(c.running for c in self.containers)
        phase = podstatus.phase(self._policy, self._initialized, told, deleted=ended)
        beside = [s.container for s in self._first if s.container.sidecar]
        ready = self._initialized and all(
            c.ready for c in [*beside, *(s.container for s in self._others)]
        )
        held = podstatus.held(self.context.object, phase, self._initialized, ready)
        return {
            "phase": phase,
            "hostIP": self._services.settings.address,
            "podIP": self.context.address,
            "podIPs": [{"ip": self.context.address}],
            "startTime": self._started_at,
            "initContainerStatuses": [s.container.status() for s in self._first],
            "containerStatuses": told,
            "conditions": self._conditions.told(held),
        }

    async def _run(self) -> None:
        self._changed.set()
        await self._mount()
        beside: list[asyncio.Task[int | None]] = []
        if await self._initialize(beside):
            self._initialized = True
            self._changed.set()
            await asyncio.gather(*(s.supervise(self._policy) for s in self._others))
        if not self._stopping.is_set():
            self._stopping.set()  # the containers beside have nobody to be beside of
            await asyncio.gather(*(s.end(self._grace) for s in self._first))
        await asyncio.gather(*beside)
        self._changed.set()
        self._release_address()

    async def _initialize(self, beside: list[asyncio.Task[int | None]]) -> bool:
        """Run the init containers, adding those that go on to `beside`; whether all went well."""
        policy = "Never" if self._policy == "Never" else "OnFailure"
        for supervisor in self._first:
            container = supervisor.container
            if container.sidecar:
                beside.append(asyncio.create_task(supervisor.supervise("Always")))
                await container.has_started.wait()
            else:
                container.ready = await supervisor.supervise(policy) == 0
                if not container.ready:
                    return False
        return not self._stopping.is_set()

    async def _mount(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._scope.volumes.prepare()
                return
            except (*RequestFailed, VolumeUnsupported, KeyError, OSError) as error:
                self._services.events.warning(self.context, "FailedMount", str(error))
                for container in self.containers:
                    container.wait("ContainerCreating", str(error))
                self._changed.set()
                await self._scope.pause(_RETRY_SECONDS)

    async def _refresh_volumes(self) -> None:
        while self.context.spec.get("volumes"):
            await asyncio.sleep(_REFRESH_SECONDS)
            if any(container.running for container in self.containers):
                # What is missing for a while leaves the volume as it was.
                with contextlib.suppress(*RequestFailed, VolumeUnsupported, KeyError):
                    await self._scope.volumes.refresh()

    async def _tell_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not await self._tell():
                self._changed.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _tell(self) -> bool:
        """Write the status if it is news; whether there is nothing more to try."""
        status = self.status()
        if status == self._told:
            return True
        context = self.context
        path = f"/api/v1/namespaces/{context.namespace}/pods/{context.name}/status"
        change = {"metadata": {"uid": context.uid}, "status": status}
        try:
            await self._services.client.request("PATCH", path, change, STRATEGIC_MERGE_PATCH)
        except RequestFailed as error:
            log.warning("status of %s/%s: %s", context.namespace, context.name, error)
            # Gone, another pod of that name, or refused: the watch will tell.
            return status_code(error) in (404, 409, 422)
        self._told = status
        return True

    def _grace(self) -> float:
        return 0.0 if self._forced else self.context.grace_seconds

    def end(self, *, forced: bool = False) -> None:
        """Begin to end it; `forced` when the API has it no more."""
        self._forced = self._forced or forced
        if self._ending is None:
            self._ending = asyncio.create_task(logged(self._end(), self.context))

    async def _end(self) -> None:
        self._stopping.set()
        for container in self.containers:
            if container.running:
                message = f"Stopping container {container.name}"
                self._services.events.normal(self.context, "Killing", message)
        # Containers beside the others serve them to the end.
        await asyncio.gather(*(s.end(self._grace) for s in self._others))
        await asyncio.gather(*(s.end(self._grace) for s in self._first))
        for container in self.containers:
            container.has_started.set()  # nobody waits for a start any more
        await self._running
        self._refreshing.cancel()
        self._telling.cancel()
        await self._say_goodbye()
        self._release_address()
        self._services.sources.forget(self.context)
        shutil.rmtree(self._scope.directory, ignore_errors=True)
        self._report_gone(self.context.uid)

    async def _say_goodbye(self) -> None:
        """Tell the last status and let the API forget the pod, until it has."""
        while not self._forced:
            if await self._tell() and await finalize(self._services, self.context.object):
                return
            await asyncio.sleep(_RETRY_SECONDS)

    def _release_address(self) -> None:
        if self._address is not None:
            self._services.addresses.release(self._address)
            self._address = None

    def abandon(self) -> None:
        """The node ends: kill what runs, and tell nobody."""
        self._stopping.set()
        for task in (self._running, self._telling, self._refreshing, self._ending):
            if task is not None:
                task.cancel()
        for container in self.containers:
            if container.run is not None:
                container.run.kill()


async def finalize(services: Services, pod: Object) -> bool:
    """Let the API forget a pod of which nothing runs; whether it has."""
    metadata = pod["metadata"]
    try:
        await services.client.request(
            "DELETE",
            f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}",
            {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": metadata["uid"]},
            },
        )
    except RequestFailed as error:
        return status_code(error) in (404, 409)
    return True
