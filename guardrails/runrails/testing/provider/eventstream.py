"""
The binary frames of AWS event streams.

A frame is a prelude (total length, length of the headers, CRC-32 of those eight bytes), headers, payload, and a CRC-32
of all before it; big-endian throughout (Smithy specification, "Amazon Event Stream").
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["frame"]

_STRING = 7
"""Header type: text with a two-byte length."""


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame whose headers are all text."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 12 + len(head) + len(payload) + 4, len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack("!B", len(key)) + key + struct.pack("!BH", _STRING, len(text)) + text
