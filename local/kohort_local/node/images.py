"""What an image runs here: a command of this machine."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Image(msgspec.Struct, frozen=True):
    """The command and the variables that an image stands for."""

    entrypoint: list[str]
    env: dict[str, str] = {}


class ImageUnknown(Exception):
    """The node does not know what to run for an image."""


def find(path: Path, name: str) -> Image:
    """The image of this name in an images file.

    Raises:
        ImageUnknown: it is not there, or the file cannot be read.
    """
    try:
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, Image])
    except (OSError, msgspec.MsgspecError) as error:
        raise ImageUnknown(f"the images file {path} cannot be read: {error}") from error
    if name not in known:
        raise ImageUnknown(
            f'image "{name}" is not one of this node\'s; it knows {", ".join(sorted(known)) or "none"}. '
            "Add it with Cluster.add_images, which says what to run"
        )
    return known[name]
