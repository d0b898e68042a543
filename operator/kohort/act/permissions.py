"""Everything that the operator asks of the API server, as RBAC rules: no more and no less."""

from __future__ import annotations

from typing import Any

from kohort.contract import GROUP, PLURAL
from kohort.route.gateway_api.routes import GROUP as GATEWAY_API_GROUP
from kohort.route.gateway_api.routes import RouteKind

Rule = dict[str, Any]

LEASE = "kohort-operator"
AUTHORITY_SECRET = "kohort-authority"  # noqa: S105
OPERATOR_SECRET = "kohort-operator-tls"  # noqa: S105
GATEWAY_SECRET = "kohort-gateway-tls"  # noqa: S105


def _rule(group: str, resource: str, *verbs: str, names: tuple[str, ...] = ()) -> Rule:
    rule: Rule = {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
    return {**rule, "resourceNames": list(names)} if names else rule


# In every namespace with models: a ClusterRole, or a Role in each watched namespace.
CLUSTER_RULES: list[Rule] = [
    _rule(GROUP, PLURAL, "list", "watch"),
    _rule(GROUP, f"{PLURAL}/status", "update"),
    # "patch" is server-side apply; "create" because apply may create.
    _rule("apps", "deployments", "list", "watch", "create", "patch", "delete"),
    _rule("apps", "controllerrevisions", "get", "list", "watch", "create", "patch", "delete"),
    _rule("", "pods", "list", "watch"),
    _rule("events.k8s.io", "events", "create"),
]

# Besides, with --gateway-service: a name in the cluster for each model.
NAME_RULES: list[Rule] = [
    _rule("", "services", "get", "list", "watch", "create", "patch"),
]

# Besides, with --gateway-api: a Service for each revision, and routes.
GATEWAY_API_RULES: list[Rule] = [
    _rule("", "services", "get", "list", "watch", "create", "patch", "delete"),
    *(
        _rule(GATEWAY_API_GROUP, kind.plural, "get", "list", "watch", "create", "patch", "delete")
        for kind in RouteKind
    ),
]

# In the operator's own namespace. "create" cannot be limited by name.
NAMESPACE_RULES: list[Rule] = [
    _rule("", "pods", "list", "watch"),
    _rule("coordination.k8s.io", "leases", "create"),
    _rule("coordination.k8s.io", "leases", "get", "update", names=(LEASE,)),
    _rule("", "secrets", "create"),
    _rule(
        "",
        "secrets",
        "get",
        "update",
        names=(AUTHORITY_SECRET, OPERATOR_SECRET, GATEWAY_SECRET),
    ),
]
