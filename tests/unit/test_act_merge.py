"""The overlay on the pod template is merged as kubectl apply would merge it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kohort.act.merge import merged

values = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=3), values, max_size=4)


def container(template: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (c for c in template["containers"] if c["name"] == name)
    return dict(found)


BASE: dict[str, Any] = {
    "containers": [
        {
            "name": "server",
            "image": "a",
            "args": ["serve"],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        }
    ],
    "volumes": [{"name": "cache", "emptyDir": {}}],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
}


def test_a_container_of_the_same_name_is_changed_and_keeps_the_rest() -> None:
    out = merged(BASE, {"containers": [{"name": "server", "resources": {"limits": {"cpu": "1"}}}]})
    assert container(out, "server")["image"] == "a"
    assert container(out, "server")["resources"] == {"limits": {"cpu": "1"}}


def test_a_container_of_another_name_is_added_behind() -> None:
    out = merged(BASE, {"containers": [{"name": "sidecar", "image": "b"}]})
    assert [c["name"] for c in out["containers"]] == ["server", "sidecar"]


def test_env_is_merged_by_name_and_a_value_replaces_where_it_came_from() -> None:
    env = [{"name": "POD_IP", "value": "127.0.0.1"}, {"name": "MORE", "value": "1"}]
    out = merged(BASE, {"containers": [{"name": "server", "env": env}]})
    assert container(out, "server")["env"] == env


def test_a_volume_of_the_same_name_is_replaced_and_not_given_two_kinds() -> None:
    claim = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    assert merged(BASE, {"volumes": [claim]})["volumes"] == [claim]


def test_ports_without_a_protocol_are_tcp() -> None:
    ports = [{"containerPort": 8080, "name": "web"}]
    out = merged(BASE, {"containers": [{"name": "server", "ports": ports}]})
    assert container(out, "server")["ports"] == [
        {"name": "web", "containerPort": 8080, "protocol": "TCP"}
    ]


def test_lists_without_a_key_are_replaced_whole() -> None:
    assert merged(BASE, {"tolerations": []})["tolerations"] == []
    out = merged(BASE, {"containers": [{"name": "server", "args": ["other"]}]})
    assert container(out, "server")["args"] == ["other"]


def test_null_removes_a_field() -> None:
    assert "tolerations" not in merged(BASE, {"tolerations": None})


@given(objects)
def test_an_empty_overlay_changes_nothing(base: dict[str, Any]) -> None:
    assert merged(base, {}) == base


@given(objects, objects)
def test_merging_the_same_again_changes_nothing(
    base: dict[str, Any], overlay: dict[str, Any]
) -> None:
    once = merged(base, overlay)
    assert merged(once, overlay) == once


def test_what_is_of_another_type_is_left_for_the_api_server_to_refuse() -> None:
    mistakes: tuple[Any, ...] = ("x", [1], ["x"], [{"name": ["server"]}], [{"name": {}}])
    for wrong in mistakes:
        assert merged(BASE, {"containers": wrong})["containers"] == wrong
