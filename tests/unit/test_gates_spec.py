"""What a spec of gates may say, and how it is refused where it makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort_server.gates.errors import GateError
from kohort_server.gates.spec import MAX_SPEC_BYTES, Slices, parse
from kohort_server.gates.words import described

START = "model: {uri: m.onnx}\nstable: {uri: s.onnx}\ngates:\n"
DATA = "dataset: {uri: g.npz}"
CONTRACT = "contract: {metric: Accuracy, atLeast: 95%}"


def test_a_spec_says_what_is_asked_and_has_defaults() -> None:
    spec = parse(f"{START}- {{name: good, {DATA}, {CONTRACT}}}".encode())
    (gate,) = spec.gates
    assert gate.contract is not None
    assert (gate.contract.at_least, gate.contract.confidence) == (0.95, 0.95)
    assert (gate.slices, gate.distinct_classes, spec.engine.type) == (Slices.NONE, 2, "ONNXRuntime")
    assert described(gate) == "Accuracy at least 95%, 95% sure"


MORPH = "metamorphic: {transform: %s, atLeast: 90%%, %s}"
REFUSED = {
    "contract: {metric: Accuracy, atLeast: 0.95}": "percentage like 99.5%",
    "contract: {metric: Accuracy, atLeast: 105%}": "from 0% to 100%",
    "contract: {metric: Accuracy, atLeast: 100%}": "below 100%",
    "contract: {metric: accuracy, atLeast: 95%}": "accuracy",
    "contract: {metric: RMSE, atLeast: 95%}": "give atMost",
    "contract: {metric: Accuracy, atMost: 3}": "give atLeast",
    "contract: {metric: Accuracy, atLeast: 95%, confidence: 40%}": "above 50%",
    "contract: {metric: Accuracy, atleast: 95%}": "atleast",
    f"{CONTRACT}, data: {{}}": "contract and data",
    "slices: Each": "no kind",
    "data: {}, slices: Each": "slices are for",
    "compare: {margin: -1%}": "above 0",
    MORPH % ("Rotate", "amount: 999, relation: SameTop1"): "from -360 to 360",
    MORPH % ("Invert", "amount: 2, relation: SameTop1"): "takes no amount",
    MORPH % ("Scale", "relation: SameTop1"): "needs an amount",
    MORPH % ("Invert", "columns: [1], relation: SameTop1"): "columns are for tables",
    MORPH % ("Invert", "relation: CloseScores"): "needs tolerance",
    MORPH % ("Invert", "relation: Monotone"): "needs direction",
    MORPH % ("Invert", "relation: Abstains"): "needs below or abstainClass",
    MORPH % ("Invert", "relation: SameTop1, below: 50%"): "takes no below",
    MORPH % ("Invert", "relation: SameTop1, score: 1"): "takes no score",
    MORPH % ("Turn", "relation: SameTop1"): "Turn",
    "data: {drift: [{reference: {uri: r.npz}, test: PSI}]}": "atMost for PSI",
    "data: {drift: [{reference: {uri: r.npz}, test: KS, atMost: 1}]}": "atMost for PSI",
    "mutation: {atLeast: 80%}": "takes no dataset",
    "data: {ranges: [{input: x, min: .nan}]}": "no .nan",
    "data: {drift: [{reference: {uri: r}, test: PSI, atMost: .inf}]}": "a number",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_gate_that_makes_no_sense_is_refused_with_the_place_and_what_to_do(kind: str) -> None:
    with pytest.raises(GateError) as raised:
        parse(f"{START}- {{name: good, {DATA}, {kind}}}".encode())
    assert REFUSED[kind] in str(raised.value)
    assert "gates[" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Expected `object`"),
        ("model: [", "not YAML"),
        ("a: &a [1]\nb: *a", "aliases"),
        (f"{START} []", "length >= 1"),
        (f"{START}- {{name: a, {CONTRACT}}}", "needs a dataset"),
        (f"{START}- {{name: A, {DATA}, {CONTRACT}}}", "regex"),
        (
            f"{START}- &x {{name: a, {DATA}, {CONTRACT}}}\n- {{name: a, {DATA}, data: {{}}}}",
            "two gates",
        ),
        (f"{START}- {{name: a, mutation: {{atLeast: 80%}}}}", "beside others"),
        (f"model: {{uri: m}}\ngates: [{{name: a, {DATA}, compare: {{}}}}]", "needs stable"),
        ("[" * 3000, "YAML"),
        (" " * (MAX_SPEC_BYTES + 1), "more than"),
        ("model: {uri: m, digest: abc}\ngates: []", "digest"),
        ("a: \x00", "not YAML"),
    ],
)
def test_a_spec_that_is_none_is_refused(text: str, told: str) -> None:
    with pytest.raises(GateError, match=told):
        parse(text.encode())


KEYS = st.sampled_from(["model", "gates", "name", "dataset", "uri", "contract", "Accuracy", "95%"])
WORDS = KEYS | st.sampled_from("[]{}:,-\n\"'#&*!|1")


@given(st.lists(WORDS, max_size=30), st.integers(0, 200), st.integers(0, 200))
def test_whatever_is_written_is_a_spec_or_is_refused(
    words: list[str], start: int, end: int
) -> None:
    good = f"{START}- {{name: good, {DATA}, slices: Each, {CONTRACT}}}"
    text = good[:start] + " ".join(words) + good[end:]
    try:
        told = "" if parse(text.encode()) else "nothing"
    except GateError as error:
        told = str(error).removeprefix("the spec")
    assert not told or told.startswith((":", " "))


def test_every_kind_of_gate_is_told_in_words() -> None:
    told = [
        ("compare: {margin: 2%}", "Accuracy is worse than stable's by less than 0.02, 95% sure"),
        ("compare: {metric: AUC}, slices: Each", "AUC shows no sign of being worse"),
        ("data: {}", "the golden data is as it should be"),
        (
            MORPH % ("Rotate", "amount: 10, relation: SameTop1"),
            "after Rotate 10 the class stays the same in at least 90% of the samples, 95% sure",
        ),
    ]
    for kind, words in told:
        spec = parse(f"{START}- {{name: good, {DATA}, {kind}}}".encode())
        assert described(spec.gates[0]).startswith(words)
