"""What may come next on a command line, as far as no cluster has to be asked; in a real shell, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kohort.cli.completion import FILES, NO_FILES, SCRIPTS, answer
from kohort.cli.main import main, parser


def words(*line: str) -> list[str]:
    """What completes the last of the words."""
    *found, directive = answer(parser(), line)
    assert directive == NO_FILES
    return [each.split("\t")[0] for each in found]


def test_commands_come_first_each_with_a_word_about_it() -> None:
    assert set(words("")) >= {"get", "why", "pause", "promote", "undo", "history", "plan", "lint"}
    assert words("re") == ["resume", "retry", "restart"]
    assert answer(parser(), ["resum"])[0] == "resume\tlet held cohorts go on"


def test_flags_are_those_of_the_command() -> None:
    assert words("promote", "burger", "--f") == ["--full"]
    assert words("get", "--f") == []
    assert "--kubeconfig" in words("undo", "--k")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (["promote", "burger", "--to", ""], ["next", "all"]),
        (["promote", "burger", "staff", "--to", "a"], ["all"]),
        (["get", "-o", ""], ["json", "yaml"]),
        (["get", "burger", "-o", "y"], ["yaml"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["-n", "shop", "hist"], ["history"]),
        (["-n=shop", "hist"], ["history"]),
    ],
)
def test_values_are_those_that_the_command_takes(line: list[str], values: list[str]) -> None:
    assert words(*line) == values


@pytest.mark.parametrize(
    "line",
    [
        ["lint", ""],
        ["lint", "a.yaml", "b"],
        ["plan", "-f", ""],
        ["lint", "--strict", ""],
        ["lint", "--unheard-of", ""],
    ],
)
def test_files_are_left_to_the_shell(line: list[str]) -> None:
    assert answer(parser(), line) == [FILES]


@pytest.mark.parametrize(
    "line", [["nonsense", ""], ["restart", "burger", ""], ["why", "a", "b", ""]]
)
def test_where_nothing_may_come_nothing_is_offered(line: list[str]) -> None:
    assert words(*line) == []


def test_without_a_cluster_names_are_not_known_and_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none")
    assert main(["__complete", "--kubeconfig", missing, "get", ""]) == 0
    assert main(["__complete", "--kubeconfig", missing, "get", "--context", ""]) == 0
    assert capsys.readouterr() == (f"{NO_FILES}\n{NO_FILES}\n", "")


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_each_shell_has_a_script_for_the_program(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "kubectl-kohort __complete" in out
    assert out.count("{") == out.count("}")


ASK_BASH = r"""
source <(kubectl-kohort completion bash)
complete -p kubectl-kohort
for line in "$@"; do
    IFS=' ' read -ra COMP_WORDS <<< "$line"
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _kubectl_kohort 2>/dev/null
    echo "$line=${COMPREPLY[*]}"
done
"""


def test_bash_completes_with_it() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = ["kubectl-kohort re", "kubectl-kohort promote burger --to ", "kubectl-kohort lint "]
    done = subprocess.run(
        ["bash", "-c", ASK_BASH, "bash", *lines],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [
        "complete -o default -F _kubectl_kohort kubectl-kohort",
        "kubectl-kohort re=resume retry restart",
        "kubectl-kohort promote burger --to =next all",
        "kubectl-kohort lint =",
    ]
