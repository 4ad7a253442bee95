"""Requests to Bedrock: where they go, and the frames that streams come in."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import quote

from runrails.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runrails_gateway.bedrock.parts import Body

__all__ = ["Failed", "Frames", "converse_path"]


class Failed(Exception):
    """The stream says that the model, or the service, gave up. `kind` is AWS's name of it."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def converse_path(model: str, *, stream: bool) -> str:
    """Below the endpoint. A model may be an ARN; all of its signs are escaped, so it never leaves its place."""
    return f"/model/{quote(model, safe='')}/{'converse-stream' if stream else 'converse'}"


class _Frame(Protocol):
    def to_response_dict(self) -> dict[str, object]: ...


class _Buffer(Protocol):
    def add_data(self, data: bytes) -> None: ...
    def __iter__(self) -> Iterator[_Frame]: ...


class _Module(Protocol):
    """What is used of botocore, which brings no types."""

    EventStreamBuffer: Callable[[], _Buffer]
    ParserError: type[Exception]


class Frames:
    """
    Takes an AWS event stream apart, whose checksums botocore looks at.

    Raises:
        ConfigError: botocore is not installed.
    """

    def __init__(self) -> None:
        module = _eventstream()
        self._buffer = module.EventStreamBuffer()
        self._broken = module.ParserError

    def feed(self, data: bytes) -> Iterator[tuple[str, Body]]:
        """
        The events that are complete by now: name and content.

        Raises:
            Failed: An event says so.
            ValueError: This is no event stream.
        """
        self._buffer.add_data(data)
        try:
            for frame in self._buffer:
                told = frame.to_response_dict()
                headers = cast("dict[str, object]", told["headers"])
                if headers.get(":message-type") in {"exception", "error"}:
                    raise Failed(str(headers.get(":exception-type") or headers.get(":error-code")))
                yield str(headers.get(":event-type")), _decoded(cast("bytes", told["body"]))
        except self._broken:
            raise ValueError("The frames of the stream are broken.") from None


@cache
def _eventstream() -> _Module:
    try:
        return cast("_Module", import_module("botocore.eventstream"))
    except ImportError:
        raise ConfigError("Bedrock needs botocore.", next_step="pip install 'runrails[gateway,aws]'") from None


def _decoded(body: bytes) -> Body:
    found: object = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("An event of the stream is no JSON object.")  # noqa: TRY004 -- of the data
    return cast("Body", found)
