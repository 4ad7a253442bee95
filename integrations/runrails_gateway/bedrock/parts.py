"""Reading decoded JSON that anybody may have sent, and the shapes of Converse that both dialects come to."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from typing import LiteralString

__all__ = [
    "Body", "Json", "Turns", "compact", "image", "list_of", "map_of", "number", "numbers", "only", "spoken", "stops",
    "text_of",
]  # fmt: skip

Body: TypeAlias = Mapping[str, object]
Json: TypeAlias = dict[str, object]
_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
STOPS_MAX = 2_500
"""As Bedrock's reference has it; models take fewer, and say so."""


class Turns:
    """The messages of a conversation, where equal roles that follow on each other are one: Converse takes no others."""

    def __init__(self) -> None:
        self.messages: list[Json] = []

    def add(self, role: str, content: list[Json]) -> None:
        """What `role` says next."""
        if not content:
            return
        if self.messages and self.messages[-1]["role"] == role:
            cast("list[Json]", self.messages[-1]["content"]).extend(content)
            return
        self.messages.append({"role": role, "content": content})


def compact(value: Mapping[str, object]) -> bytes:
    """JSON as it is sent. Raises ValueError for numbers that JSON has not."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a sign; JSON can say that, UTF-8 cannot
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def map_of(value: object) -> Body:
    """A JSON object, or an empty one."""
    return cast("Body", value) if isinstance(value, Mapping) else {}


def list_of(value: object) -> list[Body]:
    """The objects in a JSON list."""
    return [map_of(each) for each in cast("list[object]", value)] if isinstance(value, list) else []


def text_of(value: object, param: LiteralString) -> str:
    """A text. Raises BadRequest."""
    if not isinstance(value, str):
        raise BadRequest("invalid_type", "A member that must be a text is none.", param=param)
    return value


def number(value: object, param: LiteralString) -> int | float | None:
    """A number, if there is one. Raises BadRequest."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest("invalid_type", "A member that must be a number is none.", param=param)
    return value


def numbers(body: Body, names: Mapping[LiteralString, str]) -> Json:
    """The numbers of a request that Converse has under other names. Raises BadRequest."""
    found = {theirs: number(body.get(ours), ours) for ours, theirs in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def stops(value: object, param: LiteralString) -> list[str]:
    """One text at which the answer ends, or several. Raises BadRequest."""
    given = [value] if isinstance(value, str) else value
    if given is None:
        return []
    if not isinstance(given, list) or len(cast("list[object]", given)) > STOPS_MAX:
        raise BadRequest("invalid_type", "Stop sequences must be texts.", param=param)
    return [text_of(each, param) for each in cast("list[object]", given)]


def spoken(text: str) -> list[Json]:
    """Content of a text. Converse takes no empty one."""
    return [{"text": text}] if text else []


def image(media_type: str, data: str, param: LiteralString) -> Json:
    """A picture that the request itself has, in base64. Raises BadRequest."""
    kind = _FORMATS.get(media_type)
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        kind = None
    if kind is None:
        raise BadRequest("invalid_image", "A picture must be a PNG, JPEG, GIF or WebP in base64.", param=param)
    return {"image": {"format": kind, "source": {"bytes": data}}}


def only(body: Body, known: frozenset[str], indifferent: Mapping[str, tuple[object, ...]]) -> None:
    """
    Refuse what would be lost on the way: members that are not `known`, unless they have a value that changes nothing.

    Raises:
        BadRequest: There is one. It is not named: it may be anything.
    """
    for name, value in body.items():
        if name in known or value is None or any(value == each for each in indifferent.get(name, ())):
            continue
        if name in indifferent and not indifferent[name]:
            continue
        raise BadRequest(
            "unsupported_parameter", "The request has a member that models on Bedrock cannot be given.",
            next_step="Leave it out: Converse has no seed, penalties, logprobs, several answers or response formats.",
        )  # fmt: skip
