"""
Which headers go on to a provider, and which come back to the caller. Pure.

Both are lists of what passes: what nobody thought of stays here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runrails_gateway.config import UpstreamDialect

__all__ = ["Pairs", "passed_back", "passed_on", "with_key"]

Pairs = list[tuple[bytes, bytes]]
_ON = {
    b"accept": "Accept", b"anthropic-beta": "anthropic-beta", b"anthropic-version": "anthropic-version",
    b"openai-beta": "OpenAI-Beta", b"user-agent": "User-Agent",
}  # fmt: skip
"""Never an `Idempotency-Key`: on a key that many share, one caller's could bring another's answer."""
_BACK = frozenset({"content-type", "openai-model", "openai-processing-ms", "openai-version"})
_RATES = re.compile(r"(?:x-|anthropic-)ratelimit-[a-z-]{1,60}")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_VALUE = re.compile(r"[\x20-\x7e]{0,1000}")
ANTHROPIC_VERSION = "2023-06-01"


def passed_on(given: Iterable[tuple[bytes, bytes]], dialect: UpstreamDialect) -> dict[str, str]:
    """The headers of a request to a provider, without a key. What came twice is said once, with a comma."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    for name, value in given:
        known = _ON.get(name)
        if known is not None:
            text = value.decode("latin-1")
            if _VALUE.fullmatch(text):
                headers[known] = f"{headers[known]}, {text}" if known in headers else text
    if dialect == "anthropic":
        headers.setdefault("anthropic-version", ANTHROPIC_VERSION)
    return headers


def with_key(headers: Mapping[str, str], dialect: UpstreamDialect, key: str | None) -> dict[str, str]:
    """The same with the key that the call goes out on."""
    if key is None:
        return dict(headers)
    return {**headers, "x-api-key": key} if dialect == "anthropic" else {**headers, "Authorization": f"Bearer {key}"}


def passed_back(given: Mapping[str, str], *, byok: bool) -> Pairs:
    """
    The headers of an answer.

    Args:
        given: What the provider sent.
        byok: Whether the caller's own key paid: then the provider's rate limits are theirs to know. Those of the
            platform's account are nobody's business.
    """
    passed: Pairs = []
    for name, value in given.items():
        name = name.lower()  # noqa: PLW2901 -- HTTP's names have no case
        if (name in _BACK or (byok and _RATES.fullmatch(name))) and _VALUE.fullmatch(value):
            passed.append((name.encode(), value.encode()))
    theirs = given.get("x-request-id") or given.get("request-id")
    if theirs is not None and _ID.fullmatch(theirs):
        passed.append((b"x-runrails-upstream-request-id", theirs.encode()))
    return passed
