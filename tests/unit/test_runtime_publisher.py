"""When gateways are served routes: not before there is a pod that they lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kohort.observe.objects import Pod
from kohort.observe.store import Store
from kohort.route.table import Endpoints, ModelKey, RouteTable
from kohort.runtime.models import Models, convert_model
from kohort.runtime.routes import LONGEST_WAIT, Publisher

KEY = ModelKey("shop", "burger")


class Replica:
    """One replica of the operator: what it has heard of, and what it serves."""

    def __init__(self) -> None:
        self.served: list[tuple[RouteTable, Endpoints]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.models = Models(lambda key: self.publisher.refresh(key))
        self.pods: Store[Pod] = Store(lambda key: self.publisher.refresh(key))
        self.publisher = Publisher(
            self.models,
            self.pods,
            self,
            lambda: None,
            lambda seconds, call: self.timers.append((seconds, call)),
        )
        self.version = 0

    def publish(self, table: RouteTable, endpoints: Endpoints) -> None:
        self.served.append((table, endpoints))

    def prepare(self, table: RouteTable, endpoints: Endpoints) -> None:
        pass

    def withdraw(self, key: ModelKey) -> None:
        self.served.clear()

    def hears_of_the_model(self, stable: str, **cohort: Any) -> None:
        self.version += 1
        self.models.put(
            convert_model(
                {
                    "metadata": {
                        "namespace": "shop",
                        "name": "burger",
                        "uid": "u",
                        "resourceVersion": str(self.version),
                    },
                    "spec": {"model": {"uri": "file:///m.onnx"}},
                    "status": {
                        "cohorts": [{"name": "everyone", "stable": stable, "salt": "s", **cohort}]
                    },
                }
            )
        )

    def hears_of_a_pod(self, revision: str, ready: bool = True) -> None:
        self.version += 1
        self.pods.put(
            Pod(
                namespace="shop",
                name=f"{revision}-0",
                uid=f"{revision}-0",
                model="burger",
                revision=revision,
                address="127.0.0.9",
                ready=ready,
                deleting=False,
                restarts=0,
                problem=None,
                version=self.version,
            )
        )

    @property
    def stable(self) -> list[str]:
        return [table.cohorts[0].stable for table, _ in self.served]


def test_a_status_that_is_heard_of_before_its_pods_waits_for_them() -> None:
    replica = Replica()
    replica.publisher.begin()
    replica.hears_of_a_pod("v1", ready=False)
    replica.hears_of_the_model("v1")
    assert not replica.served
    replica.hears_of_a_pod("v1")
    ((table, endpoints),) = replica.served
    assert table.serving == {"v1"}
    assert endpoints["v1"]
    replica.hears_of_the_model("v2")
    assert replica.stable == ["v1"]
    replica.hears_of_a_pod("v2")
    assert replica.stable[-1] == "v2"


def test_it_does_not_wait_for_long_for_pods_may_be_gone_again() -> None:
    replica = Replica()
    replica.publisher.begin()
    replica.hears_of_the_model("v1")
    replica.hears_of_the_model("v1", message="again")
    ((seconds, call),) = replica.timers
    assert seconds == LONGEST_WAIT
    call()
    assert replica.stable == ["v1"]


def test_what_waits_is_not_served_late_when_it_is_served_already() -> None:
    replica = Replica()
    replica.publisher.begin()
    replica.hears_of_the_model("v1")
    replica.hears_of_a_pod("v1")
    served = len(replica.served)
    ((_, call),) = replica.timers
    call()
    assert len(replica.served) == served


def test_whoever_loses_its_pods_stays_served_and_a_way_back_waits_for_nothing() -> None:
    replica = Replica()
    replica.hears_of_the_model("v1", canary="v2", weight=50)
    replica.hears_of_a_pod("v1", ready=False)
    replica.hears_of_a_pod("v2")
    replica.publisher.begin()  # with all that was there at the start
    assert replica.stable == ["v1"]
    replica.hears_of_the_model("v1")
    assert replica.served[-1][0].serving == {"v1"}
    assert not replica.timers
