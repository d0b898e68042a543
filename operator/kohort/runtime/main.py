"""``kohort-operator run``: the operator as a process."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from kohort.kube import Server, from_kubeconfig, in_cluster
from kohort.runtime.memory import set_modules_apart, share_one_heap
from kohort.runtime.settings import Settings, parse


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    share_one_heap()
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
    asyncio.run(_run(settings, _server(settings)))


def _server(settings: Settings) -> Server:
    """The API server to use."""
    try:
        if settings.kubeconfig:
            return from_kubeconfig(settings.kubeconfig)
        return in_cluster(settings.service_account_dir)
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"kohort-operator: no way to reach the API server: {error!r}; set --kubeconfig")


async def _run(settings: Settings, server: Server) -> None:
    # Only now: kopf must not be imported before main has had its say.
    from kohort.runtime.operator import Operator

    set_modules_apart()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Operator(settings, server).run(stop)


if __name__ == "__main__":
    main()
