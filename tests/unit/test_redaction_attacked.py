"""Secrets that are numbers, that begin like a mask, or that stand in pairs."""

from __future__ import annotations

import pytest

from runrails.redaction import MASK, redact, redact_text


@pytest.mark.parametrize(
    "text",
    [
        "password=1234567890123", "passphrase: 12345678", "secret=00000001", "pepper = 31415926535",
        "api_key=998877665544332211", "token=12345678901234567890",         "x-api-key: [redacted0123456789",
    ],
)  # fmt: skip
def test_numbers_and_false_masks_are_secrets_too(text: str) -> None:
    """Only what counts something, and what we have masked ourselves, is left."""
    masked = redact_text(text)
    assert MASK in masked
    assert not any(text[n : n + 8] in masked.replace(MASK, "") for n in range(len(text) - 8) if text[n].isdigit())


@pytest.mark.parametrize("text", ["token=5", "tokens: 123456", "token: 4096", "credentials=3", f"secret={MASK}"])
def test_counts_and_masks_stay(text: str) -> None:
    """They tell nothing, and are what a log is read for."""
    assert text == redact_text(text)


@pytest.mark.parametrize("kind", [tuple, list])
def test_pairs_are_names_with_values(kind: type) -> None:
    """As HTTP libraries keep headers."""
    canary = "mistralkey0123456789abcdef"
    told = redact({"headers": [kind(("x-api-key", canary)), kind((b"X-Api-Key", canary.encode())), kind(("a", "b"))]})
    assert canary not in str(told)
    assert "'b'" in str(told)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Token {}", "authorization: ApiKey {}", "proxy-authorization=Custom-1 {}", "Cookie: a=b; sid={}",
        "set-cookie: theme=dark; Path=/; session={}; HttpOnly", "curl -H 'Authorization: Token {}' https://x",
        "b'Authorization: Token {}\\r\\nHost: x'", "authorization:{}",
    ],
)  # fmt: skip
def test_a_header_is_more_than_its_first_word(text: str) -> None:
    """A scheme before the credentials, and cookies one after the other; what follows on other lines stays."""
    canary = "9944b09199c62bcf9418ad846dd0e4bb"
    masked = redact_text(text.format(canary) + "\nuser=alice did it")
    assert not any(canary[n : n + 8] in masked for n in range(len(canary) - 7))
    assert masked.endswith("user=alice did it")


@pytest.mark.parametrize("text", ["authorization=None user=alice", "cookie: null; x", "authorization: false"])
def test_no_header_is_no_secret(text: str) -> None:
    """What says that there is none stays."""
    assert text == redact_text(text)
