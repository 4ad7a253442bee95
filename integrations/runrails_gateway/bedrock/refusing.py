"""Errors of AWS in the words of the gateway: with the status that OpenAI's and Anthropic's clients expect. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from runrails_gateway.bedrock.parts import map_of
from runrails_gateway.dialects import Told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails_gateway.bedrock.parts import Body
    from runrails_gateway.dialects.told import Kind

__all__ = ["KEY_REFUSED", "STALE", "Refusal", "refusal_of", "told_of"]

MESSAGE_CHARS_MAX = 500
_NAME = re.compile(r"[A-Za-z]{1,64}")
_OWN = re.compile(r"arn:[^\s\"',)]*|\b[0-9]{12}\b")
"""Whose account it is, which is nobody's business."""
_TOO_LONG = re.compile(r"too long|too many (input )?tokens|context (length|window)|maximum context", re.IGNORECASE)
_LATER = (("retry-after", "1"),)
"""AWS seldom says when; its own clients begin at a second."""
_SECONDS = re.compile(r"[0-9]{1,5}")
_NEVER = (("x-should-retry", "false"),)


class _Rule(NamedTuple):
    status: int
    kind: Kind
    code: str
    what: str
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(NamedTuple):
    """What AWS has said, by the name it has there, and as it is told."""

    name: str
    """In small letters, without the ending `exception`."""
    told: Told


KEY_REFUSED = 401
"""With this status the gateway says itself that the platform's key was refused, and nothing of what AWS says."""
STALE = frozenset({"expiredtoken", "unrecognizedclient", "invalidclienttokenid", "invalidsignature"})
"""What is said to credentials that others may have taken the place of."""
_LIMITED = _Rule(429, "rate_limit", "upstream_rate_limited", "Bedrock is asked too often at the moment.", _LATER)
_REFUSED = _Rule(KEY_REFUSED, "upstream", "upstream_key_refused", "Bedrock refused the platform's credentials.")
_MALFORMED = _Rule(400, "invalid_request", "invalid_request", "Bedrock does not take the request.")
_FAILED = _Rule(500, "upstream", "upstream_failed", "The model failed.")
"""Not 502, which would have Bedrock rest for everybody."""
_DOWN = _Rule(503, "unavailable", "upstream_unavailable", "Bedrock cannot serve at the moment.")
_RULES: Mapping[str, _Rule] = {
    "throttling": _LIMITED,
    "toomanyrequests": _LIMITED,
    "modelnotready": _LIMITED._replace(what="The model is not ready yet."),
    "servicequotaexceeded": _LIMITED._replace(what="The account's quota on Bedrock is used up.", headers=_NEVER),
    "validation": _MALFORMED,
    "resourcenotfound": _Rule(404, "not_found", "model_not_found", "Bedrock has no such model there."),
    "modeltimeout": _Rule(504, "timed_out", "upstream_timeout", "The model did not answer in time."),
    "modelerror": _FAILED,
    "modelstreamerror": _FAILED,
    "internalserver": _Rule(500, "upstream", "upstream_failed", "Bedrock failed."),
    "internalfailure": _Rule(500, "upstream", "upstream_failed", "Bedrock failed."),
    "serviceunavailable": _DOWN,
    **dict.fromkeys(
        (*STALE, "accessdenied", "incompletesignature", "missingauthenticationtoken", "notauthorized", "optinrequired",
         "requestexpired"), _REFUSED,
    ),
}  # fmt: skip
_BY_STATUS: Mapping[int, _Rule] = {
    400: _MALFORMED, 401: _REFUSED, 403: _REFUSED, 429: _LIMITED, 502: _DOWN, 503: _DOWN,
    413: _Rule(413, "too_large", "request_too_large", "The request is larger than Bedrock takes."),
}  # fmt: skip


def refusal_of(status: int, headers: Mapping[str, str], raw: bytes, *, request_id: str) -> Refusal:
    """
    An error answer.

    Args:
        status: As HTTP has it.
        headers: Of the answer, in any case.
        raw: Its body.
        request_id: Of AWS, if it is known.
    """
    body = _decoded(raw)
    name = _plain(headers.get("x-amzn-errortype") or body.get("__type"))
    rule = _RULES.get(name) or _BY_STATUS.get(status) or _FAILED
    said = body.get("message", body.get("Message"))
    words = _cleaned(said) if rule is _MALFORMED and isinstance(said, str) else ""
    after = headers.get("retry-after", "")
    if rule.headers is _LATER and _SECONDS.fullmatch(after):
        rule = rule._replace(headers=(("retry-after", after),))
    return Refusal(name, _told(rule, words, request_id))


def told_of(kind: str, *, request_id: str) -> Told:
    """An error in a stream that has begun, by AWS's name of it."""
    return _told(_RULES.get(_plain(kind)) or _FAILED, "", request_id)


def _decoded(raw: bytes) -> Body:
    try:
        return map_of(json.loads(raw))
    except (ValueError, RecursionError):
        return {}


def _told(rule: _Rule, words: str, request_id: str) -> Told:
    code = "context_length_exceeded" if _TOO_LONG.search(words) else rule.code
    message = f"{rule.what} {words}" if words else rule.what
    return Told(
        status=rule.status, kind=rule.kind, code=code, message=message, headers=rule.headers, request_id=request_id
    )


def _plain(name: object) -> str:
    """`com.amazon.coral#ThrottlingException:http://…` and `throttlingException` are one."""
    text = name.partition(":")[0].rpartition("#")[2] if isinstance(name, str) else ""
    return text.lower().removesuffix("exception") if _NAME.fullmatch(text) else ""


def _cleaned(said: str) -> str:
    """What AWS says of a request, without what it says of the account."""
    text = _OWN.sub("…", said[: 4 * MESSAGE_CHARS_MAX])
    text = text if len(text) <= MESSAGE_CHARS_MAX else f"{text[:MESSAGE_CHARS_MAX]}…"
    return text if text.isprintable() else ascii(text)[1:-1]
