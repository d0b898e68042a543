"""Shell completion: what may come next on a command line, also names that only the cluster knows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kohort.cli.cluster import Cluster, ClusterError, contexts
from kohort.cli.options import add_command
from kohort.view.rollout import Resource, ViewError, read_status

PROGRAM = "kubectl-kohort"
ASK = "__complete"
"""The hidden command: prints what may come next, a line each, then a directive as cobra's programs do,
which is what kubectl reads of ``kubectl_complete-kohort``."""
FILES, NO_FILES = ":0", ":4"

SCRIPTS: Mapping[str, str] = {
    "bash": f"""\
_kubectl_kohort() {{
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            {FILES}) ;;
            :*) compopt +o default ;;
            *) COMPREPLY+=("${{line%%$'\\t'*}}") ;;
        esac
    done < <({PROGRAM} {ASK} "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null)
}}
complete -o default -F _kubectl_kohort {PROGRAM}
""",
    "zsh": f"""\
#compdef {PROGRAM}
_kubectl_kohort() {{
    local line
    local -a found
    for line in "${{(@f)$({PROGRAM} {ASK} "${{(@)words[2,CURRENT]}}" 2>/dev/null)}}"; do
        case $line in
            {FILES}) _files; return ;;
            :*) ;;
            *) found+=("${{${{line//:/\\\\:}}/$'\\t'/:}}") ;;
        esac
    done
    _describe 'kubectl kohort' found
}}
compdef _kubectl_kohort {PROGRAM}
""",
    "fish": f"""\
function __kubectl_kohort
    set -l words (commandline -opc) (commandline -ct)
    set -l found ({PROGRAM} {ASK} $words[2..-1] 2>/dev/null)
    if test "$found[-1]" = {FILES}
        __fish_complete_path (commandline -ct)
    else
        string match -v ':*' -- $found
    end
end
complete -c {PROGRAM} -f -a '(__kubectl_kohort)'
""",
}

Candidates = list[tuple[str, str]]
"""What may come next, each with a word about it."""


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``completion``."""
    parser = add_command(
        commands,
        [],
        "completion",
        _completion,
        help="print a script that completes commands in a shell",
        description=f"Prints a script for {PROGRAM}. For `kubectl kohort` kubectl's own completion does it:\n"
        "it asks the program kubectl_complete-kohort, which is installed beside this one.",
        examples=(
            "source <(kubectl kohort completion bash)",
            "kubectl kohort completion fish > ~/.config/fish/completions/kubectl-kohort.fish",
        ),
    )
    parser.add_argument("shell", choices=sorted(SCRIPTS), metavar="SHELL", help="bash, zsh or fish")


def _completion(options: argparse.Namespace) -> int:
    print(SCRIPTS[options.shell], end="")
    return 0


@dataclass
class Place:
    """Where on a command line the next word stands.

    ``given``: values of options and positionals so far, by name. ``awaits``: the option or positional
    that the next word belongs to; None where nothing may come. ``option``: whether it is an option's.
    """

    parser: argparse.ArgumentParser
    given: dict[str, str] = field(default_factory=dict)
    awaits: argparse.Action | None = None
    option: bool = False


def answer(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The lines for a shell. ``words``: all after the program's name, the last one unfinished."""
    *before, unfinished = words or [""]
    place = find(parser, before)
    if unfinished.startswith("-") and not place.option:
        found: Candidates = [
            (flag, action.help or "")
            for action in place.parser._actions
            for flag in action.option_strings
        ]
    elif place.awaits is None:
        found = []
    elif place.awaits.metavar == "FILE":
        return [FILES]
    else:
        found = _values(place)
    fitting = [(word, about) for word, about in found if word.startswith(unfinished)]
    return [*(f"{word}\t{about}" if about else word for word, about in fitting), NO_FILES]


def find(parser: argparse.ArgumentParser, words: Iterable[str]) -> Place:
    """Follows the words that stand there already; argparse has no public way to ask."""
    place = Place(parser)
    positionals = _positionals(parser)
    for word in words:
        if place.option and place.awaits is not None:
            place.given[place.awaits.dest] = word
            place.option, place.awaits = False, None
        elif word.startswith("-") and word != "-":
            flag, equals, value = word.partition("=")
            action = place.parser._option_string_actions.get(flag)
            if action is None or action.nargs == 0:
                continue
            if equals:
                place.given[action.dest] = value
            else:
                place.option, place.awaits = True, action
        elif positionals:
            action = positionals[0]
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(word)
                if chosen is None:
                    return Place(parser)
                place.parser = chosen
                positionals = _positionals(chosen)
            else:
                place.given[action.dest] = word
                positionals = positionals if action.nargs == "+" else positionals[1:]
    if not place.option:
        place.awaits = positionals[0] if positionals else None
    return place


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _values(place: Place) -> Candidates:
    """What an option or positional may be, by its choices or by what the cluster has."""
    action = place.awaits
    if isinstance(action, argparse._SubParsersAction):
        return [(each.dest, each.help or "") for each in action._choices_actions]
    if action is None:
        return []
    if action.choices:
        return [(str(choice), "") for choice in action.choices]
    look = _NAMES.get(action.metavar if isinstance(action.metavar, str) else action.dest)
    try:
        return look(place) if look else []
    except (ClusterError, ViewError):
        return []  # a shell has no place for an explanation


def _cluster(place: Place) -> Cluster:
    given = place.given
    return Cluster(given.get("kubeconfig"), given.get("context"), given.get("namespace"))


def _models(place: Place) -> Candidates:
    return [
        (model["metadata"]["name"], str(model.get("status", {}).get("phase", "")))
        for model in _cluster(place).list_models()
    ]


def _model(place: Place) -> Resource:
    return _cluster(place).get(place.given.get("name", ""))


def _cohorts(place: Place) -> Candidates:
    return [(cohort["name"], "") for cohort in _model(place)["spec"].get("cohorts", ())]


def _revisions(place: Place) -> Candidates:
    revisions = sorted(read_status(_model(place)).revisions, key=lambda r: -r.number)
    return [(f"v{revision.number}", revision.uri) for revision in revisions]


def _namespaces(place: Place) -> Candidates:
    return [(name, "") for name in _cluster(place).namespaces()]


_NAMES: Mapping[str, Callable[[Place], Candidates]] = {
    "NAME": _models,
    "COHORT": _cohorts,
    "REVISION": _revisions,
    "namespace": _namespaces,
    "context": lambda place: [(name, "") for name in contexts(place.given.get("kubeconfig"))],
}
