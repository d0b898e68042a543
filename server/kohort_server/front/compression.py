"""Compressed requests: gzip and deflate, up to a limit whatever the ratio."""

from __future__ import annotations

import zlib

from kohort_server.errors import RequestError

WINDOW_BITS = {
    b"gzip": zlib.MAX_WBITS | 16,
    b"x-gzip": zlib.MAX_WBITS | 16,
    b"deflate": zlib.MAX_WBITS,
}


def decompress(encoding: bytes, data: bytes | memoryview, limit: int) -> bytes:
    """The data; raises `RequestError` 415, 400, or 413 beyond `limit` bytes."""
    bits = WINDOW_BITS.get(encoding.lower())
    if bits is None:
        raise RequestError(
            415,
            f"the encoding {encoding.decode('latin-1')!r} is not supported; use gzip or deflate",
        )
    decompressor = zlib.decompressobj(bits)
    try:
        plain = decompressor.decompress(data, limit)
    except zlib.error as error:
        raise RequestError(400, f"the body cannot be decompressed: {error}") from error
    if decompressor.unconsumed_tail:
        raise RequestError(413, f"the body exceeds {limit} bytes when it is decompressed")
    if not decompressor.eof or decompressor.unused_data:
        raise RequestError(400, "the compressed body is cut off, or something follows it")
    return plain
