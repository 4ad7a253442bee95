"""
Cheaper requests through the gateway: a shorter conversation, a cheaper model, or an answer that is there already.

Each is off unless the guard or its limits say so. All of it saves money and decides nothing: whatever goes wrong here
is an event, and the request goes out as it was. What was done is told in headers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runrails import aio
from runrails.calls import Economy
from runrails.clients.shelving import shelf_of
from runrails.ledger import RUN_PERIOD, Account
from runrails.savers.wire import shorter
from runrails.thrift import asked_as, caught_up, cheaper_model, downgrade_of, pruning_of, shortened_to, tell_of_refusal
from runrails_gateway.exchange import header_of
from runrails_gateway.reading import ask_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runrails.clients.plan import Plan
    from runrails.clients.shelving import Shelf
    from runrails.run import Run
    from runrails_gateway.config import Upstream
    from runrails_gateway.dialects import Ask
    from runrails_gateway.exchange import Exchange
    from runrails_gateway.upstream.attempts import Attempts
    from runrails_gateway.upstream.headers import Pairs

__all__ = ["Serving", "Spared", "spare"]

Serving: TypeAlias = "Callable[[str], tuple[Upstream, ...]]"
"""Who serves a model in a request's dialect; none if nobody does."""
_NO_STORED = frozenset({"no-cache", "no-store"})


class Spared(NamedTuple):
    """A request as it is to be sent, if it has to be."""

    plan: Plan
    attempts: Attempts
    model: str
    shelf: Shelf | None
    """Where its answer is kept, and that answer if it is there already."""
    headers: Pairs
    """What was done, as the caller is told."""


class _Sent:
    """A request on its way to being cheaper."""

    def __init__(self, ask: Ask, plan: Plan, attempts: Attempts) -> None:
        self.body = dict(ask.body)
        self.changes: dict[str, object] = {}
        """Members of the request's JSON that are replaced."""
        self.plan = plan
        self.attempts = attempts
        self.model = ask.model
        self.headers: Pairs = []

    def take(self, name: str, value: object, plan: Plan) -> None:
        """Send another value, which has been read as `plan`."""
        self.body[name] = self.changes[name] = value
        plan.changes = {**plan.changes, **self.changes}
        self.plan = plan


async def spare(run: Run, exchange: Exchange, ask: Ask, plan: Plan, attempts: Attempts, serving: Serving) -> Spared:
    """
    What is to be sent of a request that is about to be sent in a run. Never raises.

    Args:
        run: The run.
        exchange: The request.
        ask: What it asks for.
        plan: What that may cost.
        attempts: Whom it goes to.
        serving: Who serves another model.
    """
    sent = _Sent(ask, plan, attempts)
    if run.guard.mode != "observe":  # which changes no request
        _tried(run, lambda: _shorten(run, exchange, sent))
        _tried(run, lambda: _cheapen(run, exchange, sent, serving))
    shelf = None
    if run.guard.cache is not None:
        shelf = None if _unwanted(exchange) else await _looked(run, sent)
        told = b"bypass" if shelf is None else b"miss" if shelf.stored is None else b"hit"
        sent.headers.append((b"x-runrails-cache", told))
    return Spared(sent.plan, sent.attempts, sent.model, shelf, sent.headers)


def _tried(run: Run, step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as exc:  # noqa: BLE001 -- it only saves money
        _failed(run, exc)


def _failed(run: Run, error: Exception) -> None:
    run.guard.emit(
        "adapter_failed", "error", adapter="gateway", hook="sparing", error=type(error).__name__, run=run.id
    )  # fmt: skip


def _shorten(run: Run, exchange: Exchange, sent: _Sent) -> None:
    pruning, call = pruning_of(run), sent.plan.call
    cut = None if pruning is None else shorter(call.endpoint, sent.body, pruning)
    if cut is None:
        return
    made = ask_of(exchange, {**sent.body, cut.key: cut.messages}, sent.attempts.first).plan
    if made is not None:
        made.call = shortened_to(call, replace(made.call, by=call.by), cut.left_out)
        sent.take(cut.key, cut.messages, made)
        sent.headers.append((b"x-runrails-pruned-messages", b"%d" % cut.left_out))


def _cheapen(run: Run, exchange: Exchange, sent: _Sent, serving: Serving) -> None:
    rule, call = downgrade_of(run), sent.plan.call
    if rule is None:
        return
    if rule.share is not None and not run.guard.store.remote:
        # Other workers may have spent of it, and this one before it let go of the run.
        caught_up(run, run.guard.store.balance(Account(run.tally.scope, RUN_PERIOD)).spent)
    model = cheaper_model(run, call)
    if model is None:
        return
    attempts = sent.attempts.toward(serving(model))
    if attempts is None:  # Nobody serves it at prices, and on keys, that these are compared by.
        tell_of_refusal(run, call.model, model, "adapter")
        return
    made = ask_of(exchange, {**sent.body, "model": model}, attempts.first).plan
    if made is not None and made.call.model == model:
        made.call = asked_as(run, call, replace(made.call, by=call.by))
        sent.take("model", model, made)
        sent.attempts = attempts
        sent.headers += [(b"x-runrails-model", model.encode()), (b"x-runrails-downgraded-from", sent.model.encode())]
        sent.model = model


def _unwanted(exchange: Exchange) -> bool:
    """Whether the caller wants an answer of its own, as HTTP has words for that."""
    told = header_of(exchange.headers, b"cache-control")
    return told is not None and not _NO_STORED.isdisjoint(part.strip().lower() for part in told.split(","))


async def _looked(run: Run, sent: _Sent) -> Shelf | None:
    """Where the answer is kept, and whether it is there; None if it is not to be kept."""
    cache = run.guard.cache
    if cache is None:
        return None
    try:
        shelf = shelf_of(run, cache, sent.plan, sent.body, sent.attempts.asked)
        if shelf is None:
            return None
        if cache.waits:
            await aio.off_loop(run.guard, shelf.look, sent.plan)
        else:
            shelf.look(sent.plan)
    except Exception as exc:  # noqa: BLE001 -- it only saves money
        _failed(run, exc)
        return None
    if shelf.stored is not None:
        # What was done to the request beside that saved nothing: it is not sent.
        sent.plan.call = replace(sent.plan.call, economy=Economy(stored=True))
    return shelf
