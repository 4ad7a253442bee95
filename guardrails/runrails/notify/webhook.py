"""
Webhooks: signed ones for programs, and Slack's incoming webhooks for people.

Signatures follow the Standard Webhooks specification 1.0.0 (standardwebhooks.com), for which receivers find ready-made
libraries: ``webhook-id`` (the same at every attempt), ``webhook-timestamp`` (seconds of the attempt) and
``webhook-signature``: ``v1,`` and the base64 of the HMAC-SHA256 of ``{id}.{timestamp}.{body}`` under the secret.

No redirect is followed, no proxy of the environment is used, and what is not https goes to this very machine only.
Where to is a setting of the operator and nobody else's, and may well be inside (a chat server of one's own), so rules
for addresses that callers name (`runrails.egress_rules`) do not apply; nothing that is answered is shown to anybody.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from runrails.clocks import Clock, system_ms
from runrails.errors import ConfigError
from runrails.notify.senders import SendFailed
from runrails.secretvalue import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPConnection

    from runrails.notify.senders import Notice

__all__ = ["SlackWebhook", "Webhook", "sign"]

TIMEOUT_S = 5.0
WAIT_S_MAX = 60.0
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
"""What the specification asks of a secret."""
_PREFIX = "whsec_"
_LATER = {408, 425, 429}
"""Statuses below 500 after which trying again may help: timeout, too early, too many."""


class _Address(NamedTuple):
    """Where to send."""

    secure: bool
    host: str
    port: int
    target: Secret
    """Slack's is what lets somebody write there."""


class Webhook:
    """
    Posts every notice as JSON: ``{"type", "timestamp", "data"}``, signed.

    Args:
        url: Where to; https, unless it is this very machine.
        secret: ``whsec_`` and the base64 of 24 to 64 random bytes, which the receiver knows as well.
        timeout_s: How long each step of a request may take.
        clock: For the time of the attempt, by which receivers refuse old ones.

    Raises:
        ConfigError: The address or the secret is none; neither is ever shown.
    """

    def __init__(self, url: str, *, secret: str, timeout_s: float = TIMEOUT_S, clock: Clock = system_ms) -> None:
        self._address = _parse(url)
        self._key = _key(secret)
        self._timeout_s = timeout_s
        self._clock = clock

    @property
    def name(self) -> str:
        """The host; the path may be a secret."""
        return f"webhook {self._address.host}"

    def send(self, notice: Notice) -> None:
        """Post it. Raises SendFailed."""
        body = json.dumps(notice.payload(), separators=(",", ":")).encode()
        seconds = self._clock() // 1_000
        headers = {
            "webhook-id": notice.id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": sign(self._key.reveal_bytes(), notice.id, seconds, body),
        }
        _post(self._address, body, headers, self._timeout_s)

    def __repr__(self) -> str:
        return f"Webhook({self._address.host!r})"


class SlackWebhook:
    """
    Posts the text of every notice to an incoming webhook of Slack, or of what understands the same (Mattermost, Discord
    with ``/slack`` behind its address).

    Args:
        url: The address that Slack gave; it is a secret.
        timeout_s: How long each step of a request may take.

    Raises:
        ConfigError: The address is none; it is never shown.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._address = _parse(url)
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """The host; the path is a secret."""
        return f"slack {self._address.host}"

    def send(self, notice: Notice) -> None:
        """Post it. Raises SendFailed."""
        # https://api.slack.com/reference/surfaces/formatting#escaping: these three, and nothing else.
        text = notice.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        _post(self._address, json.dumps({"text": text}).encode(), {}, self._timeout_s)

    def __repr__(self) -> str:
        return f"SlackWebhook({self._address.host!r})"


def sign(key: bytes, notice_id: str, seconds: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    import hmac
    from base64 import b64encode

    told = f"{notice_id}.{seconds}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, told, 'sha256')).decode()}"


def _key(secret: str) -> Secret:
    import binascii
    from base64 import b64decode

    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ConfigError(
            f"A webhook's secret must be {_PREFIX} and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes.",
            next_step='Make one: python -c "import base64, secrets; '
            "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\"",
        )
    return Secret(key)


def _parse(url: str) -> _Address:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url if url.isascii() and url.isprintable() and " " not in url else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or parts.username is not None:
        raise ConfigError(
            "A webhook's address must be a URL like https://hooks.example.com/path, without user and password.",
            next_step="Check it for blanks and other letters; it is not shown here, since it may hold a secret.",
        )
    secure = parts.scheme == "https"
    if not secure and not _is_loopback(host):
        raise ConfigError(
            f"A webhook at {host} must be reached by https: what is sent tells what somebody spends.",
            next_step="Write https://… for it; http is for this very machine only.",
            host=host,
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # The port is named in full: http.client would take the end of an IPv6 address for one.
    return _Address(secure, host, port or (443 if secure else 80), Secret(target))


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _post(address: _Address, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
    from http.client import HTTPException

    connection = _connection(address, timeout_s)
    try:
        connection.request(
            "POST", address.target.reveal(), body,
            {"content-type": "application/json", "user-agent": "runrails", "connection": "close", **headers},
        )  # fmt: skip
        with connection.getresponse() as answer:
            status, told = answer.status, answer.headers
    except TimeoutError:
        raise SendFailed("timeout") from None
    except (OSError, HTTPException) as error:
        # Not its text, which may quote what was sent or answered.
        raise SendFailed(type(error).__name__) from None
    finally:
        connection.close()
    _check(status, told.get("retry-after", ""))


def _connection(address: _Address, timeout_s: float) -> HTTPConnection:
    from http.client import HTTPConnection, HTTPSConnection

    kind = HTTPSConnection if address.secure else HTTPConnection
    return kind(address.host, address.port, timeout=timeout_s)


def _check(status: int, retry_after: str) -> None:
    if 200 <= status < 300:
        return
    plain = retry_after.isascii() and retry_after.isdigit()
    wait_s = min(float(retry_after), WAIT_S_MAX) if plain else 0.0
    raise SendFailed(f"HTTP {status}", again=status >= 500 or status in _LATER, wait_s=wait_s)
