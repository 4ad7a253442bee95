"""
What tests of the DynamoDB store share: the server that `RUNRAILS_DDB_ENDPOINT` names, a fresh table for each test, and
faults injected below boto3's own retries.

`.ci/dynamodb COMMAND` runs a command with such a server.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import Any, Literal
from uuid import uuid4

import pytest

from runrails.clocks import Clock

ENDPOINT = os.environ.get("RUNRAILS_DDB_ENDPOINT", "")
REASON = "needs DynamoDB Local: .ci/dynamodb .venv/bin/python -m pytest …, which sets RUNRAILS_DDB_ENDPOINT"
needs_server = pytest.mark.skipif(not ENDPOINT, reason=REASON)
REGION = "eu-west-1"


def new_client(endpoint: str = ENDPOINT) -> Any:
    """A client as the store makes it, with credentials that no server checks, and more patience with a busy machine."""
    from boto3.session import Session
    from botocore.config import Config

    from runrails_aws.dynamodb.calling import client_config

    session = Session(aws_access_key_id="local", aws_secret_access_key="local")
    config = client_config().merge(Config(connect_timeout=30, read_timeout=30))  # type: ignore[attr-defined]
    return session.client("dynamodb", region_name=REGION, endpoint_url=endpoint, config=config)


@lru_cache(maxsize=1)
def shared_client() -> Any:
    """One client for the tests of a process: making it takes longer than most tests."""
    return new_client()


def new_table() -> str:
    """A fresh table's name."""
    from botocore.exceptions import ReadTimeoutError

    from runrails_aws.dynamodb.schema import definition

    for _ in range(5):
        name = f"rr-{uuid4().hex}"
        # A server that has just begun may take longer for its first answer than clients wait.
        with suppress(ReadTimeoutError):
            shared_client().create_table(**definition(name) | {"DeletionProtectionEnabled": False})
            return name
    raise AssertionError("DynamoDB Local makes no table")


def open_dynamodb(
    clock: Clock | None, *, table: str | None = None, client: Callable[[], Any] | None = None, **options: Any
) -> Any:
    """A store in a fresh table, or in one that is there."""
    from runrails_aws.dynamodb import DynamoDBStore

    return DynamoDBStore(table or new_table(), clock=clock, client=client or _Shared, **options)


class _Shared:
    """The shared client, which closing a store leaves open."""

    def __getattr__(self, name: str) -> Any:
        return getattr(shared_client(), name)

    def close(self) -> None:
        """Others use it."""


Fate = Literal[
    "ok", "throttled", "conflict", "in_progress", "request_lost", "response_lost", "denied", "expired", "wrong_region",
    "no_table", "killed", "killed_after",
]  # fmt: skip
"""
What becomes of one request: it works; DynamoDB refuses it for now; it never arrives; it is done, but its answer is
lost; credentials forbid it, are too old or are another region's; there is no such table; or this process is killed
before it is sent, or once it is done.
"""
_REFUSALS = {
    "throttled": {"__type": "x#ThrottlingException"},
    "in_progress": {"__type": "x#TransactionInProgressException"},
    "denied": {"__type": "x#AccessDeniedException"},
    "expired": {"__type": "x#ExpiredTokenException"},
    "wrong_region": {"__type": "x#InvalidSignatureException"},
    "no_table": {"__type": "x#ResourceNotFoundException"},
}


class FaultyClient:
    """
    A client whose requests fail below boto3, in its own `before-send` event: what is lost was really sent, or was not.

    Args:
        fate: Tells what becomes of a request, given its operation and how many there were before that may fail.
        reads: Whether reading may fail as well.

    What was asked is in `log`, with its fate, and as it was sent in `sent`. After `over` is set everything works.
    """

    def __init__(self, fate: Callable[[str, int], Fate], *, reads: bool = True) -> None:
        self.real = new_client()
        self.log: list[tuple[str, Fate]] = []
        self.sent: list[tuple[str, bytes]] = []
        self.over = False
        self.fate = fate
        self._count = 0
        self._reads = reads
        self._lock = Lock()
        self.real.meta.events.register("before-send.dynamodb", self._before_send)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def writes(self) -> int:
        """How many requests would write."""
        return sum(not _is_read(operation) for operation, _ in self.log)

    def _before_send(self, request: Any, **_: Any) -> Any:
        from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

        operation = request.headers["X-Amz-Target"].decode().partition(".")[2]
        with self._lock:
            exempt = self.over or (_is_read(operation) and not self._reads)
            fate: Fate = "ok" if exempt else self.fate(operation, self._count)
            self._count += not exempt
            self.log.append((operation, fate))
            self.sent.append((operation, request.body))
        if fate == "ok":
            return None
        if fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "killed_after":
            self.real._endpoint.http_session.send(request)
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "request_lost":
            raise ConnectTimeoutError(endpoint_url=request.url)
        if fate == "response_lost":
            self.real._endpoint.http_session.send(request)
            raise ReadTimeoutError(endpoint_url=request.url)
        if fate == "conflict":
            return _answer(_conflict(operation, json.loads(request.body)))
        return _answer(_REFUSALS[fate])


def _is_read(operation: str) -> bool:
    return operation.startswith(("Get", "Query", "Scan", "BatchGet", "TransactGet", "Describe"))


def _conflict(operation: str, asked: dict[str, Any]) -> dict[str, Any]:
    if not operation.startswith("Transact"):
        return {"__type": "x#TransactionConflictException"}
    codes = ["TransactionConflict" if place == 1 else "None" for place in range(len(asked["TransactItems"]))]
    return {"__type": "x#TransactionCanceledException", "CancellationReasons": [{"Code": code} for code in codes]}


class _Raw:
    """The body of an answer that no server has sent."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, *_: Any, **__: Any) -> list[bytes]:
        """All of it."""
        return [self.body]


def _answer(body: dict[str, Any]) -> Any:
    from botocore.awsrequest import AWSResponse

    headers = {"content-type": "application/x-amz-json-1.0"}
    return AWSResponse(ENDPOINT, 400, headers, _Raw(json.dumps(body).encode()))
