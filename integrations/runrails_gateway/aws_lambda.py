"""
The gateway as a function on AWS Lambda, behind a function URL or an HTTP API: `runrails_gateway.aws_lambda:handler`.

Lambda stops a process as soon as its function has answered, so each event has the gateway opened, asked and ended: when
the answer is handed over, the call is settled and nothing goes on in the background. Answers are handed over whole. For
streams as they come, and for many requests in one process, AWS's Lambda Web Adapter runs `runrails serve` as it is.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

from runrails.errors import ConfigError
from runrails.identity.authenticate import Authenticator
from runrails_gateway.app import Gateway, create_app
from runrails_gateway.errors import BadRequest
from runrails_gateway.eventdoor import EventDoor
from runrails_gateway.lambda_events import EventUnknown, answered, asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Message

    from runrails_gateway.config import GatewayConfig
    from runrails_gateway.lambda_events import Asked

__all__ = ["Adapter", "Context", "check_shared", "handler"]

MARGIN_MS = 2_000
"""What is kept of a function's time to settle in, once a provider has taken too long."""
_TOO_LARGE = "The answer is larger than the 6 MB that Lambda hands over. It was paid for. Ask for less, or use streams."
_NO_TIME = "The function has no time left for a call. Give it a longer timeout."


class Context(Protocol):
    """What Lambda says of one invocation."""

    def get_remaining_time_in_millis(self) -> int:
        """How long it may still take."""
        ...


class Adapter:
    """
    Answers events, one after the other, as Lambda has them.

    Args:
        config: The gateway's parts. Its ledger and documents are shared with other processes.
        door: Whom AWS has let in comes in by this; None: by API keys and tokens, as everywhere.
    """

    def __init__(self, config: GatewayConfig, door: EventDoor | None = None) -> None:
        self._config = config if door is None else replace(config, authenticator=Authenticator(aws=door))
        self._door = door
        self._app: Gateway = create_app(self._config)

    def __call__(self, event: Mapping[str, object], context: Context) -> dict[str, object]:
        """The answer to an event; what is wrong with it or with the function is an answer, too."""
        left_ms = context.get_remaining_time_in_millis() - MARGIN_MS
        if left_ms <= 0:
            return _problem(503, "function_timeout", _NO_TIME)
        try:
            request = asked(event)
            if self._door is not None:
                request = self._door.admit(event, request)
        except EventUnknown as error:
            return _problem(500, "event_unknown", str(error))
        except BadRequest as error:
            return _problem(400, error.reason, error.what)
        limited = self._config.limited
        limited = replace(limited, request_ms_max=min(limited.request_ms_max, left_ms))
        self._app.config = replace(self._config, limited=limited)
        status, headers, body = asyncio.run(self._ask(request))
        self._finish()
        return answered(status, headers, body) or _problem(502, "answer_too_large", _TOO_LARGE)

    async def _ask(self, request: Asked) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        told: list[Message] = []
        waiting: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]

        async def receive() -> Message:
            if waiting:
                return waiting.pop()
            await asyncio.Event().wait()  # Nobody hangs up: whoever waits for the answer is Lambda.
            raise AssertionError

        async def send(message: Message) -> None:
            told.append(message)

        hot = self._app.open()
        try:
            await self._app(request.scope(), receive, send)
        finally:
            await hot.close()
        start = told[0]
        return start["status"], list(start["headers"]), b"".join(each.get("body", b"") for each in told[1:])

    def _finish(self) -> None:
        """Do what is otherwise done in the background, before the process is stopped."""
        guard = self._config.guard
        guard.flush()
        guard.emit.flush()
        for each in self._config.owned:
            flush = getattr(each, "flush", None)
            if each is not guard and flush is not None:
                flush()


def handler(event: Mapping[str, object], context: Context) -> dict[str, object]:
    """What Lambda calls. Raises ConfigError and StoreUnavailable where the gateway cannot be opened."""
    return _adapter()(event, context)


def check_shared() -> None:
    """
    See that ledger and keys are where other processes find them.

    Raises:
        ConfigError: They would be in files of this process, which Lambda throws away.
    """
    from runrails.documents.opening import documents_url
    from runrails.stores import absolute_url, without_lease

    for setting, url in (("RUNRAILS_STORE", absolute_url()), ("RUNRAILS_VAULT", documents_url())):
        if url.partition(":")[0] in ("sqlite", "memory"):
            raise ConfigError(
                f"{setting} would be in a file that Lambda throws away, and every budget with it.",
                next_step=f"Set {setting}=dynamodb://TABLE?region=REGION.", setting=setting,
            )  # fmt: skip
        if without_lease(url) != url:
            raise ConfigError(
                f"{setting} leases money to processes, and Lambda stops them with it in their hands.",
                next_step=f"Leave the lease out of {setting}.", setting=setting,
            )  # fmt: skip


@cache
def _adapter() -> Adapter:
    from runrails.documents.opening import open_documents
    from runrails.identity.opening import aws_of_environment
    from runrails_gateway.config import GatewayConfig
    from runrails_gateway.ops.loglines import configure

    configure()
    check_shared()
    aws = aws_of_environment()
    config = GatewayConfig.from_env()
    if aws is None or not aws.by_events:
        return Adapter(config)
    documents = open_documents()
    config = replace(config, owned=(*config.owned, documents))
    verifier = aws.open_events(documents)
    return Adapter(config, None if verifier is None else EventDoor(verifier))


def _problem(status: int, code: str, message: str) -> dict[str, object]:
    """An error that is none of the gateway's own, in a form that both vendors' SDKs read."""
    error = {"message": message, "type": "api_error", "param": None, "code": code}
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    body = json.dumps({"type": "error", "error": error})
    return {"statusCode": status, "headers": headers, "isBase64Encoded": False, "body": body}


if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
    _adapter()  # While the function starts, which is quicker than with the first event.
