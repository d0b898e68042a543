"""What a process shows and trusts on a mutual TLS connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AUTHORITY_FILE = "ca.crt"
CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"


@dataclass(frozen=True)
class Identity:
    """PEM: ``authority`` may hold several certificates, ``certificate`` a chain."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Identity:
        """From the files of a Secret: ``ca.crt``, ``tls.crt``, ``tls.key``."""
        try:
            return cls(files[AUTHORITY_FILE], files[CERTIFICATE_FILE], files[KEY_FILE])
        except KeyError as error:
            raise ValueError(
                f"the Secret lacks {error}; delete it and the operator makes a new one"
            ) from None
