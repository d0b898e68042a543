"""The gateways: which are ready, and which already serve what a model's status intends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from kohort.contract import PORT_GATEWAY, PORT_GATEWAY_STATUS
from kohort.observe.gateways import GatewayAddress, Unknown
from kohort.observe.objects import Pod
from kohort.observe.store import Store
from kohort.plan.world import Gateways
from kohort.route.table import ModelKey, RouteTable

AskVersions = Callable[[Sequence[GatewayAddress], ModelKey], Awaitable[Mapping[str, str | Unknown]]]

# Most gateways follow within milliseconds; one that does not is not asked without end.
PATIENCE = (0.005, 0.010, 0.020, 0.050, 0.100, 0.200, 0.500, 1.0)


class Fleet:
    """Remembers who has confirmed which table, so that nobody is asked twice for the same.

    ``on_acknowledged`` hears how many seconds it took every ready gateway to serve what was intended.
    """

    def __init__(
        self, pods: Store[Pod], ask: AskVersions, on_acknowledged: Callable[[float], None]
    ) -> None:
        self._pods = pods
        self._ask = ask
        self._on_acknowledged = on_acknowledged
        self._intended: dict[ModelKey, tuple[str, float]] = {}
        self._confirmed: dict[ModelKey, tuple[str, frozenset[str]]] = {}
        self._asked: dict[ModelKey, int] = {}
        self._refused: dict[ModelKey, tuple[str, str]] = {}

    def ready(self) -> tuple[GatewayAddress, ...]:
        """The gateways that take clients, by name."""
        return tuple(sorted((_address(p) for p in self._ready()), key=lambda a: a.name))

    def refused(self, key: ModelKey, version: str, message: str) -> None:
        """Takes note that a gateway refuses a version of a model's routes, maybe before it is intended."""
        self._refused[key] = (version, message)

    def forget(self, key: ModelKey) -> None:
        """Drops what is remembered of a model that awaits nothing."""
        for memory in (self._intended, self._confirmed, self._asked, self._refused):
            memory.pop(key, None)

    def intended(self, key: ModelKey, table: RouteTable | None) -> None:
        """Takes note that a status was persisted that every gateway is to follow with this table."""
        version = table.version if table else ""
        for memory in (self._intended, self._confirmed):
            if key in memory and memory[key][0] == version:
                return
        self._intended[key] = (version, time.monotonic())

    def names(self) -> Gateways:
        """The fleet without a question asked, for models that await nothing of it."""
        return Gateways(ready=tuple(a.name for a in self.ready()))

    async def look(self, key: ModelKey, table: RouteTable | None) -> Gateways:
        """Asks the gateways that have not yet confirmed this table."""
        ready = sorted(self._ready(), key=lambda pod: pod.name)
        names = tuple(pod.name for pod in ready)
        if table is None:
            return Gateways(ready=names)
        version = table.version
        known, confirmed = self._confirmed.get(key, ("", frozenset()))
        if known != version:
            confirmed = frozenset()
            self._asked.pop(key, None)
        missing = [pod for pod in ready if _process(pod) not in confirmed]
        if not missing:
            self._asked.pop(key, None)
            self._acknowledge(key, version, by=names)
            return Gateways(ready=names)
        told = await self._ask([_address(pod) for pod in missing], key)
        agreed = {_process(pod) for pod in missing if told.get(pod.name) == version}
        self._confirmed[key] = (version, confirmed | agreed)
        self._asked[key] = self._asked.get(key, 0) + 1
        behind = tuple(
            self._described(key, version, pod.name, told.get(pod.name))
            for pod in missing
            if _process(pod) not in agreed
        )
        if not behind:
            self._acknowledge(key, version, by=names)
        return Gateways(ready=names, behind=behind)

    def patience(self, key: ModelKey) -> float:
        """Seconds until it is worth asking again."""
        return PATIENCE[min(max(self._asked.get(key, 0), 1), len(PATIENCE)) - 1]

    def _acknowledge(self, key: ModelKey, version: str, *, by: Sequence[str]) -> None:
        if by and self._intended.get(key, ("", 0.0))[0] == version:
            self._on_acknowledged(time.monotonic() - self._intended.pop(key)[1])

    def _described(
        self, key: ModelKey, version: str, name: str, answer: str | Unknown | None
    ) -> str:
        """A gateway that is behind, with why if that is known; a mere delay needs no words."""
        refused, message = self._refused.get(key, ("", ""))
        if refused == version:
            return f"{name} (it refuses the routes: {message})"
        return f"{name} ({answer.reason})" if isinstance(answer, Unknown) else name

    def _ready(self) -> list[Pod]:
        return [pod for pod in self._pods if pod.ready and not pod.deleting]


def _address(pod: Pod) -> GatewayAddress:
    return GatewayAddress(pod.name, pod.address, PORT_GATEWAY, PORT_GATEWAY_STATUS)


def _process(pod: Pod) -> str:
    """A gateway's process: after a restart it has to confirm anew."""
    return f"{pod.uid}/{pod.restarts}"
