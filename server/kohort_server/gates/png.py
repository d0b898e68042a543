"""Small pictures as PNG files, for reports."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from kohort_server.gates.pictures import Pictures

LEAST_SIDE, MOST_SIDE = 64, 160  # pixels


def png(picture: Pictures) -> bytes:
    """A PNG of one picture, [height, width, channels] from 0 to 1: RGB of three channels, else gray."""
    shown = picture if picture.shape[2] == 3 else picture[:, :, :1]
    levels = np.round(np.clip(np.nan_to_num(shown), 0, 1) * 255).astype(np.uint8)
    largest = max(levels.shape[:2])
    if largest < LEAST_SIDE:
        times = LEAST_SIDE // largest
        levels = levels.repeat(times, axis=0).repeat(times, axis=1)
    step = -(-largest // MOST_SIDE)
    levels = levels[::step, ::step]
    height, width, channels = levels.shape
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), levels.reshape(height, width * channels)], axis=1
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
