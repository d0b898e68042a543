"""Where ModelDeployments come from: kopf watches them and does nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from kohort.contract import GROUP, PLURAL
from kohort.kube import Server
from kohort.runtime.models import Model, convert_model

log = logging.getLogger(__name__)

OnEvent = Callable[[str, Model], None]
# kopf takes its time and only reads; the process need not wait for all of it.
STOP_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


def kopf_settings() -> kopf.OperatorSettings:
    """Settings under which kopf only watches: no posts, no scans, no worker that waits."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # By default it waits up to 21 s, also for a server that has long been back, and then gives up.
    settings.networking.error_backoffs = (1,) * 20
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    # Waited for after each 410, which every watch meets once on an API server that has started anew.
    settings.watching.reconnect_backoff = 0.5
    # Small pages, and workers that end at once: each of them holds the whole object while it idles.
    settings.watching.chunk_size = 50
    settings.queueing.idle_timeout = 0.01
    settings.queueing.worker_limit = None
    settings.process.ultimate_exiting_timeout = None
    return settings


class ModelSource:
    """Runs kopf in a thread with loops of its own, and anew whenever it gives up.

    ``on_event`` is called in the loop that calls :meth:`start`: an event's type, the model.
    """

    def __init__(self, server: Server, namespaces: Sequence[str], on_event: OnEvent) -> None:
        self._server = server
        self._namespaces = namespaces
        self._on_event = on_event
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, failed: Callable[[], None]) -> None:
        """Starts watching; ``failed`` is called when kopf has given up, and may have missed something."""
        loop = asyncio.get_running_loop()
        registry = self._registry(loop)

        def run() -> None:
            pause = FIRST_PAUSE
            while not self._stop.is_set():
                began = time.monotonic()
                own = asyncio.new_event_loop()
                try:
                    own.run_until_complete(self._watch(registry))
                except Exception:
                    log.exception("Watching models failed, beginning anew in %.0f s", pause)
                finally:
                    own.close()
                if not self._stop.wait(pause):
                    loop.call_soon_threadsafe(failed)
                lasted = time.monotonic() - began > LONGEST_PAUSE
                pause = FIRST_PAUSE if lasted else min(pause * 2, LONGEST_PAUSE)

        self._thread = threading.Thread(target=run, name="kopf", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends the watch; does not wait for long."""
        self._stop.set()
        if self._thread:
            await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    async def _watch(self, registry: kopf.OperatorRegistry) -> None:
        """Watches until it is stopped, or any part of kopf ends: its others might wait for ever."""
        parts = await kopf.spawn_tasks(
            registry=registry,
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=STOP_SECONDS)
        for task in done:
            task.result()

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(
                server=self._server.url,
                ca_data=self._server.ca.encode() or None,
                certificate_data=self._server.certificate.encode() or None,
                private_key_data=self._server.key.encode() or None,
                token=self._server.bearer() or None,
            )

        @kopf.on.event(GROUP, "v1alpha1", PLURAL, registry=registry)
        async def changed(event: Mapping[str, Any], **_: Any) -> None:
            model = convert_model(event["object"])
            loop.call_soon_threadsafe(self._on_event, event["type"] or "LISTED", model)

        return registry
