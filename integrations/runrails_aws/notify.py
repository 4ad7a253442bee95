"""Notifications through Amazon SNS: one message an event, with its name as an attribute to filter by."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from runrails.errors import ConfigError
from runrails.notify import SendFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.notify import Notice

__all__ = ["SNSSender"]

_CODE = re.compile(r"[A-Za-z.]{1,64}")
"""What is none of AWS's own words is not written into logs and books."""
SUBJECT_CHARS_MAX = 99
"""SNS takes fewer than 100 characters of ASCII, without line breaks."""
_LATER = {"InternalError", "InternalFailure", "RequestTimeout", "ServiceUnavailable", "Throttled", "Throttling"}
"""Error codes after which trying again may help; the others tell of a wrong topic or missing permission."""


class _Client(Protocol):
    def publish(self, **request: object) -> object: ...


class _Session(Protocol):
    def client(self, service: str, **settings: object) -> _Client: ...


class SNSSender:
    """
    Publishes every notice to a topic: its text as the subject, the JSON of `Notice.payload` as the message.

    Args:
        topic_arn: The topic.
        client: A client of boto3's `sns`; by default one is made with the first notice, for the topic's own region,
            with one attempt and short timeouts, since the notifier tries again by itself.

    Raises:
        ConfigError: The topic is not named by an ARN.
    """

    def __init__(self, topic_arn: str, *, client: _Client | None = None) -> None:
        parts = topic_arn.split(":")
        if len(parts) != 6 or parts[0] != "arn" or parts[2] != "sns" or not all(parts[3:]):
            raise ConfigError("An SNS topic is named by its ARN.", next_step="Write arn:aws:sns:REGION:ACCOUNT:NAME.")
        self._topic_arn = topic_arn
        self._region = parts[3]
        self._client = client

    @property
    def name(self) -> str:
        """The topic's ARN."""
        return f"sns {self._topic_arn}"

    def send(self, notice: Notice) -> None:
        """Publish it. Raises SendFailed."""
        subject = "".join([each if each.isascii() and each.isprintable() else "?" for each in notice.text])
        try:
            self._connected().publish(
                TopicArn=self._topic_arn,
                Subject=subject[:SUBJECT_CHARS_MAX],
                Message=json.dumps({"id": notice.id, **notice.payload()}),
                MessageAttributes={"type": {"DataType": "String", "StringValue": notice.event.name}},
            )
        except SendFailed:
            raise
        except Exception as error:  # noqa: BLE001 -- botocore makes its errors as it goes
            raise _failed(error) from None

    def _connected(self) -> _Client:
        if self._client is None:
            try:
                # A session of its own: boto3's default one is not for several threads, and this is not the main one.
                session = cast("Callable[[], _Session]", import_module("boto3.session").Session)
                config = cast("Callable[..., object]", import_module("botocore.config").Config)
            except ImportError:
                raise SendFailed("boto3 is missing: pip install 'runrails[aws]'", again=False) from None
            quick = config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})
            self._client = session().client("sns", region_name=self._region, config=quick)
        return self._client

    def __repr__(self) -> str:
        return f"SNSSender({self._topic_arn!r})"


def _failed(error: Exception) -> SendFailed:
    """AWS's own code where it answered; else what kind of error it was, after which trying again may help."""
    response: object = getattr(error, "response", None)
    found: object = response.get("Error", {}) if isinstance(response, dict) else {}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- botocore publishes no types
    code: object = found.get("Code") if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- as above
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return SendFailed(type(error).__name__)
    return SendFailed(code, again=code in _LATER or "Throttl" in code)
