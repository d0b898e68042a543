"""Which slot a client is in, computed as anybody can, without Kohort's help."""

from __future__ import annotations

from kohort.contract import UNITS_PER_SLOT, WEIGHT_UNITS


def slot_of(client: str) -> int:
    """A client's slot, as anybody can compute it."""
    return xxh64(client.encode()) % WEIGHT_UNITS // UNITS_PER_SLOT


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0 of fewer than 32 bytes, as published by its author: Envoy's hash."""
    first, second, third, fourth, fifth = (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
    mask = (1 << 64) - 1

    def rotate(value: int, bits: int) -> int:
        return ((value << bits) | (value >> (64 - bits))) & mask

    assert len(data) < 32
    value = (fifth + len(data)) & mask
    while len(data) >= 8:
        lane = int.from_bytes(data[:8], "little") * second & mask
        value = (rotate(value ^ (rotate(lane, 31) * first & mask), 27) * first + fourth) & mask
        data = data[8:]
    if len(data) >= 4:
        lane = int.from_bytes(data[:4], "little")
        value = (rotate(value ^ (lane * first & mask), 23) * second + third) & mask
        data = data[4:]
    for byte in data:
        value = rotate(value ^ (byte * fifth & mask), 11) * first & mask
    value = (value ^ (value >> 33)) * second & mask
    value = (value ^ (value >> 29)) * third & mask
    return value ^ (value >> 32)
