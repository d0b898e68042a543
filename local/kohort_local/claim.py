"""Blocks of ports and addresses, claimed so that clusters on one machine stay apart."""

from __future__ import annotations

import contextlib
import fcntl
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kohort_local.places import claims_dir
from kohort_local.process import Process, alive, current, replace_file

_BLOCKS = 64
_FIRST_PORT = 12000  # 64 blocks of 300 end at 31,199: below the ephemeral ports
_PORTS = 300
_PART_PORTS = 50


@dataclass(frozen=True)
class Network:
    """The ports and addresses of block `block`; all on loopback."""

    block: int

    @property
    def first_port(self) -> int:
        return _FIRST_PORT + self.block * _PORTS

    @property
    def api_server(self) -> int:
        return self.first_port

    @property
    def etcd_clients(self) -> int:
        return self.first_port + 1

    @property
    def etcd_peers(self) -> int:
        return self.first_port + 2

    @property
    def controller_manager(self) -> int:
        return self.first_port + 3

    @property
    def scheduler(self) -> int:
        return self.first_port + 4

    def kubelet(self, node: int) -> int:
        """The port of a node's own API."""
        return self.first_port + 10 + node

    @property
    def node_ports(self) -> range:
        """Ports for Services of type NodePort."""
        return range(self.first_port + _PART_PORTS, self.first_port + _PORTS)

    def pod_prefix(self, node: int) -> str:
        """The first three octets of a node's pod addresses."""
        return f"127.{64 + self.block}.{node}"


class Claim(msgspec.Struct):
    """Who has a block: a state directory, and the process that took it for that."""

    state_dir: str
    holder: Process
    bound: bool  # the cluster is to end with its holder


def _free(network: Network) -> bool:
    ports = range(network.first_port, network.first_port + 12)
    for port in ports:
        with socket.socket() as probe:
            # As the servers themselves do: a connection in TIME_WAIT is not in the way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel however its holder ends
        yield


def _read(path: Path) -> Claim | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Claim)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def take(
    state_dir: Path,
    *,
    bound: bool,
    clean: Callable[[Path], None],
    directory: Path | None = None,
) -> Network:
    """Claim a free block for a state directory, held by this process.

    A block whose holder is gone is free once nothing listens on its ports. `clean` is called with
    the state directory of a cluster that was bound to a holder which is gone: it ends what is left.

    Raises:
        RuntimeError: every block is taken.
    """
    directory = directory or claims_dir()
    with _locked(directory):
        for block in range(_BLOCKS):
            path = directory / f"{block}.json"
            claim = _read(path)
            if claim and claim.state_dir != str(state_dir):
                if alive(claim.holder):
                    continue
                if claim.bound:
                    clean(Path(claim.state_dir))
            if _free(Network(block)):
                taken = Claim(state_dir=str(state_dir), holder=current(), bound=bound)
                replace_file(path, msgspec.json.encode(taken))
                return Network(block)
    raise RuntimeError(
        f"all {_BLOCKS} blocks of ports from {_FIRST_PORT} are in use; "
        f"stop a cluster with `kohort-local down --name NAME` (claims are in {directory})"
    )


def hand_over(
    network: Network, holder: Process, *, bound: bool, directory: Path | None = None
) -> None:
    """Let another process hold the block: the one that lives as long as the cluster."""
    directory = directory or claims_dir()
    path = directory / f"{network.block}.json"
    with _locked(directory):
        if claim := _read(path):
            handed = Claim(state_dir=claim.state_dir, holder=holder, bound=bound)
            replace_file(path, msgspec.json.encode(handed))


def release(network: Network, state_dir: Path, directory: Path | None = None) -> None:
    """Give the block back, if the state directory still has it."""
    directory = directory or claims_dir()
    path = directory / f"{network.block}.json"
    with _locked(directory):
        claim = _read(path)
        if claim and claim.state_dir == str(state_dir):
            path.unlink()
