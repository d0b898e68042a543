"""``kubectl kohort lint``: the API server's verdict without one, and advice, with places in files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.cli import schema
from kohort.cli.cel import CelError, holds, parsed
from kohort.cli.documents import parse
from kohort.cli.lint import lint
from kohort.cli.main import main
from tests.component.test_crd_rules import ACCEPTED, EVERYONE, REFUSED, cohort, manifest

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = [{"weight": 5, "hold": "2m"}]
CAREFUL: dict[str, Any] = {"replicas": 2, "cohorts": [{**EVERYONE, "steps": STEPS}]}


def remarks(text: str) -> list[str]:
    """What lint says of a text."""
    return [f"{r.place}: {r.kind}: {r.message}" for d in parse(text, "m.yaml") for r in lint(d)]


def errors(text: str) -> list[str]:
    return [remark for remark in remarks(text) if ": error: " in remark]


@pytest.mark.parametrize(("spec", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_api_server_refuses_is_refused_in_its_words(
    spec: dict[str, Any], advice: str
) -> None:
    assert any(advice in error for error in errors(manifest(**spec)))


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_the_api_server_accepts_is_no_error(spec: dict[str, Any]) -> None:
    assert errors(manifest(**spec)) == []


@pytest.mark.parametrize("name", ["a" * 41, "1burger", "burger.v2"])
def test_a_name_that_is_refused_is_told(name: str) -> None:
    (error,) = errors(manifest(name))
    assert "metadata.name must have at most 40 characters" in error


def rules(node: Any) -> Iterator[str]:
    """Every rule of a schema."""
    if isinstance(node, dict):
        yield from (rule["rule"] for rule in node.get("x-kubernetes-validations", ()))
        for inner in node.values():
            yield from rules(inner)


def test_every_rule_of_the_crd_can_be_read_without_a_cluster() -> None:
    every = list(rules(schema.schema()))
    assert len(every) > 15
    for rule in every:
        parsed(rule)


@pytest.mark.parametrize(
    ("rule", "value", "kept"),
    [
        ("self.a + 1 == 3 && self.b != 'x'", {"a": 2, "b": "y"}, True),
        ("self.a > 1 ? self.b.size() == 1 : false", {"a": 1, "b": "y"}, False),
        ("has(self.a) || has(self.b.c)", {"b": {"c": 1}}, True),
        ("self.exists(x, x > 2) && !self.all(x, x > 2)", [1, 3], True),
        ("self.filter(x, x % 2 == 1).map(x, x * 10) == [10, 30]", [1, 2, 3], True),
        ("self.all(i, v, i == 0 || self[i - 1] <= v)", [1, 2, 2], True),
        ("self.all(i, v, i == 0 || self[i - 1] <= v)", [2, 1], False),
        ("self.matches('^a+$') && 'b' in ['b', \"c\"]", "aaa", True),
        ("-self < 0 && double('1.5') == 1.5 && (2 + 3) * 2 == 10", 1, True),
        ("self == null || size(self) == 0", "", True),
        ("self.matches(r'^\\d+$')", "12", True),
    ],
)
def test_cel_means_here_what_it_means_in_the_cluster(rule: str, value: Any, kept: bool) -> None:
    assert holds(rule, value) is kept


@pytest.mark.parametrize(
    "rule", ["self.size(", "self.guess()", "guess(self)", "has(self)", "self =! 1", "1 2", "self.a"]
)
def test_a_rule_that_cannot_be_worked_out_is_no_verdict(rule: str) -> None:
    with pytest.raises(CelError):
        holds(rule, {})


def test_every_error_of_a_file_is_told_with_its_line() -> None:
    text = """
kind: Service
---
apiVersion: kohort.dev/v1alpha1
kind: ModelDeployment
metadata: {name: a}
spec:
  replcas: 2
  model: {uri: ftp://x}
  cohorts:
  - name: Everyone
    steps:
    - weight: 50
    - weight: 5
      hold: soon
  replicas: 1
  replicas: 2
"""
    places = [error.split(": error: ")[0] for error in errors(text)]
    told = [error.split(": error: ")[1].split(":")[0] for error in errors(text)]
    assert dict(zip(told, places, strict=True)) == {
        "spec.replicas": "m.yaml:17",
        "spec.replcas": "m.yaml:8",
        "spec.cohorts[0].name": "m.yaml:11",
        "spec.cohorts[0].steps[1].hold": "m.yaml:15",
        "spec.model": "m.yaml:9",
        "spec.model.uri": "m.yaml:9",
    }


def test_null_says_nothing_as_in_the_api_server() -> None:
    assert errors(manifest(gpu=None, replicas=None)) == []
    (error,) = errors(manifest(model=None))
    assert error.endswith("spec.model: Required value")


def test_objects_in_a_list_have_their_own_places() -> None:
    text = (
        "kind: List\nitems:\n- kind: Pod\n- apiVersion: kohort.dev/v1alpha1\n"
        "  kind: ModelDeployment\n  metadata: {name: a}\n  spec:\n    model: {}\n"
    )
    assert remarks(text) == ["m.yaml:8: error: spec.model.uri: Required value"]
    (error,) = remarks(text.replace("name: a", "name: A").replace("{}", "{uri: file:///m}"))
    assert error.startswith("m.yaml:4: error: metadata.name must have")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (manifest(**{**CAREFUL, "replicas": 1}), "have two"),
        (manifest(**{**CAREFUL, "paused": True}), "no cohort goes on"),
        (manifest(**{**CAREFUL, "progressDeadline": "5s"}), "told as Stalled"),
        (manifest(**{**CAREFUL, "template": {"containers": []}}), "does this belong there?"),
        (
            manifest(replicas=2, cohorts=[{**EVERYONE, "steps": [{"weight": 100}]}]),
            "all at once",
        ),
        (
            manifest(replicas=2, cohorts=[{**EVERYONE, "steps": [{"weight": 80, "hold": "2m"}]}]),
            "begin with fewer",
        ),
        (
            manifest(replicas=2, cohorts=[{**EVERYONE, "steps": [*STEPS, {"weight": 20}]}]),
            "it is left as soon as",
        ),
        (
            manifest(replicas=2, cohorts=[{**EVERYONE, "steps": [{"weight": 5, "hold": "9s"}]}]),
            "compared for 9 s in all",
        ),
        (
            manifest(
                replicas=2,
                cohorts=[
                    cohort("a", steps=STEPS),
                    cohort("b", steps=STEPS),
                    {**EVERYONE, "steps": STEPS},
                ],
            ),
            "b never gets a client: all that match belong to a",
        ),
    ],
)
def test_what_a_careful_team_would_do_otherwise_is_advised(text: str, advice: str) -> None:
    (told,) = remarks(text)
    assert ": advice: " in told
    assert advice in told


@pytest.mark.parametrize(
    "spec",
    [
        CAREFUL,
        {**CAREFUL, "progressDeadline": "1m"},
        {"replicas": 2, "cohorts": [{**EVERYONE, "steps": [*STEPS, {"weight": 100}]}]},
        {"replicas": 2, "cohorts": [{**EVERYONE, "steps": [{"weight": 50, "hold": "60s"}]}]},
        {"replicas": 2, "cohorts": [{**EVERYONE, "steps": [{"weight": 5, "pause": {}}]}]},
    ],
)
def test_a_careful_spec_gets_no_advice(spec: dict[str, Any]) -> None:
    assert remarks(manifest(**spec)) == []


def test_a_single_pod_has_no_room_to_swap() -> None:
    swap = {"count": 1, "capacity": "Swap"}
    one, two = (remarks(manifest(**{**CAREFUL, "replicas": n, "gpu": swap})) for n in (1, 2))
    assert any("waits until another GPU is free" in told for told in one)
    assert two == []


def test_a_look_before_any_client_has_it_compares_nothing() -> None:
    steps = [{"weight": 0, "pause": {}}, {"weight": 100, "hold": "5m"}]
    (told,) = remarks(manifest(replicas=2, cohorts=[{**EVERYONE, "steps": steps}]))
    assert "all at once" in told


@pytest.mark.parametrize(
    ("node", "fits", "too_little", "too_much"),
    [
        ({"type": "string", "minLength": 1, "maxLength": 2}, ("a", "ab"), "", "abc"),
        ({"type": "integer", "minimum": 1, "maximum": 2}, (1, 2), 0, 3),
        (
            {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}},
            ([1], [1, 2]),
            [],
            [1, 2, 3],
        ),
    ],
)
def test_limits_are_part_of_what_fits(
    node: dict[str, Any], fits: tuple[Any, ...], too_little: Any, too_much: Any
) -> None:
    for value in fits:
        assert list(schema.problems(value, node)) == []
    for value in (too_little, too_much):
        assert len(list(schema.problems(value, node))) == 1


def test_a_cohort_that_is_only_in_part_inside_an_earlier_one_gets_clients() -> None:
    either = [{"headers": [{"name": "x-org", "values": ["acme", "other"]}]}]
    cohorts = [
        cohort("a", steps=STEPS),
        cohort("b", match=either, steps=STEPS),
        {**EVERYONE, "steps": STEPS},
    ]
    assert remarks(manifest(replicas=2, cohorts=cohorts)) == []


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["lint", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_examples_have_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *map(str, sorted(EXAMPLES.glob("*.yaml"))))
    assert (code, err) == (0, "")
    assert ": error: " not in out


def test_where_there_is_nothing_to_say_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(manifest(**CAREFUL)))
    assert run(capsys, "-", "--strict") == (0, "1 ModelDeployment: nothing to say\n", "")
    assert "nothing to say" not in run(capsys, str(EXAMPLES / "minimal.yaml"))[1]


def test_advice_fails_only_where_strictness_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    minimal = str(EXAMPLES / "minimal.yaml")
    assert run(capsys, minimal)[0] == 0
    assert run(capsys, minimal, "--strict")[0] == 1


def test_an_error_exits_with_1_also_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(manifest(replicas=0)))
    code, out, _ = run(capsys, "-")
    assert code == 1
    assert out.startswith("<stdin>:1: error: spec.replicas: should be greater than or equal to 1")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"kind: [", "m.yaml:1: expected the node content"),
        (b"kind: Pod", "there is no ModelDeployment of kohort.dev/v1alpha1 in these files"),
        (b"\xff", "m.yaml: not UTF-8"),
        (None, "m.yaml: No such file or directory"),
    ],
)
def test_a_file_that_says_nothing_is_one_clear_line(
    content: bytes | None, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.yaml"
    if content is not None:
        path.write_bytes(content)
    code, out, err = run(capsys, str(path))
    assert (code, out) == (1, "")
    assert error in err
    assert err.count("\n") == 1


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5)
FIELDS = sorted(schema.schema()["properties"]["spec"]["properties"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@given(
    spec=st.dictionaries(
        st.sampled_from(sorted(schema.schema()["properties"]["spec"]["properties"])), JSON
    )
)
def test_whatever_stands_in_a_spec_is_judged_and_never_a_crash(spec: dict[str, Any]) -> None:
    document = {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "a"},
        "spec": spec,
    }
    for error in remarks(msgspec.json.encode(document).decode()):
        assert "a rule cannot be worked out" not in error
