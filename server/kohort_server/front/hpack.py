"""HPACK (RFC 7541): the header blocks of HTTP/2 requests to names and values.

This server asks clients not to use a dynamic table. From their acknowledgement on a block means the
same on every connection, so that the whole of a repeated block is one look-up. Until then, and for
clients that cannot, the table is kept as the specification says.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from functools import lru_cache
from itertools import pairwise

DEFAULT_TABLE_SIZE = 4096  # bytes; what a client may use until it has seen the settings
ENTRY_OVERHEAD = 32  # bytes that an entry counts beside its name and value
CACHED_BLOCKS = 1024
LONGEST_CACHED_BLOCK = 1024  # bytes
CACHED_STRINGS = 1024
MAX_FIELDS = 256

Headers = dict[bytes, bytes]

STATIC_NAMES = (
    "accept-charset accept-encoding accept-language accept-ranges accept "
    "access-control-allow-origin age allow authorization cache-control content-disposition "
    "content-encoding content-language content-length content-location content-range "
    "content-type cookie date etag expect expires from host if-match if-modified-since "
    "if-none-match if-range if-unmodified-since last-modified link location max-forwards "
    "proxy-authenticate proxy-authorization range referer refresh retry-after server "
    "set-cookie strict-transport-security transfer-encoding user-agent vary via "
    "www-authenticate"
)
STATIC_TABLE: tuple[tuple[bytes, bytes], ...] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    *((b":status", b"%d" % status) for status in (200, 204, 206, 304, 400, 404, 500)),
    *(
        (name.encode(), b"gzip, deflate" if name == "accept-encoding" else b"")
        for name in STATIC_NAMES.split()
    ),
)

# Bits of the code of each byte, sixteen to a line, and of the end. The code is canonical: it follows
# from these lengths alone.
LENGTHS = (
    "13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 "
    "28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28 "
    "6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6 "
    "5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10 "
    "13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 "
    "7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6 "
    "15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 "
    "6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28 "
    "20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23 "
    "24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24 "
    "22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23 "
    "21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23 "
    "26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 "
    "19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27 "
    "20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23 "
    "26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26 30"
)
CODE_LENGTHS = [int(length) for length in LENGTHS.split()]
END_OF_STRING = 256
WINDOW = 32  # bits that are looked at for one symbol


class HpackError(Exception):
    """A block that no encoder makes: the connection cannot go on."""


def canonical_codes() -> tuple[list[int], list[int]]:
    """All symbols by their code, and each code at the top of a window."""
    symbols = sorted(range(len(CODE_LENGTHS)), key=lambda symbol: (CODE_LENGTHS[symbol], symbol))
    codes = [0]
    for before, _ in pairwise(symbols):
        codes.append(codes[-1] + (1 << (WINDOW - CODE_LENGTHS[before])))
    return symbols, codes


SYMBOLS, CODES = canonical_codes()


@lru_cache(CACHED_STRINGS)
def decode_huffman(data: bytes) -> bytes:
    """A string from its Huffman code."""
    padded = data + b"\xff" * 5
    total = len(data) * 8
    at = 0
    decoded = bytearray()
    while True:
        byte = at >> 3
        window = int.from_bytes(padded[byte : byte + 5], "big") >> (8 - (at & 7)) & 0xFFFFFFFF
        symbol = SYMBOLS[bisect_right(CODES, window) - 1]
        at += CODE_LENGTHS[symbol]
        if at > total:
            break
        if symbol == END_OF_STRING:
            raise HpackError("a string contains the end of a string")
        decoded.append(symbol)
    left = total - (at - CODE_LENGTHS[symbol])
    if left > 7 or window >> (WINDOW - left) != (1 << left) - 1:
        raise HpackError("a string is not padded with ones")
    return bytes(decoded)


class HeaderDecoder:
    """Decodes the blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._dynamic: deque[tuple[bytes, bytes]] = deque()  # the newest first
        self._size = 0
        self._limit = DEFAULT_TABLE_SIZE
        self.allowed = DEFAULT_TABLE_SIZE  # how large the client may make the table

    def decode(self, block: bytes) -> Headers:
        """Names in lower case to values; the last of several of a name. Not to be changed.

        Raises `HpackError`, after which the table is not what the client thinks.
        """
        if not self._limit and not self.allowed and len(block) <= LONGEST_CACHED_BLOCK:
            return decode_alone(block)
        return self._decode(block)

    def _decode(self, block: bytes) -> Headers:
        headers: Headers = {}
        at = 0
        fields = 0
        try:
            while at < len(block):
                first = block[at]
                if first & 0x80:
                    index, at = read_integer(block, at, 7)
                    name, value = self._entry(index)
                elif first & 0xE0 == 0x20:
                    size, at = read_integer(block, at, 5)
                    self._resize(size)
                    continue
                else:
                    indexed = bool(first & 0x40)
                    index, at = read_integer(block, at, 6 if indexed else 4)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, at = read_string(block, at)
                    value, at = read_string(block, at)
                    if indexed:
                        self._insert(name, value)
                headers[name] = value
                fields += 1
                if fields > MAX_FIELDS:
                    raise HpackError("too many fields")
        except IndexError as error:
            raise HpackError("a block ends too early or refers to what is not there") from error
        return headers

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if index == 0:
            raise HpackError("a field has the index 0")
        if index <= len(STATIC_TABLE):
            return STATIC_TABLE[index - 1]
        return self._dynamic[index - len(STATIC_TABLE) - 1]

    def _insert(self, name: bytes, value: bytes) -> None:
        self._dynamic.appendleft((name, value))
        self._size += len(name) + len(value) + ENTRY_OVERHEAD
        self._evict()

    def _resize(self, size: int) -> None:
        if size > self.allowed:
            raise HpackError("the table is made larger than allowed")
        self._limit = size
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            name, value = self._dynamic.pop()
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD


@lru_cache(CACHED_BLOCKS)
def decode_alone(block: bytes) -> Headers:
    """A block that refers to no dynamic table."""
    decoder = HeaderDecoder()
    decoder.allowed = decoder._limit = 0
    return decoder._decode(block)


def read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer in the low bits of the byte at `at` and those after it, and where it ends."""
    mask = (1 << bits) - 1
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HpackError("an integer is too large")


def read_string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string and where it ends."""
    huffman = block[at] & 0x80
    length, at = read_integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise HpackError("a string is longer than its block")
    data = block[at:end]
    return (decode_huffman(data) if huffman else data), end


def write_integer(value: int, bits: int, first: int) -> bytes:
    """An integer in the low bits of a byte whose other bits are `first`."""
    mask = (1 << bits) - 1
    if value < mask:
        return bytes([first | value])
    encoded = bytearray([first | mask])
    value -= mask
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_field(name: bytes, value: bytes) -> bytes:
    """A field as a literal: readable by every decoder in every state."""
    return b"".join(
        (b"\0", write_integer(len(name), 7, 0), name, write_integer(len(value), 7, 0), value)
    )


def encode_fields(fields: Headers) -> bytes:
    """A block of literals."""
    return b"".join(encode_field(name, value) for name, value in fields.items())
