"""The two passes of an incident: as the defaults allow it, and with a guard at its default settings."""

from __future__ import annotations

import time
from itertools import accumulate
from typing import TYPE_CHECKING, cast

from runrails import Guard, GuardrailStopped, Limits
from runrails.clocks import system_ms
from runrails.demo.figures import Stopped
from runrails.demo.incidents.executors import Tool, perform
from runrails.demo.incidents.script import script_of
from runrails.demo.incidents.values import Incident, IncidentPass, IncidentPlay
from runrails.demo.passes import quieten
from runrails.pricing.book import PriceBook
from runrails.pricing.cards import cost_pusd
from runrails.testing.provider import FakeProvider

if TYPE_CHECKING:
    from runrails.ledger import SupportsUsage
    from runrails.pricing.cards import PriceCard

__all__ = ["play_twice"]


def play_twice(incident: Incident) -> IncidentPlay:
    """Play both passes, each with a provider and a tool of its own."""
    quieten()
    card = PriceBook.load(None, None).card(incident.model, provider=incident.provider, now_ms=system_ms())
    return IncidentPlay(
        incident=incident,
        card=card,
        unguarded=_pass(incident, card, guarded=False),
        guarded=_pass(incident, card, guarded=True),
        full_pusd=incident.growth.cost_pusd(card, incident.calls_full),
    )


def _pass(incident: Incident, card: PriceCard, *, guarded: bool) -> IncidentPass:
    tool = Tool(incident)
    started = time.perf_counter()
    ledger_pusd, stopped = None, None
    with FakeProvider(script_of(incident)) as provider:
        if guarded:
            ledger_pusd, stopped = _guarded(incident, tool, provider.openai_url)
        else:
            perform(incident, tool, base_url=provider.openai_url, guard=None)
        seconds = time.perf_counter() - started
        billed = tuple(call.usage for call in provider.bill)
    return IncidentPass(
        billed=billed,
        curve_pusd=tuple(accumulate(cost_pusd(card, usage) for usage in billed)),
        executed=tool.executed,
        ledger_pusd=ledger_pusd,
        stopped=stopped,
        seconds=seconds,
    )


def _guarded(incident: Incident, tool: Tool, base_url: str) -> tuple[int, Stopped | None]:
    """What the ledger says, and how the guard ended it."""
    stopped: Stopped | None = None
    with Guard(Limits(), user="demo", store="memory:", sinks=()) as guard:
        try:
            perform(incident, tool, base_url=base_url, guard=guard)
        except GuardrailStopped as stop:
            stopped = Stopped(reason=stop.stop_reason, exception=type(stop).__name__, message=str(stop))
        guard.flush()
        records = cast("SupportsUsage", guard.store).usage(user=guard.user)
        return sum(record.actual_pusd or 0 for record in records), stopped
