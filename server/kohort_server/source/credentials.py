"""The tenant's credentials: a directory in which a Secret is mounted, a file per key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kohort_server.source.interface import denied

MAX_VALUE = 1 << 20  # bytes; what a Secret may hold at most


@dataclass(frozen=True, slots=True)
class Credentials:
    """Read when they are used, so that ones that are rotated are the new ones; never printed.

    Without a directory there are those of the process's environment, under names in capitals: what a cloud's
    identity webhooks put there, or what a pod's template says.
    """

    directory: Path | None = None

    def get(self, key: str) -> str:
        """A value without the line end that editors leave; empty where there is none."""
        if self.directory is None:
            return os.environ.get(key, "").strip() if key.isupper() else ""
        # Names with two dots are the kubelet's own.
        if not any(not found.name.startswith("..") for found in self.directory.glob("*")):
            raise denied("the Secret of secretRef is not there, or holds nothing; create it")
        path = self.directory / key
        try:
            with path.open("rb") as file:
                return file.read(MAX_VALUE).decode().strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise denied(
                f"the credential {key} cannot be read: {type(error).__name__}; check the Secret of secretRef"
            ) from None

    def authorities(self) -> str:
        """Certificates of authorities to trust beside the machine's: the key ca.crt, or SSL_CERT_FILE's."""
        if self.directory is not None:
            return self.get("ca.crt")
        path = os.environ.get("SSL_CERT_FILE")
        try:
            return Path(path).read_text() if path else ""
        except (OSError, UnicodeDecodeError) as error:
            raise denied(f"SSL_CERT_FILE {path} cannot be read: {type(error).__name__}") from None
