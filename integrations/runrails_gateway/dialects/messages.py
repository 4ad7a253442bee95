"""Anthropic's messages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runrails.answers.anthropic import MessageEvents, answer
from runrails.clients.plan import Plan
from runrails.clients.sse import SseReader
from runrails.request_wire import anthropic_messages
from runrails_gateway.dialects.asking import (
    Via,
    check_count,
    check_list,
    check_names,
    flag,
    model_call,
    named_model,
    refuse,
)
from runrails_gateway.dialects.base import Ask
from runrails_gateway.dialects.wording import anthropic_error, anthropic_event
from runrails_gateway.errors import BadRequest
from runrails_gateway.growing import measured_of

if TYPE_CHECKING:
    from runrails.keyroutes import KeyPlace
    from runrails_gateway.dialects.base import Body, Dialect, Vendor
    from runrails_gateway.dialects.told import Told

__all__ = ["MESSAGES", "check_messages"]

_NOTHING: Body = {}
_named = partial(answer, names_model=True)
_unnamed = partial(answer, names_model=False)


class _Messages:
    name: Vendor = "anthropic"
    path = "/v1/messages"
    operation = "messages.create"

    def read(
        self, body: Body, *, provider: str | None = None, place: KeyPlace | None = None, region: str | None = None,
        user_agent: str = "", retries: int = 0,
    ) -> Ask:  # fmt: skip
        check_names(body)
        model, stream = named_model(body), flag(body, "stream")
        check_messages(body)
        check_count(body, "max_tokens")
        if body.get("max_tokens") is None:
            raise BadRequest("missing_max_tokens", "`max_tokens` is missing.", next_step="Set it.", param="max_tokens")
        # It is kept for the account, which many share here.
        refuse(body, "thread", "Conversations in the provider's keeping are not served.")
        wire = anthropic_messages(body, measured_of(body))
        call = model_call(
            wire, Via(provider, place, region, user_agent, retries), endpoint=self.path, can_cap=not wire.reasoning
        )  # fmt: skip
        names = provider != "bedrock"  # There its answers name the model as Anthropic does, and that has no price.
        reader = None
        if stream:
            reader = SseReader(MessageEvents(reasoning=wire.reasoning, names_model=names), whole_lines=True)
        plan = Plan(call, _named if names else _unnamed, reader, _NOTHING, "max_tokens")
        return Ask(operation=self.operation, model=model, stream=stream, body=body, plan=plan, user_agent=user_agent)

    def refusal(self, told: Told) -> bytes:
        return anthropic_error(told)

    def event(self, told: Told) -> bytes:
        return anthropic_event(told)


def check_messages(body: Body) -> None:
    """What a request to count tokens has as well. Raises BadRequest."""
    check_list(body, "messages", needed=True)
    check_list(body, "tools")
    if not isinstance(body.get("system"), str | list | None):
        raise BadRequest("invalid_type", "`system` must be a text or a list.", param="system")


MESSAGES: Dialect = _Messages()
