"""The chart's own files say what the code says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import msgspec.yaml
import pytest

from kohort import contract
from kohort.act import permissions
from kohort.api.crd import render
from kohort_local import dashboards, panels

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "kohort"
VALUES: dict[str, Any] = msgspec.yaml.decode((CHART / "values.yaml").read_bytes())
SCHEMA: dict[str, Any] = msgspec.json.decode((CHART / "values.schema.json").read_bytes())
TEMPLATES = "\n".join(p.read_text() for p in sorted((CHART / "templates").rglob("*.yaml")))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a group of others, by its path."""
    if not isinstance(node, dict) or not node or path.endswith((".resources", ".labels")):
        yield path, node
        return
    for name, child in node.items():
        yield from leaves(child, f"{path}.{name}" if path else name)


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object with named properties in a schema, by its path."""
    if "properties" in schema:
        yield path, schema
    for name, child in {**schema.get("properties", {}), **schema.get("definitions", {})}.items():
        yield from nodes(child, f"{path}.{name}")


def test_the_charts_crd_is_the_one_of_the_types() -> None:
    assert (CHART / "files" / "crd.yaml").read_text() == render(), "run make generate"


def test_the_charts_permissions_are_the_operators_own() -> None:
    assert (CHART / "files" / "permissions.yaml").read_text() == permissions.render(), (
        "run make generate"
    )


@pytest.mark.parametrize("name", panels.BOARDS)
def test_the_charts_boards_are_those_of_the_table_of_panels(name: str) -> None:
    path = CHART / "files" / "dashboards" / f"{name}.json"
    assert path.read_text() == dashboards.render(name), "run make generate"


@pytest.mark.parametrize("name", panels.BOARDS)
def test_boards_ask_for_metrics_that_exist(name: str) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    asked = set(re.findall(r"\bkohort_operator_[a-z_]+", dashboards.render(name)))
    for metric in asked:
        assert f"`{re.sub('_(count|bucket)$', '', metric)}`" in text


@pytest.mark.parametrize("name", panels.BOARDS)
def test_panels_of_a_board_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in dashboards.board(name)["panels"]]
    cells = [
        (x, y)
        for p in places
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < dashboards.COLUMNS


@pytest.mark.parametrize("grpc", ["-", *map(str, range(17))])
def test_boards_count_as_failed_what_evidence_counts(grpc: str) -> None:
    for code in range(600):
        well = re.fullmatch(panels.WELL, f"{code}/{grpc}/-/45/12/burger-1")
        # Envoy has no codes below 100 but 0, which is no answer.
        if code == 0 or code >= 100:
            bad = contract.failed(code) or (grpc != "-" and contract.failed_grpc(int(grpc)))
            assert bool(well) != bad, code


def test_no_permission_is_a_wildcard_and_secrets_are_named() -> None:
    for rules in permissions.CONCERNS.values():
        for rule in rules:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    named = [r for r in permissions.CERTIFICATE_RULES if r["resources"] == ["secrets"]]
    assert all("resourceNames" in r or r["verbs"] == ["create"] for r in named)
    everywhere = ("models", "names", "gateway-api")
    assert not [
        r for c in everywhere for r in permissions.CONCERNS[c] if "secrets" in r["resources"]
    ]


def test_credentials_for_prometheus_are_read_by_names_that_the_chart_fills_in() -> None:
    (rule,) = permissions.CONCERNS["prometheus"]
    assert rule["verbs"] == ["get"]
    # Whoever applies the rules as they are gives no more than a Secret that nobody has.
    assert rule["resourceNames"] == ["named-by-the-chart"]
    assert VALUES["prometheus"] == {"urls": [], "secretNames": []}


def test_the_charts_version_is_the_packages() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = msgspec.yaml.decode((CHART / "Chart.yaml").read_bytes())
    assert chart["version"] == chart["appVersion"] == package


def test_every_object_of_the_schema_refuses_names_that_it_does_not_know() -> None:
    found = dict(nodes(SCHEMA))
    assert len(found) > 20
    assert [path for path, node in found.items() if node.get("additionalProperties")] == []
    assert [path for path, node in found.items() if "additionalProperties" not in node] == []


def test_every_value_is_in_the_schema_and_every_name_of_the_schema_has_a_default() -> None:
    def known(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        schema = {**schema, **definition(schema.get("$ref", ""))}
        if "properties" not in schema or path.endswith(".resources"):
            yield path
            return
        for name, child in schema["properties"].items():
            yield from known(child, f"{path}.{name}" if path else name)

    def definition(reference: str) -> dict[str, Any]:
        found: dict[str, Any] = SCHEMA["definitions"].get(reference.rpartition("/")[2], {})
        return found

    # Helm gives every chart "global".
    assert {*known(SCHEMA)} - {"global"} == {path for path, _ in leaves(VALUES)}


def test_every_value_is_explained_with_its_default() -> None:
    text = (ROOT / "docs" / "install.md").read_text()
    table = dict(re.findall(r"^\| `([\w.]+)` \| (?:`(.*?)`)? ?\|", text, re.M))
    assert table.keys() == {path for path, _ in leaves(VALUES)}
    for path, value in leaves(VALUES):
        told = msgspec.yaml.decode(table[path].encode()) if table[path] else ""
        assert told == value, path


def test_ports_and_secrets_are_the_contracts() -> None:
    ports = {int(p) for p in re.findall(r"containerPort: (\d+)", TEMPLATES)}
    assert ports == {
        contract.PORT_GATEWAY,
        contract.PORT_GATEWAY_STATUS,
        contract.PORT_OPERATOR_ROUTES,
        contract.PORT_OPERATOR_STATUS,
        contract.PORT_OPERATOR_VIEW,
    }
    assert f"--view-port={contract.PORT_OPERATOR_VIEW}\n" in TEMPLATES
    assert re.findall(r"secretName: (\S+)}", TEMPLATES) == [permissions.GATEWAY_SECRET]
    assert f"port: {contract.PORT_OPERATOR_ROUTES}\n" in TEMPLATES


def test_alerts_ask_for_metrics_that_exist() -> None:
    rules = (CHART / "templates" / "monitoring" / "rules.yaml").read_text()
    asked = {
        re.sub("_(count|bucket)$", "", name)
        for line in rules.splitlines()
        if "expr:" in line
        for name in re.findall(r"\bkohort_\w+", line)
    }
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    assert len(asked) >= 8
    assert asked - set(listed) == set()
