"""Sending requests: one attempt at a time by boto3, and our own patience around it."""

from __future__ import annotations

import os
import random
import time
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, cast

from runrails.clocks import Clock, monotonic_ms
from runrails.errors import StoreUnavailable
from runrails.ids import new_id
from runrails.stores import rules
from runrails_aws.dynamodb.failures import (
    Failed,
    Trouble,
    failed,
    no_driver,
    out_of_patience,
    trouble_of,
    unread,
    unusable,
)
from runrails_aws.dynamodb.servertime import ServerTime, date_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runrails_aws.dynamodb.wire import Item, Request

__all__ = ["Caller", "Client", "Patience", "Verb", "client_config", "make_client"]

CALLS_MAX = 64
"""Calls that asynchronous callers may have in flight: so many that reserve, and as many that settle."""
_PAGES_MAX = 100_000
_BATCH_TRIES_MAX = 100

Answer: TypeAlias = "Mapping[str, object]"


class Client(Protocol):
    """A boto3 client for DynamoDB, as far as it is used by name."""

    def close(self) -> None:
        """Let go of its connections."""
        ...


class _Session(Protocol):
    def client(self, service: str, **settings: object) -> Client: ...


class Patience(NamedTuple):
    """How long a verb goes on trying, and how it waits between attempts."""

    deadline_ms: int = 10_000
    """From the verb's beginning; the attempt that is under way then is the last."""
    pause_first_ms: int = 25
    pause_max_ms: int = 1_000
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random  # spreads attempts; nothing secret depends on it
    monotonic: Clock = monotonic_ms

    def pause_s(self, attempt: int) -> float:
        """Seconds before the next attempt: any part of a span that doubles (full jitter)."""
        span_ms = min(self.pause_max_ms, self.pause_first_ms * (1 << min(attempt - 1, 20)))
        return self.chance() * span_ms / 1_000


class Verb(NamedTuple):
    """One verb of the store under way."""

    began_ms: int
    until_ms: int
    writer: str
    """The signature of what it writes: a lost answer is known again by it."""
    lost: list[str]
    """The operations of its attempts that were not answered: they may still arrive."""


class _Again(Exception):
    def __init__(self, trouble: Trouble, error: Exception) -> None:
        super().__init__()
        self.trouble = trouble
        self.error = error


class Caller:
    """
    Sends requests about one table. Thread-safe; a fork gets a client of its own.

    Args:
        table: Its name, for errors.
        make: Makes a client that attempts a request once.
        patience: How long to try, and by which clock.
    """

    def __init__(self, table: str, make: Callable[[], Client], patience: Patience) -> None:
        self.table = table
        self.patience = patience
        self.server_time = ServerTime(patience.monotonic)
        self.throttled = 0
        """How many attempts were throttled; threads may lose count of a few."""
        self._make = make
        self._monotonic = patience.monotonic
        self._lock = Lock()
        self._client: Client | None = None
        self._process = 0
        self._closed = False
        self._date: tuple[str, int | None] = ("", None)

    def begin(self) -> Verb:
        """A verb begins now. Raises StoreUnavailable if the store is closed."""
        if self._closed:
            raise rules.closed()
        now_ms = self._monotonic()
        return Verb(now_ms, now_ms + self.patience.deadline_ms, new_id(), [])

    def is_over(self, verb: Verb) -> bool:
        """Whether the verb's time is over."""
        return self._monotonic() >= verb.until_ms

    def write(self, request: Request, verb: Verb) -> Failed | None:
        """Write; None if it is written, else which conditions did not hold."""
        answer = self._patiently(request, verb)
        return answer if isinstance(answer, Failed) else None

    def read(self, request: Request, verb: Verb) -> Answer:
        """Read one page."""
        answer = self._patiently(request, verb)
        if isinstance(answer, Failed):  # reading has no conditions
            raise StoreUnavailable("A read was refused.", next_step="Try again.", table=self.table)
        return answer

    def send(self, request: Request, verb: Verb, *, once: bool = False) -> Answer | Failed:
        """Write, and have the answer; or which conditions did not hold. `once`: not again if it may have arrived."""
        return self._patiently(request, verb, once=once)

    def pages(self, request: Request) -> Iterator[Item]:
        """Every item of a query or scan, page after page; each page has the whole patience."""
        parameters = dict(request.parameters)
        for _ in range(_PAGES_MAX):
            answer = self.read(request._replace(parameters=parameters), self.begin())
            yield from cast("list[Item]", answer["Items"])
            after = answer.get("LastEvaluatedKey")
            if not after:
                return
            parameters["ExclusiveStartKey"] = after

    def batch(self, request: Request, verb: Verb) -> list[Item]:
        """Every item of a batch, in no order; those that are not there are left out."""
        found: list[Item] = []
        for attempt in range(1, _BATCH_TRIES_MAX):
            answer = self.read(request, verb)
            for listed in cast("Mapping[str, list[Item]]", answer["Responses"]).values():
                found += listed
            left = cast("dict[str, object]", answer.get("UnprocessedKeys"))
            if not left:
                return found
            self.throttled += 1
            if self.is_over(verb):
                break
            request = request._replace(parameters={"RequestItems": left})
            self.patience.sleep(self.patience.pause_s(attempt))
        # What was not read is not absent.
        raise unread(self.table, waited_ms=self._monotonic() - verb.began_ms)

    def after_fork(self) -> None:
        """In a child: other threads of the parent may have held the locks."""
        self._lock = Lock()
        self.server_time.after_fork()

    def close(self) -> None:
        """Let go of connections; every later verb is refused."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    def _patiently(self, request: Request, verb: Verb, *, once: bool = False) -> Answer | Failed:
        from tenacity import RetryCallState, Retrying, retry_if_exception

        def stop(_: RetryCallState) -> bool:
            return self._monotonic() >= verb.until_ms

        def wait(state: RetryCallState) -> float:
            # The last pause ends at the deadline, so that there is an attempt as late as that.
            left_s = max(0, verb.until_ms - self._monotonic()) / 1_000
            return min(self.patience.pause_s(state.attempt_number), left_s)

        def may_help(error: BaseException) -> bool:
            if isinstance(error, _Again) and error.trouble is Trouble.LOST:
                verb.lost.append(request.operation)
            return isinstance(error, _Again) and not (once and error.trouble is Trouble.LOST)

        tries = Retrying(
            stop=stop, wait=wait, sleep=self.patience.sleep, retry=retry_if_exception(may_help), reraise=True
        )
        try:
            return tries(self._once, request)
        except _Again as again:
            waited_ms = self._monotonic() - verb.began_ms
            raise out_of_patience(again.trouble, self.table, again.error, waited_ms=waited_ms) from again.error

    def _once(self, request: Request) -> Answer | Failed:
        send = cast("Callable[..., Answer]", getattr(self._connected(), request.operation))
        sent_ms = self._monotonic()
        try:
            answer = send(**request.parameters)
        except Exception as error:
            self._hear(cast("Answer | None", getattr(error, "response", None)), sent_ms)
            conditions = failed(error)
            if conditions is not None:
                return conditions
            trouble = trouble_of(error)
            if trouble is Trouble.THROTTLED:
                self.throttled += 1
            if trouble is Trouble.FATAL:
                raise unusable(error, self.table, request.operation) from error
            raise _Again(trouble, error) from error
        self._hear(answer, sent_ms)
        return answer

    def _hear(self, answer: Answer | None, sent_ms: int) -> None:
        """Learn the server's time from an answer, be it an error."""
        came_ms = self._monotonic()
        told = cast("Mapping[str, Mapping[str, str]]", (answer or {}).get("ResponseMetadata") or {})
        header = told.get("HTTPHeaders", {}).get("date", "")
        if not header:
            return
        known = self._date
        if known[0] != header:
            known = self._date = (header, date_ms(header))
        if known[1] is not None:
            self.server_time.heard(known[1], sent_ms, came_ms)

    def _connected(self) -> Client:
        client = self._client
        if client is not None and self._process == os.getpid():
            return client
        with self._lock:
            if self._closed:
                raise rules.closed()
            if self._client is None or self._process != os.getpid():
                # Connections made before a fork are the parent's.
                self._client, self._process = self._make(), os.getpid()
            return self._client


def client_config() -> object:
    """How a client must be set up: one attempt, of at most 3 seconds, and a connection for each call in flight."""
    config = cast("Callable[..., object]", import_module("botocore.config").Config)
    return config(
        retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=2, max_pool_connections=2 * CALLS_MAX,
        parameter_validation=False, tcp_keepalive=True,
    )  # fmt: skip


def make_client(*, region: str | None = None, endpoint: str | None = None, profile: str | None = None) -> Client:
    """
    A client that attempts each request once.

    Raises:
        ConfigError: boto3 is not installed.
        StoreUnavailable: No region, or no such profile.
    """
    try:
        session = cast("Callable[..., _Session]", import_module("boto3.session").Session)
        expected = cast("type[Exception]", import_module("botocore.exceptions").BotoCoreError)
    except ImportError as error:
        raise no_driver() from error
    try:
        # A session of its own: boto3's default one is not for several threads.
        return session(profile_name=profile).client(
            "dynamodb", region_name=region, endpoint_url=endpoint, config=client_config()
        )
    except (expected, ValueError) as error:
        raise unusable(error, "of the store", "connect") from error
