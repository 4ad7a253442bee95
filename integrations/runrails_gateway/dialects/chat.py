"""OpenAI's chat completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.clients.wireplans import chat_plan
from runrails.request_wire import openai_chat
from runrails.tiers import premium_tier
from runrails_gateway.dialects.asking import (
    Via,
    check_answers,
    check_count,
    check_list,
    check_names,
    flag,
    model_call,
    named_model,
)
from runrails_gateway.dialects.base import Ask
from runrails_gateway.dialects.wording import openai_error, openai_event
from runrails_gateway.errors import BadRequest
from runrails_gateway.growing import measured_of

if TYPE_CHECKING:
    from runrails.keyroutes import KeyPlace
    from runrails_gateway.dialects.base import Body, Dialect, Vendor
    from runrails_gateway.dialects.told import Told

__all__ = ["CHAT"]


class _Chat:
    name: Vendor = "openai"
    path = "/chat/completions"
    operation = "chat.complete"

    def read(
        self, body: Body, *, provider: str | None = None, place: KeyPlace | None = None, region: str | None = None,
        user_agent: str = "", retries: int = 0,
    ) -> Ask:  # fmt: skip
        check_names(body)
        model, stream = named_model(body), flag(body, "stream")
        _check(body)
        tier = premium_tier(body)
        wire = openai_chat(body if tier is None else {**body, "service_tier": None}, measured_of(body))
        call = model_call(
            wire, Via(provider, place, region, user_agent, retries), endpoint=self.path, tier=tier
        )  # fmt: skip
        plan = chat_plan(body, wire, call, relayed=True)
        return Ask(operation=self.operation, model=model, stream=stream, body=body, plan=plan, user_agent=user_agent)

    def refusal(self, told: Told) -> bytes:
        return openai_error(told)

    def event(self, told: Told) -> bytes:
        return openai_event(told)


def _check(body: Body) -> None:
    check_list(body, "messages", needed=True)
    check_answers(body)
    check_count(body, "max_tokens")
    check_count(body, "max_completion_tokens")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        # One server obeys the one, another the other.
        raise BadRequest(
            "invalid_value", "`max_tokens` and `max_completion_tokens` are both given.", next_step="Send one of them.",
            param="max_completion_tokens",
        )  # fmt: skip
    for name in ("tools", "functions"):
        check_list(body, name)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("invalid_type", "`stream_options` must be an object.", param="stream_options")


CHAT: Dialect = _Chat()
