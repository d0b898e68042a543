"""Paths in a container's command put where they really are: there are no mounts without root."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)")
# A path starts at the beginning, after the :// of a URL, or after what cannot be part of a path.
_PATH_START = r"(?:(?<=://)|(?<![\w.\-/~)}\]*]))"
_PATH_END = r"(?=/|$|[^\w.\-])"


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable, `$$` by `$`; a reference to nothing stays as it is."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        return "$" if name is None else variables.get(name, found[0])

    return _REFERENCE.sub(value, text)


def relocate(text: str, mounts: Mapping[str, str]) -> str:
    """Replace every mount path in `text` that is a whole leading part of a path by its directory.

    Args:
        text: An argument or the value of a variable.
        mounts: Mount path → directory. Where one is within another, the inner one wins.
    """
    directories = {path.rstrip("/"): directory for path, directory in mounts.items()}
    directories.pop("", None)  # a mount on / would be every path
    if not directories:
        return text
    longest_first = sorted(directories, key=len, reverse=True)
    paths = "|".join(map(re.escape, longest_first))
    pattern = f"{_PATH_START}({paths}){_PATH_END}"
    return re.sub(pattern, lambda found: directories[found[1]], text)
