"""What the command line takes, and how it refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import yaml

from kohort.cli.cluster import not_found
from kohort.cli.main import main


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig whose cluster does not listen: its port is taken by one that never does."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{taken.getsockname()[1]}"
        context = {"cluster": "c", "user": "u", "namespace": "shop"}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "here", "context": context}],
            "current-context": "here",
        }
        path = tmp_path / "kubeconfig"
        path.write_bytes(yaml.encode(kubeconfig))
        yield path


@pytest.mark.parametrize("arguments", [["get"], ["get", "burger", "-w"], ["why", "burger"]])
def test_a_cluster_that_does_not_answer_is_one_line_on_stderr(
    arguments: list[str], nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--kubeconfig", str(nowhere)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: cannot reach the cluster at https://127.0.0.1:")
    assert "connection refused" in err
    assert err.count("\n") == 1


def test_an_unknown_context_names_those_that_there_are(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--kubeconfig", str(nowhere), "--context", "hear", "get"]) == 1
    assert capsys.readouterr().err == 'error: no context "hear" in the kubeconfig; there is: here\n'


def test_a_kubeconfig_that_is_not_there_says_how_to_give_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", "--kubeconfig", str(tmp_path / "none")]) == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "none") in err
    assert "set KUBECONFIG or --kubeconfig" in err


@pytest.mark.parametrize(
    "arguments",
    [[], ["git"], ["why"], ["get", "a", "b"], ["get", "a", "-A"], ["get", "-w", "-o", "json"]],
)
def test_a_wrong_command_line_exits_with_2_and_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: kubectl kohort")


@pytest.mark.parametrize("arguments", [["-h"], ["get", "-h"], ["why", "-h"]])
def test_each_command_explains_itself(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "--namespace" in capsys.readouterr().out


def test_what_is_not_found_names_what_is_similar_or_the_few_that_there_are() -> None:
    many = [f"model-{i}" for i in range(20)]
    assert not_found("cohort", "stuff", ["staff", "all"], "m").endswith("; there is: staff")
    assert not_found("cohort", "zzz", ["staff", "all"], "m").endswith("; there is: all, staff")
    assert not_found("cohort", "zzz", many, "m") == 'no cohort "zzz" in m'
    assert not_found("cohort", "zzz", [], "m").endswith("; there is none at all")
