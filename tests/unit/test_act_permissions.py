"""The operator's permissions are as few as can be: each is used, and nothing else is asked for.

``tests/unit/api_calls.txt`` was recorded from audit logs of real API servers, see tests/recorded_calls.py.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kohort.act import permissions
from kohort.act.permissions import Rule
from tests.recorded_calls import RECORDED, Call, calls, parse

CALLS = sorted(map(parse, RECORDED.read_text().splitlines()))
OWN = ("fleet", "lease", "certificates")
# Names that an installation gives.
GIVEN = {"named-by-the-chart": "reader"}


class Permission(NamedTuple):
    """One verb of one resource in a rule: the least that can be given, or taken away."""

    concern: str
    verb: str
    resource: str
    group: str
    names: tuple[str, ...]

    def allows(self, call: Call) -> bool:
        """As RBAC decides where no models are in the operator's own namespace."""
        here = (call.where == "own") == (self.concern in OWN)
        named = not self.names or call.name in self.names
        same = (call.verb, call.resource, call.group) == (self.verb, self.resource, self.group)
        return here and named and same


def permitted(concern: str, rules: list[Rule]) -> list[Permission]:
    return [
        Permission(concern, verb, resource, group, names)
        for rule in rules
        for names in [tuple(GIVEN.get(n, n) for n in rule.get("resourceNames", []))]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


PERMISSIONS = [
    p for concern, rules in permissions.CONCERNS.items() for p in permitted(concern, rules)
]


def told(permission: Permission) -> str:
    return f"{permission.concern}: {permission.verb} {permission.resource}"


@pytest.mark.parametrize("call", CALLS, ids=Call.line)
def test_what_is_asked_for_is_allowed(call: Call) -> None:
    assert any(permission.allows(call) for permission in PERMISSIONS)


@pytest.mark.parametrize("permission", PERMISSIONS, ids=told)
def test_what_is_allowed_is_asked_for(permission: Permission) -> None:
    assert any(permission.allows(call) for call in CALLS)


@pytest.mark.parametrize("taken", PERMISSIONS, ids=told)
def test_without_any_permission_something_would_be_refused(taken: Permission) -> None:
    # The concerns "names" and "gateway-api" both give Services, to installations with one of them.
    installed = [
        p for p in PERMISSIONS if p.concern not in {"names", "gateway-api"} - {taken.concern}
    ]
    left = [p for p in installed if p != taken]
    lost = [c for c in CALLS if taken.allows(c) and not any(p.allows(c) for p in left)]
    assert lost


def test_names_of_secrets_are_recorded_and_none_is_any() -> None:
    secrets = [call for call in CALLS if call.resource == "secrets" and call.verb != "create"]
    assert len(secrets) > 6
    assert all(call.name for call in secrets)


def test_an_audit_log_is_read_as_kinds_of_calls() -> None:
    def event(verb: str, code: int, **target: str) -> dict[str, object]:
        return {"verb": verb, "objectRef": target, "responseStatus": {"code": code}}

    pods = {"resource": "pods", "apiVersion": "v1"}
    status = {"resource": "modeldeployments", "apiGroup": "kohort.dev", "subresource": "status"}
    found = calls(
        [
            event("list", 200, **pods),
            event("list", 403, **pods, namespace="refused"),
            event("update", 200, **status, namespace="shop", name="burger"),
            event("get", 404, resource="secrets", namespace="kohort-system", name="a"),
            {"verb": "get", "requestURI": "/version"},
        ]
    )
    assert {call.line() for call in found} == {
        "all list pods.",
        "models update modeldeployments/status.kohort.dev",
        "own get secrets. a",
    }
    assert {parse(call.line()) for call in found} == found
