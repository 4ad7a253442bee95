"""
Requests to Bedrock: where they go, and the frames that streams come in. Pure.

A frame is a prelude (how long it is, how long its headers are, and a checksum of both), headers, content, and a
checksum of all before it, as Smithy's specification "Amazon Event Stream" has it. It is read here, as botocore's way
takes as long as everything else that is done with a frame.
"""

from __future__ import annotations

import json
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, cast
from urllib.parse import quote
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runrails_gateway.bedrock.parts import Body

__all__ = ["BETAS", "Failed", "Frames", "betas_of", "converse_path"]

BETAS = frozenset(
    {"interleaved-thinking-2025-05-14", "token-efficient-tools-2025-02-19", "output-128k-2025-02-19"}
)  # fmt: skip
"""
Anthropic's betas that go on to Claude on Bedrock: those that it takes, and that make no price another one. It refuses
requests with any that it does not know, and Anthropic's own programs send a good many of those.
"""

FRAME_BYTES_MAX = 25_165_824
"""As AWS has it: 16 MiB of content once, 24 now."""
_PRELUDE = Struct("!III")
_CHECKSUM = Struct("!I")
_TEXT, _BYTES = 7, 6
_SIZES: Mapping[int, int] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Of headers of other types than text and bytes, which say how long they are."""


class Failed(Exception):
    """The stream says that the model, or the service, gave up. `kind` is AWS's name of it."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def converse_path(model: str, *, stream: bool) -> str:
    """Below the endpoint. A model may be an ARN; all of its signs are escaped, so it never leaves its place."""
    return f"/model/{quote(model, safe='')}/{'converse-stream' if stream else 'converse'}"


def betas_of(header: str | None, model: str) -> list[str]:
    """What of an `anthropic-beta` header a model on Bedrock is told, each once."""
    if header is None or "claude" not in model:
        return []
    return [name for name in dict.fromkeys(map(str.strip, header.split(","))) if name in BETAS]


class Frames:
    """Takes an AWS event stream apart. What is not complete yet waits; nothing is kept but that."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, Body]]:
        """
        The events that are complete by now: name and content.

        Raises:
            Failed: An event says so.
            ValueError: This is no event stream.
        """
        kept, at = self._kept, 0
        kept += data
        try:
            while len(kept) - at >= _PRELUDE.size:
                size, head, check = _PRELUDE.unpack_from(kept, at)
                _check(crc32(kept[at : at + 8]) == check and _PRELUDE.size + head + 4 <= size <= FRAME_BYTES_MAX)
                if len(kept) - at < size:
                    return
                frame = bytes(kept[at : at + size])
                at += size
                _check(crc32(frame[:-4]) == _CHECKSUM.unpack_from(frame, size - 4)[0])
                content = _PRELUDE.size + head
                failed, name = _named(frame[_PRELUDE.size : content])
                if failed:
                    raise Failed(name)
                yield name, _decoded(frame[content:-4])
        finally:
            del kept[:at]


@lru_cache(maxsize=256)
def _named(head: bytes) -> tuple[bool, str]:
    """Whether a frame tells of a failure, and what its event or failure is called. Few headers differ from others."""
    found: dict[bytes, str] = {}
    at = 0
    while at < len(head):
        end = at + 1 + head[at]
        name, kind = head[at + 1 : end], int.from_bytes(head[end : end + 1], "big")
        at = end + 1
        if kind in (_TEXT, _BYTES):
            size = int.from_bytes(head[at : at + 2], "big")
            at += 2
        else:
            _check(kind in _SIZES)
            size = _SIZES[kind]
        if kind == _TEXT:
            found[name] = head[at : at + size].decode()
        at += size
    _check(at == len(head))
    if found.get(b":message-type") in {"exception", "error"}:
        return True, found.get(b":exception-type") or found.get(b":error-code") or ""
    return False, found.get(b":event-type", "")


def _check(fine: bool) -> None:  # noqa: FBT001 -- a check reads as a sentence
    if not fine:
        raise ValueError("The frames of the stream are broken.")


def _decoded(body: bytes) -> Body:
    found: object = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("An event of the stream is no JSON object.")  # noqa: TRY004 -- of the data
    return cast("Body", found)
