"""What operators really asked of API servers while tests ran: recorded from the audit log, if asked to.

``KOHORT_RECORD_CALLS=1 python -m pytest …`` adds to ``tests/unit/api_calls.txt``; each line is a call, as
WHERE VERB RESOURCE.GROUP [NAME]. WHERE is ``own`` (the operator's namespace), ``models`` or ``all``
namespaces. Names are told of Secrets, and of what is in the operator's own namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from kohort_local.audit import events
from kohort_local.cluster import Cluster

NAMESPACE = "kohort-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:kohort-operator"
RECORDED = Path(__file__).parent / "unit" / "api_calls.txt"
AUDITED = [OPERATOR] if os.environ.get("KOHORT_RECORD_CALLS") else []
REFUSED = (401, 403)
CREATED = 201


class Call(NamedTuple):
    """One kind of call."""

    where: str
    verb: str
    resource: str  # RESOURCE[/SUBRESOURCE]
    group: str
    name: str = ""

    def line(self) -> str:
        """As it stands in the file."""
        return f"{self.where} {self.verb} {self.resource}.{self.group} {self.name}".rstrip()


def parse(line: str) -> Call:
    """A line of the file."""
    where, verb, resource, *name = line.split(" ")
    resource, _, group = resource.partition(".")
    return Call(where, verb, resource, group, *name)


def calls(log: Iterable[dict[str, Any]]) -> set[Call]:
    """The kinds of calls in an audit log; what was refused, and what has no resource, is left out."""
    found = set()
    for event in log:
        target = event.get("objectRef")
        if not target or event.get("responseStatus", {}).get("code") in REFUSED:
            continue
        namespace = target.get("namespace", "")
        where = "own" if namespace == NAMESPACE else "models" if namespace else "all"
        sub = f"/{target['subresource']}" if "subresource" in target else ""
        resource, group = target["resource"] + sub, target.get("apiGroup", "")
        told = (where == "own" and resource not in ("pods",)) or resource == "secrets"
        name = target.get("name", "") if told and event["verb"] != "create" else ""
        found.add(Call(where, event["verb"], resource, group, name))
        # A server-side apply that makes something must be allowed to create it, too.
        if event["verb"] == "patch" and event["responseStatus"]["code"] == CREATED:
            found.add(Call(where, "create", resource, group, name))
    return found


def record(cluster: Cluster) -> None:
    """Adds what a cluster's operators asked for to the file, if that is wanted."""
    if not AUDITED:
        return
    known = set(map(parse, RECORDED.read_text().splitlines())) if RECORDED.exists() else set()
    lines = sorted(call.line() for call in known | calls(events(cluster.state_dir)))
    RECORDED.write_text("".join(f"{line}\n" for line in lines))
