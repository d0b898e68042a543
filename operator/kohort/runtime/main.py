"""``kohort-operator run``: the operator as a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kohort.kube import Server, from_kubeconfig, in_cluster
from kohort.runtime.settings import Settings, parse

log = logging.getLogger("kohort")


def main() -> None:
    """Runs until SIGTERM or SIGINT; exits with 1 when leadership is lost, for a fresh start."""
    settings = parse()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # kopf tells of every event it hands over.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(
        logging.ERROR
    )  # it has no signals: meant
    # Only for type hints, and only if it is installed, kopf imports the whole Kubernetes client: 20 MB.
    sys.modules.setdefault("kubernetes", None)  # type: ignore[arg-type]
    with _server(settings) as server:
        sys.exit(asyncio.run(_run(settings, server)))


@contextlib.contextmanager
def _server(settings: Settings) -> Iterator[Server]:
    """The API server to use; keys out of a kubeconfig are on disk for as long as this lasts."""
    with contextlib.ExitStack() as stack:
        try:
            if settings.kubeconfig:
                # In a pod there may be no place to write: nothing is written there.
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="kohort-"))
                server = from_kubeconfig(settings.kubeconfig, Path(scratch))
            else:
                server = in_cluster(settings.service_account_dir)
        except (OSError, KeyError, ValueError) as error:
            sys.exit(
                f"kohort-operator: no way to reach the API server: {error!r}; set --kubeconfig"
            )
        yield server


async def _run(settings: Settings, server: Server) -> int:
    # Only now: kopf must not be imported before main has had its say.
    from kohort.runtime.operator import LeaseLost, Operator

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await Operator(settings, server).run(stop)
    except LeaseLost as lost:
        log.error("%s; ending", lost)
        return 1
    return 0


if __name__ == "__main__":
    main()
