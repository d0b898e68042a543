"""Events for ``kubectl describe``: limited in rate, tried again, never in the way of a pass."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kohort.act.manifests import Owner
from kohort.act.outbox import Outbox
from kohort.contract import API_VERSION, KIND
from kohort.kube import ApiError, Calls
from kohort.plan.outcome import Event

CONTROLLER = "kohort.dev/operator"
# A thousand rollouts that begin at once tell of two things each, and take a minute and a half to write.
WAITING_AT_MOST = 10_000
SECONDS_BETWEEN = 0.02
LONGEST_NOTE = 1000
ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
EXISTS, TOO_MANY, BROKEN = 409, 429, 500


class Recorder:
    """Queues events and posts them one after the other; ``identity`` names this operator.

    ``on_lost`` hears why an event was lost: overflow, unreachable or refused.
    """

    def __init__(self, kube: Calls, identity: str, on_lost: Callable[[str], None]) -> None:
        self._kube = kube
        self._identity = identity
        self._outbox: Outbox[tuple[Owner, Event, datetime]] = Outbox(
            "Kubernetes events", WAITING_AT_MOST, on_lost
        )

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._outbox)

    def record(self, owner: Owner, event: Event) -> None:
        """Queues an event about a ModelDeployment."""
        self._outbox.put((owner, event, datetime.now(UTC)))

    async def run(self) -> None:
        """Posts events until cancelled."""
        while True:
            owner, event, at = await self._outbox.get()
            await self._post(owner, self._body(owner, event, at))
            await asyncio.sleep(SECONDS_BETWEEN)

    async def _post(self, owner: Owner, body: dict[str, Any]) -> None:
        path = f"/apis/events.k8s.io/v1/namespaces/{owner.namespace}/events"
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            try:
                await self._kube.call("POST", path, body=body)
                return
            except ApiError as error:
                if error.status == EXISTS:
                    return  # an attempt without an answer was taken
                final = attempt == ATTEMPTS - 1
                if 0 < error.status < BROKEN and error.status != TOO_MANY:
                    self._outbox.lost("refused", error)
                    return
                if final:
                    self._outbox.lost("unreachable", error)
                    return
                await asyncio.sleep(max(error.retry_after, pause * random.uniform(0.5, 1.0)))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    def _body(self, owner: Owner, event: Event, at: datetime) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            # Named here and not by the server, so that a second attempt makes no second event.
            "metadata": {
                "name": f"{owner.name}.{uuid.uuid4().hex[:16]}",
                "namespace": owner.namespace,
            },
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
