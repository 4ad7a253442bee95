"""One call that costs money, from its permit to its settlement: sent, passed on, settled before its last byte is."""

from __future__ import annotations

import json
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias, cast

from runrails import aio
from runrails.calls import ModelResult
from runrails.clients.plan import capped
from runrails.errors import GuardFault
from runrails_gateway.dialects import tell, with_changes
from runrails_gateway.errors import UpstreamError
from runrails_gateway.figures import about_call
from runrails_gateway.ticket import Ticket
from runrails_gateway.upstream.headers import passed_back
from runrails_gateway.upstream.sending import AnswerTooLarge, NoAnswer
from runrails_gateway.upstream.streaming import Passing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from runrails.calls import Permit
    from runrails.clients.plan import Leaving, Plan
    from runrails.clients.shelving import Shelf
    from runrails.keyroutes import Route
    from runrails.run import Run
    from runrails_gateway.config import GatewayConfig
    from runrails_gateway.dialects import Ask
    from runrails_gateway.exchange import Exchange
    from runrails_gateway.upstream.attempts import Attempts
    from runrails_gateway.upstream.headers import Pairs
    from runrails_gateway.upstream.sending import Answer

__all__ = ["Call", "Remember"]

Remember: TypeAlias = "Callable[[bytes | Mapping[str, object]], Awaitable[None]]"
"""Told of every answer: a whole one's JSON, or all bytes of a stream."""
_STREAMED = "text/event-stream"
_AS_IT_COMES = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""So that no proxy in front gathers a stream before it passes it on."""
_DONE = ModelResult(end="completed")


class Call:
    """A request that was read and whose run may go on."""

    def __init__(
        self, config: GatewayConfig, exchange: Exchange, ask: Ask, plan: Plan, raw: bytes, *, run: Run,
        attempts: Attempts, remember: Remember,
    ) -> None:  # fmt: skip
        self._config = config
        self._exchange = exchange
        self._ask = ask
        self._plan = plan
        self._raw = raw
        self._run = run
        self._attempts = attempts
        self._remember = remember
        self._shelf = None if exchange.spared is None else exchange.spared.shelf
        """Where its answer is kept, if it is, and what is there already."""

    async def go(self) -> None:
        """
        Make it; once more where its key is refused and another may pay.

        Raises:
            GuardrailStopped, CallRefused: It may not be made; nothing was sent.
            UpstreamError: There is no answer to pass on.
        """
        if self._shelf is not None and self._shelf.stored is not None:
            await self._stored(self._shelf.stored, self._shelf.body or b"")
            return
        refused: Route | None = None
        while True:
            began_s = perf_counter()
            permit = await aio.before_model(self._run, self._plan.call, sends=True)
            ticket = self._exchange.ticket = Ticket(self._run, permit, perf_counter() - began_s)
            try:
                refused = await self._carry(ticket, may_fall_back=refused is None)
            except BaseException:
                await ticket.settle_unanswered()
                raise
            if refused is None:
                return

    async def _stored(self, stored: ModelResult, raw: bytes) -> None:
        """An answer that is there already: a step of the run, for which nothing is sent and nothing is paid."""
        exchange = self._exchange
        permit = await aio.before_model(self._run, self._plan.call, sends=True)
        ticket = exchange.ticket = Ticket(self._run, permit)
        await self._settle(ticket, stored)
        body = _decoded(raw)
        if body is not None:
            await self._answered(ticket, body)
        await exchange.answer(200, [*about_call(exchange, self._config), (b"content-type", b"application/json")], raw)
        exchange.ending = "left" if exchange.gone else "answered"

    async def _carry(self, ticket: Ticket, *, may_fall_back: bool) -> Route | None:
        """Send it and pass on what comes. The key, if it was refused and another one may be tried."""
        exchange, route = self._exchange, ticket.permit.route
        if exchange.gone:  # Its caller left while it waited for money.
            await ticket.settle_unanswered()
            return None
        body = self._body(ticket.permit)
        answer = await self._attempts.answer(ticket, body, lambda: exchange.gone)
        try:
            if 200 <= answer.status < 300:
                await self._pass(ticket, answer)
                return None
            error = await self._attempts.error_of(answer)
            await self._settle(ticket, ModelResult(end="failed"))
            if answer.status == 401 and route is not None and route.secret is not None:
                again = await self._refused(route)
                if again and may_fall_back:
                    return route
            exchange.ending = "failed"
            headers = [*about_call(exchange, self._config), *error.headers]
            await exchange.answer(answer.status, headers, error.body)
        finally:
            answer.close()
        return None

    def _body(self, permit: Permit) -> bytes:
        changes = capped(self._plan, permit)
        if not changes:
            return self._raw
        try:
            return with_changes(self._raw, self._ask.body, changes)
        except Exception as exc:
            raise GuardFault(
                f"Putting the limits into the request failed: {type(exc).__name__}.",
                next_step="The call was not started. Please report this with the traceback.",
            ) from exc

    async def _refused(self, route: Route) -> bool:
        """The provider has refused a key of the vault: mark it. Whether the next one may be tried."""
        guard = self._run.guard
        router = guard.credentials
        if router is None:
            return False
        try:
            return await aio.off_loop(guard, router.refused, route) if router.remote else router.refused(route)
        except Exception as exc:  # noqa: BLE001 -- the provider's answer is the caller's to see
            guard.emit("credential_not_marked", "error", credential=route.name, error=type(exc).__name__)
            return False

    # Passing an answer on.

    async def _pass(self, ticket: Ticket, answer: Answer) -> None:
        exchange, reader = self._exchange, self._plan.stream
        failed = had_all = False
        if reader is not None and answer.headers.get("content-type", "").startswith(_STREAMED):
            had_all = await self._stream(ticket, answer, Passing(ticket, reader))
            # Whoever gave up in the middle has said so in the stream: we, or the provider.
            failed = reader.failed or exchange.told is not None
        else:
            await self._whole(ticket, answer)
        left = exchange.gone and not had_all
        exchange.ending = "left" if left else "failed" if failed else "answered"

    async def _whole(self, ticket: Ticket, answer: Answer) -> None:
        try:
            raw = await answer.whole(self._config.limited.answer_bytes_max)
        except NoAnswer as exc:
            raise UpstreamError("timed_out" if exc.timed_out else "garbled", attempts=self._attempts.made) from None
        except AnswerTooLarge:
            raise UpstreamError("garbled", attempts=self._attempts.made) from None
        body = _decoded(raw)
        result = _DONE if body is None else self._read(ticket, body)
        await self._settle(ticket, result)
        if self._shelf is not None:
            await self._kept(self._shelf, answer.status, raw, ticket.permit, result)
        if body is not None:
            await self._answered(ticket, body)
        await self._exchange.answer(answer.status, self._headers(ticket, answer), raw)

    async def _kept(self, shelf: Shelf, status: int, raw: bytes, permit: Permit, result: ModelResult) -> None:
        """Keep the answer for whoever asks the same again."""
        if shelf.cache.waits:
            await aio.off_loop(self._run.guard, shelf.keep_body, status, raw, permit, result)
        else:
            shelf.keep_body(status, raw, permit, result)

    def _read(self, ticket: Ticket, body: Mapping[str, object]) -> ModelResult:
        """What an answer says it came to. Never raises: what cannot be read is settled at the hold."""
        try:
            return self._plan.answer(body)
        except Exception as exc:  # noqa: BLE001 -- the answer is the caller's
            ticket.failed(exc)
            return ModelResult(end="unknown")

    async def _stream(self, ticket: Ticket, answer: Answer, passing: Passing) -> bool:
        """Whether the caller has had the last event, after which nobody need wait for the end of the connection."""
        exchange, had_all = self._exchange, False
        how: Leaving = "lost"
        try:
            await exchange.start(answer.status, [*self._headers(ticket, answer), *_AS_IT_COMES])
            left_at: int | None = None
            while True:
                data = await answer.piece()
                if not data:
                    how = "ended"
                    break
                shown = self._fed(passing, data)
                if passing.coming.grown and not await passing.may_go_on():
                    await self._break_off(ticket, answer, passing, shown)
                    return False
                if passing.over and ticket.open:
                    await self._end_stream(ticket, passing, "lost" if passing.reader.failed else "ended")
                if shown and not exchange.gone:
                    await exchange.body(shown, more=True)
                    had_all = had_all or (passing.over and not exchange.gone)
                if exchange.gone:
                    left_at = passing.size if left_at is None else left_at
                    if passing.size - left_at > self._config.limited.drain_bytes_max:
                        how = "left"
                        break
            rest = passing.rest()
        except NoAnswer as exc:
            if not ticket.open:  # The last event was there already.
                await exchange.body(b"", more=False)
                return had_all
            await self._end_stream(ticket, passing, "lost")
            await self._say(UpstreamError("timed_out" if exc.timed_out else "failed", attempts=self._attempts.made))
            return False
        except BaseException:
            await self._end_stream(ticket, passing, "left")
            raise
        await self._end_stream(ticket, passing, how)
        await exchange.body(rest, more=False)
        return had_all

    def _fed(self, passing: Passing, data: bytes) -> bytes:
        """A piece that has been read along with. Raises NoAnswer for one of too many."""
        shown = passing.feed(data)
        if passing.size > self._config.limited.answer_bytes_max:
            raise NoAnswer(sent=True, timed_out=False)
        return shown

    async def _end_stream(self, ticket: Ticket, passing: Passing, how: Leaving) -> None:
        if not ticket.open:
            return
        await self._settle(ticket, passing.result(how))
        whole = passing.whole
        if how == "ended" and whole is not None:
            await self._answered(ticket, whole)

    async def _break_off(self, ticket: Ticket, answer: Answer, passing: Passing, shown: bytes) -> None:
        """What comes is worth more than can be paid for: close it upstream, and say why."""
        answer.close()
        await self._end_stream(ticket, passing, "left")
        refusal = passing.refusal
        if refusal is not None:
            self._run.guard.emit(
                "stream_closed", "warning", run=self._run.id, reservation=ticket.permit.id, reason=refusal.code
            )
            if shown:
                await self._exchange.body(shown, more=True)
            await self._say(refusal)

    async def _say(self, error: Exception) -> None:
        """An error in a stream that has begun, which ends with it."""
        exchange = self._exchange
        told = exchange.told = tell(
            error, request_id=exchange.id, hide_amounts=self._config.hide_amounts, run_id=self._run.id,
            zone=self._run.guard.zone,
        )  # fmt: skip
        exchange.ending = "failed"
        await exchange.body(exchange.dialect.event(told), more=False)

    async def _settle(self, ticket: Ticket, result: ModelResult) -> None:
        self._exchange.result = result
        await ticket.settle(result)

    async def _answered(self, ticket: Ticket, answer: bytes | Mapping[str, object]) -> None:
        """Remember the answer, so that the conversation is known again. Never raises."""
        try:
            await self._remember(answer)
        except Exception as exc:  # noqa: BLE001 -- the answer is the caller's
            ticket.failed(exc)

    def _headers(self, ticket: Ticket, answer: Answer) -> Pairs:
        route = ticket.permit.route
        byok = route is not None and route.byok
        return [*about_call(self._exchange, self._config), *passed_back(answer.headers, byok=byok)]


def _decoded(raw: bytes) -> Mapping[str, object] | None:
    try:
        body: object = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, object]", body) if isinstance(body, dict) else None
