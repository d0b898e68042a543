"""Digests of files and of directories, as a person can compute them too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(path: Path) -> str:
    """The digest of a file's content, as `sha256:…`."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def digest_of_tree(digests: Mapping[str, str]) -> str:
    """The digest of a directory, by the digests of its files: that of what sha256sum prints for it.

    `find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum` gives the same. That of a
    single file without a name is that of its content.
    """
    if list(digests) == [""]:
        return digests[""]
    lines = [f"{digest.removeprefix('sha256:')}  {name}\n" for name, digest in digests.items()]
    # By bytes, as LC_ALL=C sorts; a line's digest comes first in it, its name decides.
    lines.sort(key=lambda line: line[66:].encode())
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
