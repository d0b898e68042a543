"""Keeps one container of a pod running: starts it, asks how it is, runs its hooks, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kohort_local.client import Client, Object
from kohort_local.node import images
from kohort_local.node.addresses import Addresses
from kohort_local.node.backoff import BackOff
from kohort_local.node.container import Container
from kohort_local.node.environment import ConfigError, launch
from kohort_local.node.events import Recorder
from kohort_local.node.fields import PodContext
from kohort_local.node.probe import Answer, Prober, follow
from kohort_local.node.run import Run
from kohort_local.node.settings import Settings
from kohort_local.node.sources import Sources
from kohort_local.node.volumes import Volumes

log = logging.getLogger(__name__)
_LAST_GRACE_SECONDS = 2.0  # what is left after SIGTERM when the hook took everything
_LOOK_AGAIN_SECONDS = 0.25
Decided = Callable[[bool, str], Awaitable[bool]]
Grace = Callable[[], float]
"""Seconds from the beginning of an end to SIGKILL; a second deletion may make it shorter."""


@dataclass(frozen=True)
class Services:
    """What the pods of a node share."""

    settings: Settings
    client: Client
    sources: Sources
    events: Recorder
    prober: Prober
    addresses: Addresses


@dataclass(frozen=True)
class PodScope:
    """What the containers of one pod share."""

    context: PodContext
    directory: Path
    volumes: Volumes
    changed: asyncio.Event  # the pod's status is no longer what was told
    stopping: asyncio.Event  # the pod is to end; nothing starts any more

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the pod is to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)


def is_final(policy: str, exit_code: int) -> bool:
    """Whether a container that has exited so stays as it is."""
    return policy == "Never" or (policy == "OnFailure" and exit_code == 0)


async def until(done: asyncio.Future[Any], seconds_left: Callable[[], float]) -> bool:
    """Wait for a future while `seconds_left` is above 0; whether it is done."""
    while not done.done() and (left := seconds_left()) > 0:
        await asyncio.wait([done], timeout=min(left, _LOOK_AGAIN_SECONDS))
    return done.done()


async def logged(work: Coroutine[Any, Any, Any], pod: PodContext) -> None:
    """Run work whose failure must not go unseen."""
    try:
        await work
    except Exception:
        log.exception("pod %s/%s", pod.namespace, pod.name)


class Supervisor:
    """Supervises one container."""

    def __init__(self, container: Container, pod: PodScope, services: Services) -> None:
        self.container = container
        self._pod = pod
        self._services = services

    async def supervise(self, policy: str) -> int | None:
        """Run the container as often as `policy` says.

        Returns:
            Its last exit code; None when the pod ended before the container ran to its own end.
        """
        container, stopping = self.container, self._pod.stopping
        earlier = container.earlier_exit
        if earlier is not None and is_final(policy, earlier):
            container.finished_before()
            self._pod.changed.set()
            return earlier
        back_off = BackOff(self._services.settings.back_off_cap)
        while not stopping.is_set():
            run = await self._start()
            if run is None:
                return None
            began = time.monotonic()
            code = await self._attend(run)
            if stopping.is_set() or is_final(policy, code):
                return code
            back_off = back_off.after_exit(time.monotonic() - began)
            context = self._pod.context
            why = (
                f"back-off {back_off.seconds:g}s restarting failed container={container.name} "
                f"pod={context.name}_{context.namespace}({context.uid})"
            )
            self._wait("CrashLoopBackOff", why, "BackOff")
            await self._pod.pause(back_off.seconds)
        return None

    def _wait(self, state: str, message: str, event: str) -> None:
        self.container.wait(state, message)
        self._services.events.warning(self._pod.context, event, message)
        self._pod.changed.set()

    async def _start(self) -> Run | None:
        """Start the container, however often that takes; None when the pod is to end instead."""
        pauses = BackOff(self._services.settings.back_off_cap)
        while not self._pod.stopping.is_set():
            try:
                async with self.container.lock:
                    if self._pod.stopping.is_set():
                        return None
                    run = await self._spawn()
            except images.ImageUnknown as error:
                first = pauses.exits == 0
                self._wait("ErrImagePull" if first else "ImagePullBackOff", str(error), "Failed")
            except (ConfigError, ValueError) as error:
                self._wait("CreateContainerConfigError", str(error), "Failed")
            except OSError as error:
                self._wait("RunContainerError", str(error), "Failed")
            else:
                self._pod.changed.set()
                message = f"Started container {self.container.name}"
                self._services.events.normal(self._pod.context, "Started", message)
                return run
            pauses = pauses.after_exit(0)
            await self._pod.pause(pauses.seconds)
        return None

    async def _spawn(self) -> Run:
        settings, container, pod = self._services.settings, self.container, self._pod
        container.launch = await launch(
            pod.context,
            container.spec,
            images.find(settings.images, container.spec["image"]),
            self._services.sources,
            pod.volumes,
            server=settings.server,
            directory=pod.directory,
            message_file=container.message_file,
        )
        container.begin_run()
        log_file = container.log_file(container.restarts)
        run = await Run.start(container.launch, log_file, container.record)
        container.running_now(run)
        return run

    async def _attend(self, run: Run) -> int:
        """Watch the running container to its end; its exit code as the API tells it."""
        context = self._pod.context
        beside = [asyncio.create_task(logged(self._probe(), context))]
        if hook := self.container.spec.get("lifecycle", {}).get("postStart"):
            beside.append(asyncio.create_task(logged(self._post_start(hook), context)))
        try:
            code = await run.wait()
        finally:
            for task in beside:
                task.cancel()
        self.container.ended(code)
        self._pod.changed.set()
        return code if code >= 0 else 128 - code

    async def _post_start(self, hook: Object) -> None:
        grace = self._pod.context.grace_seconds
        answer = await self._ask(hook, grace)
        if not answer.well:
            self._services.events.warning(self._pod.context, "FailedPostStartHook", answer.reason)
            await self.end(lambda: grace)

    async def _ask(self, handler: Object, seconds: float) -> Answer:
        if "sleep" in handler:
            await asyncio.sleep(min(seconds, handler["sleep"]["seconds"]))
            return Answer(True)
        container = self.container
        assert container.launch is not None
        return await self._services.prober.ask(
            handler, container.spec, self._pod.context.address, container.launch, seconds
        )

    async def _probe(self) -> None:
        await self._follow("startup", self._startup_decided, eager=True)
        if not self.container.started:
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(self._follow("readiness", self._readiness_decided, eager=True))
            both.create_task(self._follow("liveness", self._liveness_decided, eager=False))

    async def _follow(self, kind: str, decided: Decided, *, eager: bool) -> None:
        probe = self.container.spec.get(f"{kind}Probe")
        if probe is None:
            return

        def failed(reason: str) -> None:
            if not self._pod.stopping.is_set():
                why = f"{kind.capitalize()} probe failed: {reason}"
                self._services.events.warning(self._pod.context, "Unhealthy", why)

        await follow(probe, partial(self._ask, probe), decided, failed, eager=eager)

    async def _startup_decided(self, well: bool, reason: str) -> bool:
        if well:
            self.container.started_up()
            self._pod.changed.set()
        else:
            await self._end_unwell("startup", reason)
        return False

    async def _readiness_decided(self, well: bool, reason: str) -> bool:
        if self.container.ready != well:
            self.container.ready = well
            self._pod.changed.set()
        return True

    async def _liveness_decided(self, well: bool, reason: str) -> bool:
        if not well:
            await self._end_unwell("liveness", reason)
        return well

    async def _end_unwell(self, kind: str, reason: str) -> None:
        if self._pod.stopping.is_set():
            return
        why = f"Container {self.container.name} failed {kind} probe, will be restarted: {reason}"
        self._services.events.normal(self._pod.context, "Killing", why)
        probe = self.container.spec[f"{kind}Probe"]
        default = self._pod.context.object["spec"].get("terminationGracePeriodSeconds", 30)
        grace = float(probe.get("terminationGracePeriodSeconds", default))
        await self.end(lambda: grace)

    async def end(self, grace: Grace) -> None:
        """End the container: its preStop hook, SIGTERM, and SIGKILL when its grace is over."""
        async with self.container.lock:  # a start under way comes first
            run = self.container.run
        if run is None or not run.running:
            return
        began = time.monotonic()

        def left() -> float:
            return grace() - (time.monotonic() - began)

        hook = self.container.spec.get("lifecycle", {}).get("preStop")
        if hook and left() > 0:
            await self._pre_stop(hook, left)
        least = time.monotonic() + (_LAST_GRACE_SECONDS if hook else 0.0)
        if grace() > 0:
            run.terminate()
            await until(
                run.exited, lambda: max(left(), least - time.monotonic()) if grace() > 0 else 0.0
            )
        run.kill()
        await run.exited

    async def _pre_stop(self, hook: Object, left: Callable[[], float]) -> None:
        asked = asyncio.create_task(self._ask(hook, left()))
        if not await until(asked, left):
            asked.cancel()
        elif not asked.result().well:
            reason = asked.result().reason
            self._services.events.warning(self._pod.context, "FailedPreStopHook", reason)
