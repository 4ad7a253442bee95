"""How each vendor writes an error down, in answers and in streams, so that its SDK raises what callers expect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails_gateway.dialects.told import Kind, Told

__all__ = ["anthropic_error", "anthropic_event", "openai_error", "openai_event", "responses_event"]

_OPENAI: Mapping[Kind, str] = {
    "invalid_request": "invalid_request_error", "authentication": "invalid_request_error",
    "permission": "permission_error", "not_found": "invalid_request_error", "conflict": "invalid_request_error",
    "too_large": "invalid_request_error", "budget": "insufficient_quota", "stopped": "guardrail_stopped",
    "rate_limit": "rate_limit_error", "unavailable": "server_error", "upstream": "server_error",
    "timed_out": "server_error", "internal": "server_error",
}  # fmt: skip
_ANTHROPIC: Mapping[Kind, str] = {
    "invalid_request": "invalid_request_error", "authentication": "authentication_error",
    "permission": "permission_error", "not_found": "not_found_error", "conflict": "conflict_error",
    "too_large": "request_too_large", "budget": "billing_error", "stopped": "permission_error",
    "rate_limit": "rate_limit_error", "unavailable": "overloaded_error", "upstream": "api_error",
    "timed_out": "timeout_error", "internal": "api_error",
}  # fmt: skip


def openai_error(told: Told) -> bytes:
    """The body of an answer of OpenAI's."""
    return _json({"error": _openai(told)})


def openai_event(told: Told) -> bytes:
    """An event in a stream of chunks. No `[DONE]` comes after it: the answer is not done."""
    return b"\ndata: " + openai_error(told) + b"\n\n"


def responses_event(told: Told) -> bytes:
    """
    An event in a stream of responses: as the API documents it, and with the `error` that OpenAI's SDK raises.

    Its number in the stream is not known here, and no SDK looks at it.
    """
    error = _openai(told)
    event = {
        "type": "error", "code": told.code, "message": told.message, "param": told.param, "sequence_number": 0,
        "error": error,
    }  # fmt: skip
    return b"\nevent: error\ndata: " + _json(event) + b"\n\n"


def anthropic_error(told: Told) -> bytes:
    """The body of an answer of Anthropic's, and the data of an event in its streams."""
    error = {"type": _ANTHROPIC[told.kind], "message": told.message, "code": told.code, **_facts(told)}
    return _json({"type": "error", "error": error, "request_id": told.request_id})


def anthropic_event(told: Told) -> bytes:
    """An event in a stream of a message."""
    return b"\nevent: error\ndata: " + anthropic_error(told) + b"\n\n"


def _openai(told: Told) -> dict[str, object]:
    kind = _OPENAI[told.kind]
    unit = told.fields.get("unit")
    if told.code == "rate_limit_exceeded" and unit in ("requests", "tokens"):
        kind = str(unit)  # OpenAI's name for which of its rates it was
    error = {"message": told.message, "type": kind, "param": told.param, "code": told.code}
    return {**error, **_facts(told), "request_id": told.request_id}


def _facts(told: Told) -> dict[str, object]:
    return {name: value for name, value in told.fields.items() if name not in _TAKEN}


_TAKEN = frozenset({"message", "type", "param", "code", "request_id"})
"""What vendors mean something by."""


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
