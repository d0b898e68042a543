"""Strategic merge of an overlay into a pod template, as ``kubectl apply`` would do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

# Lists of a pod template that are merged item by item, and what tells their items apart; every other
# list is replaced whole (patchMergeKey of k8s.io/api/core/v1).
MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "resourceClaims": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
# Values of a key's item that count as given.
DEFAULTS = {"protocol": "TCP"}
# Unions: an overlay's item replaces the other kind of volume or value instead of adding to it.
REPLACED_WHOLE = frozenset({"volumes", "env"})


def merged(base: Json, overlay: Mapping[str, Any]) -> Json:
    """``base`` with ``overlay`` merged over it; None removes a field. Neither is changed.

    What is of another type than Kubernetes wants takes the base's place, for the API server to refuse
    with its path.
    """
    out = dict(base)
    for name, value in overlay.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(out.get(name), dict):
            out[name] = merged(out[name], value)
        elif isinstance(value, list) and isinstance(out.get(name), list) and name in MERGE_KEYS:
            out[name] = _merged_lists(name, out[name], value)
        else:
            out[name] = value
    return out


def _merged_lists(name: str, base: list[Json], overlay: list[Json]) -> list[Json]:
    """Items of ``base`` in their order, changed by equal ones of ``overlay``; then the new ones."""

    def key(item: Json) -> tuple[Any, ...]:
        return tuple(item.get(part, DEFAULTS.get(part)) for part in MERGE_KEYS[name])

    if not all(isinstance(i, Mapping) and _can_be_compared(key(dict(i))) for i in overlay):
        return overlay
    items = {key(item): item for item in base}
    for item in overlay:
        old = items.get(key(item))
        items[key(item)] = item if old is None or name in REPLACED_WHOLE else merged(old, item)
    return list(items.values())


def _can_be_compared(key: tuple[Any, ...]) -> bool:
    return not any(isinstance(part, (list, dict)) for part in key)
