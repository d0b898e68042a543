"""HTTP/2's frames (RFC 9113): their numbers, and the bytes of those that a server sends."""

from __future__ import annotations

from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE = 9
HEADER = Struct(">HBBBI")  # length's high and low part, type, flags, stream

(
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION,
) = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

# Error codes.
NO_ERROR = 0
PROTOCOL_ERROR = 1
FLOW_CONTROL_ERROR = 3
STREAM_CLOSED = 5
FRAME_SIZE_ERROR = 6
REFUSED_STREAM = 7
CANCEL = 8
COMPRESSION_ERROR = 9
ENHANCE_YOUR_CALM = 11

# Settings.
HEADER_TABLE_SIZE = 1
MAX_CONCURRENT_STREAMS = 3
INITIAL_WINDOW_SIZE = 4
MAX_FRAME_SIZE = 5
MAX_HEADER_LIST_SIZE = 6

DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384
LARGEST_FRAME_SIZE = (1 << 24) - 1
LARGEST_WINDOW = LARGEST_STREAM = (1 << 31) - 1

_SETTING = Struct(">HI")
_WORD = Struct(">I")
_pack_header = HEADER.pack


class Http2Error(Exception):
    """The client breaks the protocol: the connection ends with this error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    length = len(payload)
    return _pack_header(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """The SETTINGS of this side."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """(number, value) of each of the other side's settings."""
    if len(payload) % _SETTING.size:
        raise Http2Error(FRAME_SIZE_ERROR, "SETTINGS are cut off")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    """Permission to send `size` bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(size))


def reset(stream: int, code: int) -> bytes:
    """The end of a stream."""
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def go_away(last: int, code: int, message: str = "") -> bytes:
    """The end of a connection: streams after `last` were not looked at."""
    return frame(GOAWAY, 0, 0, _WORD.pack(last) + _WORD.pack(code) + message.encode())


def word(payload: bytes) -> int:
    """The only number of a RST_STREAM or WINDOW_UPDATE."""
    if len(payload) != _WORD.size:
        raise Http2Error(FRAME_SIZE_ERROR, "a frame of four bytes has another size")
    return int(_WORD.unpack(payload)[0])
