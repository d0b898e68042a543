"""What a node is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """A node's name, places and addresses."""

    name: str
    root: Path  # the pods' directories are in here, and the file `gpus`
    server: str  # URL of the API server
    pki: Path
    images: Path  # JSON: image → {"entrypoint": [...], "env": {...}}
    address: str
    port: int  # of the node's own API
    pod_prefix: str  # the first three octets of the pods' addresses
    back_off_cap: float  # seconds

    @property
    def pods(self) -> Path:
        """One directory per pod, named by its uid."""
        return self.root / "pods"

    @property
    def gpus(self) -> Path:
        """A file with the number of GPUs that the node offers; may change at any time."""
        return self.root / "gpus"
