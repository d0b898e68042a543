"""``kubectl kohort``: what a rollout is doing and why, and what people tell it to do."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from kohort.api.command import CommandError
from kohort.cli import completion, engines, evidence, history, lint, preview, show, verbs, viewing
from kohort.cli.cluster import ClusterError
from kohort.cli.documents import DocumentError
from kohort.cli.options import cluster_options
from kohort.cli.sending import SendingError
from kohort.cli.terminal import degrade
from kohort.view.rollout import ViewError

INTERRUPTED = 130  # as a shell counts SIGINT
REFUSALS = (ClusterError, ViewError, CommandError, SendingError, DocumentError)
FAMILIES = (show, viewing, evidence, engines, verbs, history, preview, lint, completion)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0, 1 for an error, 130 after Ctrl-C."""
    degrade(sys.stdout)
    degrade(sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == [completion.ASK]:
        return complete(words[1:])
    options = parser().parse_args(words)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except REFUSALS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def console_script() -> NoReturn:
    """The program's whole life: ``main``, and an end that waits for nobody.

    A watch blocks its thread until the cluster says something; the interpreter's own end would
    meet it there and abort.
    """
    code = main()
    with contextlib.suppress(OSError):  # a reader that is gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def complete(words: Sequence[str] | None = None) -> int:
    """Prints what may come next; alone it is the program ``kubectl_complete-kohort``."""
    print("\n".join(completion.answer(parser(), sys.argv[1:] if words is None else words)))
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options; those of the cluster are taken before and after the command."""
    root = argparse.ArgumentParser(
        prog="kubectl kohort",
        description="Shows how model versions roll out, cohort by cohort, and why; tells them what to do.",
        parents=[cluster_options(default=None)],
    )
    shared = [cluster_options(default=argparse.SUPPRESS)]
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for family in FAMILIES:
        family.add_commands(commands, shared)
    return root


if __name__ == "__main__":
    console_script()
