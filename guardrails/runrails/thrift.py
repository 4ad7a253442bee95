"""
Cheaper calls in a run: which model a call goes to, what of its conversation is sent, and what that came to save.

Nothing here is asked unless the run's limits or its guard say so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from runrails import bounds
from runrails.anchoring import CHARS_A_TOKEN_MAX
from runrails.attribution import Attribution
from runrails.calls import Economy
from runrails.errors import PriceUnknown, RunrailsError
from runrails.figures import marked_up
from runrails.pricing.cards import cost_pusd
from runrails.savers.shares import reached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runrails.calls import ModelCall, ModelResult, Permit, Prompt
    from runrails.pricing.book import PriceBook
    from runrails.pricing.cards import PriceCard
    from runrails.run import Run
    from runrails.savers.pruning import Pruning
    from runrails.savers.routing import Downgrade
    from runrails.usage import Usage

__all__ = [
    "ContextWatch", "asked_as", "carried", "caught_up", "chars_of", "cheaper_model", "downgrade_of", "ended",
    "pruning_of", "shortened_to", "tell_of_refusal", "tell_unchanged",
]  # fmt: skip

OUTPUT_TYPICAL_TOKENS = 1_024
"""The output that two models are compared by where the call has no cap."""
KIND = "kind"
"""The tag that names a call's kind."""
ASKED_MODEL = "asked_model"
"""The tag that names the model which was asked for, in the record of a call that went to a cheaper one."""
Objection = Literal["not_cheaper", "unpriced", "unbounded", "context", "output", "adapter", "no_model"]


def pruning_of(run: Run) -> Pruning | None:
    """What the run, or the next one around it that says so, wants of long conversations."""
    return next((tally.limits.pruning for tally in run.tally.chain() if tally.limits.pruning is not None), None)


def downgrade_of(run: Run) -> Downgrade | None:
    """The same for cheaper models."""
    return next((tally.limits.downgrade for tally in run.tally.chain() if tally.limits.downgrade is not None), None)


def chars_of(prompt: Prompt) -> int:
    """How much text a prompt is."""
    return sum(map(len, prompt.texts)) + sum(map(len, prompt.tools))


def cheaper_model(run: Run, call: ModelCall) -> str | None:
    """
    The model that `call` is to be sent to in place of its own; None if it stays.

    Where the limits name a model that would not do, the call stays, and an event says why, once a run and model.
    """
    rule = downgrade_of(run)
    if rule is None or call.request_type == "embedding":  # another model's vectors are of no use
        return None
    try:
        kind = dict(run.accounts.payer(call).tags).get(KIND)
    except RunrailsError:
        return None  # Asked for it is refused, with its reason.
    spent = tuple([(tally.cost_pusd, tally.limits.run_pusd) for tally in run.tally.chain()])
    model = rule.model_for(call.model, kind=kind, spent=spent)
    if model is None:
        return None
    objection = _objection(run, call, model)
    if objection is None:
        return model
    tell_of_refusal(run, call.model, model, objection)
    return None


def _objection(run: Run, call: ModelCall, model: str) -> Objection | None:
    """Why a call cannot go to that model; None if it can."""
    prices, now_ms = run.guard.prices, run.guard.clock()
    try:
        asked = prices.card(call.model, provider=call.provider, now_ms=now_ms, region=call.region)
        other = prices.card(model, provider=call.provider, now_ms=now_ms, region=call.region)
    except PriceUnknown:
        return "unpriced"
    try:
        inputs = bounds.input_tokens_bound(call.prompt, provider=other.provider, model=other.model)
        if not _is_cheaper(other, asked, call, inputs):
            return "not_cheaper"
    except RunrailsError:
        return "unbounded"
    window = other.context_tokens_max
    # Providers refuse a request whose input and cap together do not fit.
    needed = inputs + (call.max_tokens or 0)
    if window is not None and needed > window and (asked.context_tokens_max or window + 1) > window:
        return "context"
    if other.output_tokens_max is not None and (call.max_tokens or 0) > other.output_tokens_max:
        return "output"
    return None


def _is_cheaper(other: PriceCard, asked: PriceCard, call: ModelCall, inputs: int) -> bool:
    """
    Whether the call is cheaper there by its bound, and dearer in no case below: nobody knows how long the answer gets.

    Of prices that cross each other (cheaper to read, dearer to write) neither is the cheaper one.
    """
    outputs = call.max_tokens or OUTPUT_TYPICAL_TOKENS
    fewer = inputs // CHARS_A_TOKEN_MAX
    corners = ((inputs, outputs), (inputs, 0), (fewer, outputs), (fewer, 0))
    differences = [_bound(asked, call, *corner) - _bound(other, call, *corner) for corner in corners]
    return differences[0] > 0 and min(differences) >= 0


def _bound(card: PriceCard, call: ModelCall, input_tokens: int, output_tokens: int) -> int:
    return bounds.call_bound_pusd(
        card, input_tokens=input_tokens, output_tokens=output_tokens, n=call.n, cache_write=call.cache_write,
        service_tier=call.service_tier,
    )  # fmt: skip


def asked_as(run: Run, asked: ModelCall, call: ModelCall) -> ModelCall:
    """The call that takes the place of `asked`, which went to a dearer model; its record says so in a tag."""
    economy = (asked.economy or Economy())._replace(asked_model=asked.model)
    by = asked.by
    try:
        tag = Attribution(tags={ASKED_MODEL: asked.model})
        tag.over(run.accounts.payer(asked))
        by = tag if by is None else tag.over(by)
    except RunrailsError:
        pass  # Sixteen tags there are already, or the name cannot be one: the report tells it all the same.
    return replace(call, economy=economy, by=by)


def caught_up(run: Run, spent_pusd: int) -> None:
    """A run has spent so much in all processes together, as its account says; shares of its budget are of that."""
    with run.latch.lock:
        run.tally.cost_pusd = max(run.tally.cost_pusd, spent_pusd)


def shortened_to(whole: ModelCall, call: ModelCall, left_out: int) -> ModelCall:
    """The call that takes the place of `whole`, of whose conversation that many messages are left out."""
    sent = chars_of(call.prompt)
    economy = Economy(left_out_messages=left_out, left_out_chars=max(0, chars_of(whole.prompt) - sent), sent_chars=sent)
    return replace(call, economy=economy)


def carried(planned: ModelCall, call: ModelCall) -> ModelCall:
    """A call as a layer below sees it, with what the layer above has done to it."""
    if planned.economy is None or planned.model != call.model:
        return call
    return replace(call, economy=planned.economy, by=planned.by)


def tell_unchanged(run: Run, call: ModelCall) -> None:
    """For an adapter that cannot change a request: tell that a call should have gone to a cheaper model."""
    model = cheaper_model(run, call)
    if model is not None:
        tell_of_refusal(run, call.model, model, "adapter")


def tell_of_refusal(run: Run, asked: str, model: str, reason: Objection) -> None:
    """A call stays with its model though the limits name a cheaper one: tell why, once a run, model and reason."""
    told = run.adapters.setdefault(_Told, _Told())
    if isinstance(told, _Told) and told.first((asked, model, reason)):
        run.guard.emit("downgrade_refused", "warning", run=run.id, model=asked, cheaper_model=model, reason=reason)


class _Told:
    """What a run's owner has been told already."""

    def __init__(self) -> None:
        self._told: set[object] = set()

    def first(self, what: object) -> bool:
        if what in self._told:
            return False
        self._told.add(what)
        return True


# When a call has ended.


def ended(run: Run, permit: Permit, result: ModelResult, usage: Usage | None) -> None:
    """
    A call of the run has ended: count what was saved, and tell if its conversation is getting too long. Never raises.

    Args:
        run: The run.
        permit: The call.
        result: What came of it.
        usage: What was reported of it.
    """
    try:
        card = _card_of(run.guard.prices, permit, permit.call.model)
        savings = _savings(run, permit, result, card, usage)
        with run.latch.lock:
            for each in savings:
                run.tally.saved(each.what, each.tokens, each.pusd)
        for each in savings:
            run.guard.emit(each.event, "info", run=run.id, model=permit.call.model, saved_pusd=each.pusd, **each.fields)
        pruning = pruning_of(run)
        if pruning is not None:
            watch = run.adapters.setdefault(ContextWatch, ContextWatch())
            if isinstance(watch, ContextWatch):
                watch.look(run, permit, card, usage, pruning)
    except Exception as exc:  # noqa: BLE001 -- it observes
        run.guard.emit("savings_failed", "error", run=run.id, reason=type(exc).__name__)


class _Saved(NamedTuple):
    what: str
    event: str
    tokens: int
    pusd: int
    fields: Mapping[str, str | int]


def _savings(
    run: Run, permit: Permit, result: ModelResult, card: PriceCard | None, usage: Usage | None
) -> list[_Saved]:
    """What a call's savers saved. What cannot be told, as no usage was reported, is 0."""
    call, markup_bp = permit.call, 0 if (permit.by or run.attribution).byok else run.guard.markup_bp

    def cost(card: PriceCard, usage: Usage) -> int:
        return marked_up(cost_pusd(card, usage), markup_bp)

    if result.end == "cached":
        stored = result.stored_usage
        if stored is None:
            return []
        saved = 0 if card is None else cost(card, stored)
        return [_Saved("cache", "response_cached", stored.input_tokens + stored.output_tokens, saved, {})]
    economy, found = call.economy, list[_Saved]()
    if economy is None or result.end == "failed":
        return found
    if economy.left_out_messages:
        tokens, saved = 0, 0
        if usage is not None and card is not None and economy.sent_chars:
            tokens = economy.left_out_chars * usage.input_tokens // economy.sent_chars
            saved = cost(card, replace(usage, input_tokens=usage.input_tokens + tokens)) - cost(card, usage)
        told = {"messages_left_out": economy.left_out_messages, "messages_sent": call.prompt.messages}
        found.append(_Saved("pruning", "conversation_pruned", tokens, saved, told))
    if economy.asked_model is not None:
        asked = _card_of(run.guard.prices, permit, economy.asked_model)
        saved = 0
        if usage is not None and card is not None and asked is not None:
            saved = cost(asked, usage) - cost(card, usage)
        found.append(_Saved("downgrade", "model_downgraded", 0, saved, {"asked_model": economy.asked_model}))
    return found


def _card_of(prices: PriceBook, permit: Permit, model: str) -> PriceCard | None:
    call = permit.call
    try:
        return prices.card(model, provider=call.provider, now_ms=permit.started_ms, region=call.region)
    except PriceUnknown:
        return None


class ContextWatch:
    """Tells once a run that its conversation fills what it may: the number of messages, or the model's window."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: set[str] = set()

    def look(
        self, run: Run, permit: Permit, card: PriceCard | None, usage: Usage | None, pruning: Pruning
    ) -> None:  # fmt: skip
        """Look at a call that has ended."""
        window = None if card is None else card.context_tokens_max
        for what, used, whole in (
            ("messages", permit.call.prompt.messages, pruning.after_messages),
            ("context", 0 if usage is None else usage.input_tokens, window),
        ):
            if what not in self._told and whole is not None and reached(used, whole, pruning.share):
                self._told.add(what)
                run.guard.emit(
                    "context_filling", "warning", run=run.id, model=permit.call.model, what=what, used=used, limit=whole
                )
