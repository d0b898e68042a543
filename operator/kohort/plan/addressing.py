"""What is told of the ways to a model: routes of gateways that are not Kohort's, and its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kohort.api.status import Status
from kohort.plan.context import Context

_NOT_STICKY = (
    "a Gateway API gateway splits request by request: a client meets both revisions during a rollout; "
    "route.type Envoy keeps it on one"
)
_NOT_COMPARED = (
    "Kohort cannot read the counters of a Gateway API gateway: nothing is rolled back by itself, and "
    "analysis and onFailure decide nothing"
)


@dataclass(frozen=True)
class Told:
    """A condition as it should be; None for its status means that it should be absent."""

    type: str
    status: bool | None
    reason: str = ""
    message: str = ""


def unrouted(context: Context, status: Status) -> bool:
    """Whether gateways that are not Kohort's do not send clients where status says.

    Kohort's own say so only while something waits for it.
    """
    has_routes = any(c.stable for c in status.cohorts)
    return has_routes and not context.own_gateways and not context.in_effect


def conditions(context: Context, status: Status) -> Iterator[Told]:
    """Conditions that only some models have."""
    if not context.own_gateways:
        yield Told("Sticky", False, "NotExpressible", _NOT_STICKY)
        yield Told("Compared", False, "NoCounters", _NOT_COMPARED)
        if unrouted(context, status):
            yield Told("RoutesAccepted", False, "Waiting", context.awaited_gateways())
        else:
            yield Told("RoutesAccepted", True, "Accepted", "every gateway has accepted the routes")
    if context.world.name_taken:
        yield Told("NameResolves", False, "NameTaken", context.world.name_taken)
