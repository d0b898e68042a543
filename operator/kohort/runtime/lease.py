"""Leadership by a Lease: at most one operator decides and writes."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from typing import Any

import msgspec

from kohort.kube import ApiError, Kube

log = logging.getLogger(__name__)

NOT_FOUND, CONFLICT = 404, 409


class LeaseElection:
    """Wins, holds and gives back a Lease.

    A lease is another's until it has not changed for ``duration`` seconds of our own clock: clocks
    of two machines are never compared. The holder gives up after ``deadline`` seconds without a
    renewal, which is before anybody else may take it.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: float = 15.0,
        deadline: float = 10.0,
        retry: float = 2.0,
    ) -> None:
        if not duration > deadline > retry:
            raise ValueError("lease duration must exceed the renew deadline, and that the retry")
        self._kube = kube
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._duration = duration
        self._deadline = deadline
        self._retry = retry
        self._seen: tuple[str, float] = ("", 0.0)  # resource version, and when first seen
        self._holder = ""
        self._until = 0.0  # by the loop's clock
        self._own: dict[str, Any] | None = None  # as last written, while nobody else is known to

    @property
    def held(self) -> bool:
        """Whether nobody else can have taken the lease."""
        return asyncio.get_running_loop().time() < self._until

    async def acquire(self) -> None:
        """Returns once the lease is ours."""
        while not await self.attempt():
            await self._kube.pause(self._retry * random.uniform(0.8, 1.2))  # noqa: S311

    async def hold(self) -> None:
        """Renews the lease; returns when it is lost."""
        while self.held:
            await asyncio.sleep(self._retry)
            try:
                # A call that hangs must not outlive the lease.
                async with asyncio.timeout_at(self._until):
                    renewed = await self.attempt()
            except TimeoutError:
                log.warning("Renewing the lease took too long")
            else:
                if not renewed and self._holder not in ("", self._identity):
                    self._until = 0.0

    async def release(self) -> None:
        """Gives the lease back, so that the next leader need not wait."""
        self._until = 0.0
        try:
            lease = await self._get()
            if lease and lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._put(lease)
        except ApiError as error:
            log.warning("The lease was not given back, it will expire: %s", error)

    async def attempt(self) -> bool:
        """Takes or renews the lease if that is allowed; returns whether it is ours."""
        asked = asyncio.get_running_loop().time()
        own, self._own = self._own, None
        try:
            lease = own or await self._get()
            if lease is None:
                self._own = await self._create()
            else:
                self._holder = lease["spec"].get("holderIdentity") or ""
                mine = self._holder == self._identity
                if self._holder and not mine and not self._expired(lease):
                    return False
                self._own = await self._put(self._renewed(lease, mine=mine))
        except ApiError as error:
            if own and error.status in (CONFLICT, NOT_FOUND):
                return await self.attempt()  # somebody else wrote it: look
            if error.status != CONFLICT:
                log.warning("Cannot reach the lease: %s", error)
            return False
        self._holder, self._until = self._identity, asked + self._deadline
        return True

    def _expired(self, lease: dict[str, Any]) -> bool:
        now = asyncio.get_running_loop().time()
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, now)
        # The holder's own word on how long it may be silent counts.
        duration = float(lease["spec"].get("leaseDurationSeconds") or self._duration)
        return now - self._seen[1] >= duration

    def _renewed(self, lease: dict[str, Any], *, mine: bool) -> dict[str, Any]:
        now = _now()
        spec = lease["spec"]
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "renewTime": now,
        }
        if not mine:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
        return lease

    async def _get(self) -> dict[str, Any] | None:
        try:
            content = await self._kube.call("GET", f"{self._collection}/{self._name}")
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        lease: dict[str, Any] = msgspec.json.decode(content)
        return {**lease, "spec": lease.get("spec") or {}}

    async def _create(self) -> dict[str, Any]:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {},
        }
        body = self._renewed(lease, mine=False)
        made: dict[str, Any] = msgspec.json.decode(
            await self._kube.call("POST", self._collection, body=body)
        )
        return made

    async def _put(self, lease: dict[str, Any]) -> dict[str, Any]:
        # The resource version in it makes sure that nobody wrote in between.
        path = f"{self._collection}/{self._name}"
        written: dict[str, Any] = msgspec.json.decode(
            await self._kube.call("PUT", path, body=lease)
        )
        return written


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
