"""``kohort-operator run``: the operator as a process."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
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
    with tempfile.TemporaryDirectory(prefix="kohort-") as scratch:
        sys.exit(asyncio.run(_run(settings, _server(settings, Path(scratch)))))


def _server(settings: Settings, scratch: Path) -> Server:
    try:
        if settings.kubeconfig:
            return from_kubeconfig(settings.kubeconfig, scratch)
        return in_cluster(settings.service_account_dir)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"kohort-operator: no way to reach the API server: {error!r}; set --kubeconfig")


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
