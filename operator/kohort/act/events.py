"""Events for ``kubectl describe``: best effort, limited in rate, never in the way of a pass."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import UTC, datetime

from kohort.act.manifests import Owner
from kohort.contract import API_VERSION, KIND
from kohort.kube import ApiError, Calls
from kohort.plan.outcome import Event

log = logging.getLogger(__name__)

CONTROLLER = "kohort.dev/operator"
WAITING_AT_MOST = 1000
SECONDS_BETWEEN = 0.05
LONGEST_NOTE = 1000


class Recorder:
    """Queues events and posts them one after the other; ``identity`` names this operator."""

    def __init__(self, kube: Calls, identity: str) -> None:
        self._kube = kube
        self._identity = identity
        # The oldest goes first when there are too many: what is newest explains most.
        self._waiting: deque[tuple[Owner, Event, datetime]] = deque(maxlen=WAITING_AT_MOST)
        self._some = asyncio.Event()

    def record(self, owner: Owner, event: Event) -> None:
        """Queues an event about a ModelDeployment."""
        log.info("%s/%s: %s: %s", owner.namespace, owner.name, event.reason, event.message)
        self._waiting.append((owner, event, datetime.now(UTC)))
        self._some.set()

    async def run(self) -> None:
        """Posts events until cancelled."""
        while True:
            await self._some.wait()
            while self._waiting:
                owner, event, at = self._waiting.popleft()
                await self._post(owner, event, at)
                await asyncio.sleep(SECONDS_BETWEEN)
            self._some.clear()

    async def _post(self, owner: Owner, event: Event, at: datetime) -> None:
        path = f"/apis/events.k8s.io/v1/namespaces/{owner.namespace}/events"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{owner.name}-", "namespace": owner.namespace},
            "eventTime": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "type": event.type.value,
            "reason": event.reason,
            "action": event.reason,
            "note": event.message[:LONGEST_NOTE],
            "reportingController": CONTROLLER,
            "reportingInstance": self._identity,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": owner.namespace,
                "name": owner.name,
                "uid": owner.uid,
            },
        }
        try:
            await self._kube.call("POST", path, body=body)
        except ApiError as error:
            log.warning("An event was lost: %s", error)
