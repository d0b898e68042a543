"""What the local node decides without touching anything."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort_local.node import podstatus, quantity
from kohort_local.node.addresses import Addresses
from kohort_local.node.backoff import BackOff
from kohort_local.node.logfile import LogWriter, Selection, termination_message
from kohort_local.node.probe import Counter
from kohort_local.node.rewrite import expand, relocate
from kohort_local.node.volumes import File, publish
from kohort_local.proxy import View

SEGMENT = st.text("abcdefghij-._0123456789", min_size=1, max_size=8).filter(
    lambda text: text not in (".", "..")
)
PATH = st.lists(SEGMENT, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/models/a.onnx", "/real/a.onnx"),
        ("--model=/models", "--model=/real"),
        ("file:///models/a.onnx", "file:///real/a.onnx"),
        ("cat /models/a /models/b", "cat /real/a /real/b"),
        ("'/models'", "'/real'"),
        ("/models/inner/x", "/within/x"),
        ("http://models/a.onnx", "http://models/a.onnx"),
        ("http://host/models/a", "http://host/models/a"),
        ("/srv/models/a", "/srv/models/a"),
        ("/models-old/a", "/models-old/a"),
        ("$HOME/models", "$HOME/models"),
        ("${HOME}/models", "${HOME}/models"),
    ],
)
def test_a_mount_path_is_replaced_where_a_path_begins_with_it(text: str, expected: str) -> None:
    mounts = {"/models": "/real", "/models/inner/": "/within"}
    assert relocate(text, mounts) == expected


@given(mount=PATH, rest=PATH, target=PATH)
def test_a_path_below_a_mount_is_found_below_its_directory(
    mount: str, rest: str, target: str
) -> None:
    assert relocate(mount + rest, {mount: target}) == target + rest


@given(text=st.text(), target=PATH)
def test_a_mount_on_the_root_replaces_nothing(text: str, target: str) -> None:
    assert relocate(text, {"/": target}) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)", "1"), ("x$(A)$(B)", "x12"), ("$(C)", "$(C)"), ("$$(A)", "$(A)"), ("$A $$", "$A $")],
)
def test_references_to_variables_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(ran=st.lists(st.floats(0, 59), max_size=50), cap=st.floats(1, 300))
def test_the_back_off_never_shrinks_and_never_passes_its_cap(ran: list[float], cap: float) -> None:
    back_off = BackOff(cap)
    for seconds in ran:
        following = back_off.after_exit(seconds)
        assert back_off.seconds <= following.seconds <= cap
        back_off = following
    assert back_off.after_exit(60).seconds == 1


@given(value=st.integers(0, 10**9), suffix=st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"]))
def test_a_quantity_in_units_of_itself_is_one(value: int, suffix: str) -> None:
    written = f"{value}{suffix}"
    assert quantity.in_units_of(written, written) == (1 if value else 0)
    assert quantity.parse(written) == value * quantity.parse(f"1{suffix}")


def test_quantities_are_rounded_up_to_whole_units() -> None:
    assert quantity.in_units_of("1500m", "1") == 2
    assert quantity.in_units_of("1500m", "1m") == 1500
    assert quantity.in_units_of("1Gi", "1Mi") == 1024
    assert quantity.parse("0.5") == Fraction(1, 2)
    with pytest.raises(ValueError, match="500m"):
        quantity.parse("much")


@given(
    answers=st.lists(st.booleans(), max_size=30),
    good=st.integers(1, 4),
    bad=st.integers(1, 4),
)
def test_a_probe_decides_only_after_enough_answers_in_a_row(
    answers: list[bool], good: int, bad: int
) -> None:
    counter = Counter(good, bad)
    for index, well in enumerate(answers):
        needed = good if well else bad
        latest = answers[max(0, index + 1 - needed) : index + 1]
        enough = len(latest) == needed and all(answer == well for answer in latest)
        assert counter.count(well) == (well if enough else None)


def container(state: str, code: int = 0) -> dict[str, Any]:
    """A status of a container in this state."""
    return {"state": {state: {"exitCode": code} if state == "terminated" else {}}, "lastState": {}}


@pytest.mark.parametrize(
    ("policy", "states", "expected"),
    [
        ("Always", [container("waiting")], "Pending"),
        ("Always", [container("running"), container("waiting")], "Running"),
        ("Always", [container("terminated", 1)], "Running"),
        ("OnFailure", [container("terminated", 1)], "Running"),
        ("OnFailure", [container("terminated"), container("running")], "Running"),
        ("OnFailure", [container("terminated")], "Succeeded"),
        ("Never", [container("terminated"), container("terminated", 1)], "Failed"),
    ],
)
def test_a_pods_phase_follows_from_its_containers(
    policy: str, states: list[dict[str, Any]], expected: str
) -> None:
    assert podstatus.phase(policy, True, states, deleted=False) == expected


def test_a_deleted_pod_of_which_nothing_runs_has_ended() -> None:
    states = [container("terminated")]
    assert podstatus.phase("Always", True, states, deleted=True) == "Succeeded"


@given(
    generations=st.lists(
        st.dictionaries(SEGMENT.filter(lambda s: not s.startswith("..")), st.binary(max_size=20)),
        min_size=1,
        max_size=5,
    )
)
def test_a_volume_holds_the_latest_files_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, generations: list[dict[str, bytes]]
) -> None:
    directory = tmp_path_factory.mktemp("volume")
    for files in generations:
        publish(directory, {name: File(content, 0o644) for name, content in files.items()})
        shown = [p for p in directory.iterdir() if not p.name.startswith("..")]
        assert {p.name: p.read_bytes() for p in shown} == files
        assert not publish(directory, {n: File(c, 0o644) for n, c in files.items()})


@given(chunks=st.lists(st.binary(max_size=30), max_size=10))
def test_a_log_gives_back_what_was_written_in_whatever_pieces(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("log") / "0.log"
    log = LogWriter(path)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    with path.open("rb") as file:
        assert b"".join(Selection().select(file)) == b"".join(chunks)


def test_the_last_words_are_the_message_file_else_the_end_of_a_failed_log(tmp_path: Path) -> None:
    message, output = tmp_path / "message", tmp_path / "0.log"
    log = LogWriter(output)
    log.write(b"x" * 3000 + b"\nlast\n")
    log.close()
    fallback = "FallbackToLogsOnError"
    assert termination_message(message, output, "File", 1) is None
    assert termination_message(message, output, fallback, 0) is None
    told = termination_message(message, output, fallback, 1)
    assert told is not None
    assert told.endswith("x\nlast\n")
    assert len(told) == 2048
    message.write_text("mine")
    assert termination_message(message, output, fallback, 1) == "mine"


@given(st.lists(st.booleans(), max_size=300))
def test_no_two_pods_ever_have_the_same_address(takes: list[bool]) -> None:
    addresses = Addresses("127.64.0")
    taken: list[str] = []
    for take in takes:
        if take and len(taken) < 254:
            address = addresses.take()
            assert address not in taken
            taken.append(address)
        elif taken:
            addresses.release(taken.pop(0))


def backend(name: str, ready: str = "True", **metadata: Any) -> dict[str, Any]:
    """A pod behind a Service."""
    labels = {"app": "web"}
    return {
        "metadata": {"uid": name, "namespace": "default", "labels": labels, **metadata},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIP": name, "conditions": [{"type": "Ready", "status": ready}]},
    }


def test_only_ready_pods_that_are_not_ending_are_behind_a_node_port() -> None:
    ports = [{"port": 80, "targetPort": "http", "nodePort": 30000}]
    service = {
        "metadata": {"namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": ports},
    }
    found = [
        backend("a"),
        backend("b", ready="False"),
        backend("c", deletionTimestamp="2026-01-01T00:00:00Z"),
        backend("d", namespace="other"),
        backend("e", labels={"app": "other"}),
    ]
    view = View({"s": service}, {pod["metadata"]["uid"]: pod for pod in found})
    assert view.backends(30000) == [("a", 8080)]
    assert view.backends(30001) == []
