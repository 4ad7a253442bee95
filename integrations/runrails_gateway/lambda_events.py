"""
Events of function URLs and HTTP APIs, payload format 2.0, as ASGI has requests; and answers as they want them. Pure.

The form is that of AWS's documents: "Invoking Lambda function URLs" and "Create AWS Lambda proxy integrations for HTTP
APIs in API Gateway".
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import unquote_to_bytes

from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runrails_gateway.exchange import Headers

__all__ = ["ANSWER_BYTES_MAX", "Asked", "EventUnknown", "answered", "asked"]

ANSWER_BYTES_MAX = 6_000_000
"""Lambda takes 6,291,556 bytes of JSON for an answer, and throws larger ones away."""
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})


class EventUnknown(ValueError):
    """What the function was called with is no request in that form."""


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    client: str
    """The caller's address, as AWS saw it."""

    def scope(self) -> dict[str, object]:
        """As ASGI has it. What else is in the event is not in it: nothing there may depend on it."""
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": self.method, "scheme": "https", "path": self.path, "root_path": "",
            "raw_path": self.path.encode("utf-8", "replace"), "query_string": self.query, "headers": self.headers,
            "client": (self.client, 0), "server": None,
        }  # fmt: skip

    def without_credentials(self) -> Asked:
        """The same, said by nobody."""
        return self._replace(headers=[pair for pair in self.headers if pair[0] not in _CREDENTIALS])


def asked(event: Mapping[str, object]) -> Asked:
    """
    The request that an event is.

    Raises:
        EventUnknown: It is in another form.
        BadRequest: Its body is not what it says it is.
    """
    context = _part(event, "requestContext")
    http = _part(context, "http")
    match [event.get("version"), http.get("method"), event.get("rawPath")]:
        case ["2.0", str(method), str(path)]:
            pass
        case _:
            raise EventUnknown(
                "This event is no request in payload format 2.0. Use a function URL or an HTTP API; a REST API and a "
                "load balancer have other forms."
            )
    stage = context.get("stage")
    if isinstance(stage, str) and stage != "$default" and path.startswith(f"/{stage}/"):
        path = path.removeprefix(f"/{stage}")
    headers = [(name.lower().encode("utf-8", "replace"), value.encode("utf-8", "replace"))
               for name, value in _part(event, "headers").items() if isinstance(value, str)]  # fmt: skip
    return Asked(
        method=method, path=unquote_to_bytes(path).decode("utf-8", "replace"), query=_text(event, "rawQueryString"),
        headers=headers, body=_body(event), client=_text(http, "sourceIp").decode("utf-8", "replace"),
    )  # fmt: skip


def answered(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> dict[str, object] | None:
    """What the function answers; None if it is larger than Lambda takes."""
    together: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        together[key] = f"{together[key]}, {text}" if key in together else text
    answer: dict[str, object] = {"statusCode": status, "headers": together, "isBase64Encoded": False, "body": ""}
    try:
        answer["body"] = body.decode()
        if _fits(answer):
            return answer
    except UnicodeDecodeError:
        pass
    # What has many quotes and line ends is smaller so.
    answer |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return answer if _fits(answer) else None


def _fits(answer: Mapping[str, object]) -> bool:
    return len(json.dumps(answer)) <= ANSWER_BYTES_MAX


def _body(event: Mapping[str, object]) -> bytes:
    raw = event.get("body")
    if raw is None:
        return b""
    if not isinstance(raw, str):
        raise EventUnknown("This event's body is no text.")
    if event.get("isBase64Encoded") is not True:
        return raw.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("body_malformed", "The request's body is not the base64 that it is said to be.") from None


def _text(whole: Mapping[str, object], name: str) -> bytes:
    found = whole.get(name)
    return found.encode("utf-8", "replace") if isinstance(found, str) else b""


def _part(whole: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = whole.get(name)
    return cast("Mapping[str, object]", part) if isinstance(part, Mapping) else {}
