"""Whether every gateway that a route is attached to says that it follows the route as it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kohort.observe.objects import Owned
from kohort.observe.wire import Condition, RouteParentStatus

ACCEPTED, RESOLVED = "Accepted", "ResolvedRefs"


def parent_names(parents: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """What people call the parentRefs of a rendered route: NAMESPACE/NAME, with the listener if any."""
    return tuple(_name(p["namespace"], p["name"], p.get("sectionName", "")) for p in parents)


def behind(route: Owned, parents: tuple[str, ...]) -> tuple[str, ...]:
    """The parents that do not follow the route's newest generation, with why if that is known.

    Several controllers may speak for one parent: none may disagree, and at least one has to agree.
    """
    told = [(_told_name(route, status), status) for status in route.parents]
    found = []
    for parent in parents:
        said = [_objection(route, status) for name, status in told if name == parent]
        objections = [objection for objection in said if objection is not None]
        if objections or not said:
            why = next(filter(None, objections), "")
            found.append(f"{parent} ({why})" if why else parent)
    return tuple(found)


def _objection(route: Owned, status: RouteParentStatus) -> str | None:
    """None for agreement; else why not, empty for what is merely late."""
    known = {condition.type: condition for condition in status.conditions}
    for kind in (ACCEPTED, RESOLVED):
        condition = known.get(kind, Condition())
        if condition.observed_generation != route.generation:
            return ""
        if condition.status != "True":
            return f"{kind} is {condition.status}: {condition.reason}: {condition.message}"
    return None


def _told_name(route: Owned, status: RouteParentStatus) -> str:
    parent = status.parent_ref
    if parent.kind != "Gateway":
        return ""
    return _name(parent.namespace or route.namespace, parent.name, parent.section_name)


def _name(namespace: str, name: str, section: str) -> str:
    return f"{namespace}/{name}" + (f":{section}" if section else "")
