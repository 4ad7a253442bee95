"""
The way of one request: limits of size and time, who it is, what they may do, what is asked, which run it belongs to,
whether that may go on; then the call itself.

From where a request is complete it has a task of its own, so that whoever hangs up ends nothing but their own waiting:
the answer is read on, within limits, and settled.
"""

from __future__ import annotations

import asyncio
import random
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from runrails import aio
from runrails.attribution import Attribution
from runrails.calls import ModelCall
from runrails.errors import RunrailsError
from runrails.identity.authenticate import enter
from runrails.ledger import RUN_PERIOD, Account
from runrails_gateway.callers import caller_of
from runrails_gateway.calling import Call
from runrails_gateway.continuing import continuing
from runrails_gateway.conversations import Conversations
from runrails_gateway.dialects import tell
from runrails_gateway.errors import ModelNotFound, NotServed, UpstreamError
from runrails_gateway.exchange import Exchange, Left, read_body, the_header
from runrails_gateway.figures import about_request
from runrails_gateway.growing import Growing
from runrails_gateway.keeping import RunKeeper
from runrails_gateway.labels import labelled, note_resent
from runrails_gateway.reading import ask_of
from runrails_gateway.sparing import spare
from runrails_gateway.upstream.attempts import Attempts, Lines
from runrails_gateway.upstream.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

    from runrails.clients.plan import Plan
    from runrails.identity.authenticate import Entered
    from runrails.identity.principal import Principal
    from runrails.keyroutes import Route
    from runrails.run import Run
    from runrails_gateway.config import GatewayConfig, Upstream
    from runrails_gateway.dialects import Ask, Dialect
    from runrails_gateway.upstream.sending import Sender

__all__ = ["Endpoint", "Hot"]

SERVING_MAX, SERVED_CHARS_MAX = 256, 64
"""How many models, with how long names, it is known of who serves them."""
_SERVES = {"openai": ("openai", "bedrock"), "anthropic": ("anthropic", "bedrock")}
"""Which upstreams can answer a dialect."""


class Hot:
    """
    What all requests of a process share. Make it where its event loop runs.

    Args:
        config: The gateway's parts.
        senders: What can send requests, by the upstreams' dialects.
    """

    def __init__(self, config: GatewayConfig, senders: Mapping[str, Sender]) -> None:
        guard = config.guard
        self._config = config
        self._guard = guard
        self._lines = Lines(
            senders, {each.name: Breaker() for each in config.upstreams}, guard.monotonic, random.random
        )  # fmt: skip
        # Conversations are looked at as a whole, with every request; what a run itself hears is no tool's result.
        self._keeper = RunKeeper(guard.monotonic, replace(guard.limits, loops=None))
        self._conversations = Conversations(config)
        self._growing = Growing()
        self._open: set[asyncio.Task[None]] = set()
        self._ends_ms: int | None = None
        self._serving: dict[tuple[str, str], tuple[Upstream, ...]] = {}
        """Who serves which model, by dialect."""

    @property
    def open_requests(self) -> int:
        """How many requests are under way, those included whose callers have left."""
        return len(self._open)

    @property
    def resting(self) -> tuple[str, ...]:
        """Upstreams that are not asked for a moment, as they keep failing."""
        return tuple(name for name, breaker in self._lines.breakers.items() if not breaker.closed)

    def open_runs(self) -> list[Run]:
        """The runs that are kept. Safe in any thread."""
        return self._keeper.open_runs()

    async def check_ready(self) -> None:
        """See whether the ledger can be asked. Raises StoreUnavailable."""
        await aio.off_loop(self._guard, self._guard.store.balance, Account("run:readiness", RUN_PERIOD))

    async def serve(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(
            scope, send, dialect, request_id=f"req_{self._guard.new_id()}", started_ms=self._guard.monotonic()
        )  # fmt: skip
        context = copy_context()
        context.run(self._tell, "began", exchange)
        try:
            entered = await self._enter(exchange, scope["method"])
            raw = await read_body(receive, self._config.limited)
        except Exception as exc:  # noqa: BLE001 -- whatever it is, the caller is told
            await self._refuse(exchange, exc)
            context.run(self._tell, "ended", exchange)
            return
        carried = self._carry(exchange, entered, raw, scope["query_string"], receive)
        task = asyncio.create_task(carried, context=context)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            exchange.leave()
            raise

    def ending(self) -> int:
        """The server begins to end, and waits itself for a while. Until when requests are waited for, all in all."""
        if self._ends_ms is None:
            self._ends_ms = self._guard.monotonic() + self._config.limited.shutdown_ms_max
        return self._ends_ms

    async def close(self) -> None:
        """Wait for what is under way, so long as is allowed; then end it. Everything is settled afterwards."""
        left_ms = self.ending() - self._guard.monotonic()
        if self._open and left_ms > 0:
            await asyncio.wait(set(self._open), timeout=left_ms / 1_000)
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(set(self._open))
        await self._keeper.close()
        self._conversations.close()
        for sender in self._lines.senders.values():
            await sender.close()

    # One request.

    async def _enter(self, exchange: Exchange, method: str) -> Entered:
        """Who it is, and whether they may. Nothing of the body is looked at before."""
        if method != "POST":
            raise NotServed(methods="POST")
        principal = exchange.principal = await caller_of(self._config, exchange.headers)
        return enter(principal, exchange.dialect.operation, guard=self._guard)

    async def _carry(
        self, exchange: Exchange, entered: Entered, raw: bytes, query: bytes, receive: Receive
    ) -> None:  # fmt: skip
        watch: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._config.limited.request_ms_max / 1_000) as timer:
                ask, attempts = self._read(exchange, raw, query)
                if ask.stream:
                    exchange.left = partial(self._drain, timer)
                    watch = asyncio.create_task(_watch(exchange, receive))
                if ask.plan is None:
                    await self._free(exchange, entered, ask, attempts, raw)
                else:
                    await self._paid(exchange, entered, ask, attempts, raw)
        except TimeoutError:
            await self._refuse(exchange, UpstreamError("timed_out", attempts=0))
        except Exception as exc:  # noqa: BLE001 -- whatever it is, the caller is told
            await self._refuse(exchange, exc)
        finally:
            exchange.left = None  # There is no timer any more that it could set.
            if watch is not None:
                watch.cancel()
            self._tell("ended", exchange)

    def _read(self, exchange: Exchange, raw: bytes, query: bytes) -> tuple[Ask, Attempts]:
        dialect = exchange.dialect
        exchange.request_bytes = len(raw)
        principal = exchange.principal
        owner = () if principal is None else (principal.user, principal.org or "")
        body = self._growing.read(raw, operation=dialect.operation, owner=owner, now_ms=exchange.started_ms)
        upstreams = self._upstreams(dialect, body.get("model"))
        attempts = Attempts(self._lines, upstreams, exchange, query)
        if self._guard.cache is None:  # else its answer may be there already
            attempts.check_rest()
        ask = ask_of(exchange, body, upstreams[0])
        exchange.model, exchange.stream = ask.model, ask.stream
        return ask, attempts

    def _upstreams(self, dialect: Dialect, model: object) -> tuple[Upstream, ...]:
        name = model if isinstance(model, str) else ""
        upstreams = self._serving.get((name, dialect.name))
        if upstreams is None:
            upstreams = self._config.serving(name, _SERVES[dialect.name])
            if not upstreams:
                raise ModelNotFound
            if len(self._serving) >= SERVING_MAX:
                self._serving.clear()
            if len(name) <= SERVED_CHARS_MAX:
                self._serving[name, dialect.name] = upstreams
        return upstreams

    async def _paid(self, exchange: Exchange, entered: Entered, ask: Ask, attempts: Attempts, raw: bytes) -> None:
        plan = ask.plan
        if plan is None:
            raise TypeError("what costs nothing is not paid for")
        header = the_header(exchange.headers, b"x-runrails-run")
        talk = await self._conversations.recognise(entered.principal, ask, header=header)
        found = talk.recognised
        exchange.run_id = found.run_id
        if ask.previous_id is not None:
            plan.call = continuing(plan.call, ask, found.keeps)
        note_resent(exchange)
        if exchange.resent or self._guard.saves:
            plan.call = labelled(plan.call, exchange, kinds=self._guard.saves)
        kept = self._keeper.take(entered, found.run_id, found.name, found.steps_before)
        try:
            self._conversations.check(talk, kept.run)
            if self._guard.saves:
                plan, attempts = await self._spared(kept.run, exchange, ask, plan, attempts)
            await Call(
                self._config, exchange, ask, plan, raw, run=kept.run, attempts=attempts,
                remember=partial(self._conversations.answered, talk, exchange),
            ).go()  # fmt: skip
        finally:
            await self._keeper.give(kept)

    async def _spared(
        self, run: Run, exchange: Exchange, ask: Ask, plan: Plan, attempts: Attempts
    ) -> tuple[Plan, Attempts]:  # fmt: skip
        """The request as it is to be sent, where calls are made cheaper."""
        serves = _SERVES[exchange.dialect.name]
        spared = await spare(run, exchange, ask, plan, attempts, lambda model: self._config.serving(model, serves))
        exchange.spared, exchange.model = spared, spared.model
        if spared.shelf is None or spared.shelf.stored is None:
            spared.attempts.check_rest()
        return spared.plan, spared.attempts

    async def _free(
        self, exchange: Exchange, entered: Entered, ask: Ask, attempts: Attempts, raw: bytes
    ) -> None:  # fmt: skip
        answer = await attempts.free_answer(raw, await self._route(entered.principal, ask, attempts.first))
        try:
            if 200 <= answer.status < 300:
                body = await answer.whole(self._config.limited.answer_bytes_max)
                headers = [*about_request(exchange), (b"content-type", b"application/json")]
                exchange.ending = "answered"
            else:
                error = await attempts.error_of(answer)
                headers, body = [*about_request(exchange), *error.headers], error.body
            await exchange.answer(answer.status, headers, body)
        finally:
            answer.close()

    async def _route(self, principal: Principal, ask: Ask, upstream: Upstream) -> Route | None:
        """The key for what costs nothing: the same as for what does. Raises CredentialError."""
        router = self._guard.credentials
        if router is None:
            return None
        call = ModelCall(model=ask.model, provider=upstream.provider, place=upstream.place)
        by = Attribution(user=principal.user, key=principal.key_id, org=principal.org)
        return await aio.off_loop(self._guard, router.route, call, by) if router.remote else router.route(call, by)

    def _drain(self, timer: asyncio.Timeout) -> None:
        """The caller has left: what still comes is read for a while, to learn what it costs."""
        when = timer.when()
        until = asyncio.get_running_loop().time() + self._config.limited.drain_ms_max / 1_000
        if when is not None and until < when and not timer.expired():
            timer.reschedule(until)

    async def _refuse(self, exchange: Exchange, error: Exception) -> None:
        """Tell the caller what went wrong, if they are there and the answer is not over."""
        if isinstance(error, Left):
            exchange.leave()
        exchange.error = error
        exchange.ending = "left" if exchange.gone else "failed" if isinstance(error, UpstreamError) else "refused"
        if not isinstance(error, RunrailsError | Left):
            self._guard.emit("request_failed", "error", request=exchange.id, error=type(error).__name__)
        told = exchange.told = tell(
            error, request_id=exchange.id, hide_amounts=self._config.hide_amounts, run_id=exchange.run_id,
            zone=self._guard.zone,
        )  # fmt: skip
        if exchange.begun:
            if not exchange.complete:
                await exchange.body(exchange.dialect.event(told) if exchange.stream else b"", more=False)
            return
        known = dict(told.headers)
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in known.items()]
        headers += [pair for pair in about_request(exchange) if pair[0].decode() not in known]
        headers.append((b"content-type", b"application/json"))
        await exchange.answer(told.status, headers, exchange.dialect.refusal(told))

    def _tell(self, what: Literal["began", "ended"], exchange: Exchange) -> None:
        for watcher in self._config.watchers:
            try:
                if what == "began":
                    watcher.began(exchange)
                else:
                    watcher.ended(exchange)
            except Exception as exc:  # noqa: BLE001 -- it watches: a bug of its own must not change what callers get
                self._guard.emit("watcher_failed", "error", error=type(exc).__name__)


class Endpoint:
    """A route of the hot path, as an ASGI application."""

    __slots__ = ("_dialect", "_hot")

    def __init__(self, hot: Hot, dialect: Dialect) -> None:
        self._hot = hot
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Hot.serve`."""
        await self._hot.serve(self._dialect, scope, receive, send)


async def _watch(exchange: Exchange, receive: Receive) -> None:
    """Notice that the caller hangs up."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            exchange.leave()
            return
