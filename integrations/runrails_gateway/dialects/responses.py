"""OpenAI's responses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runrails.clients.wireplans import response_plan
from runrails.request_wire import openai_responses
from runrails.tiers import premium_tier
from runrails_gateway.dialects.asking import (
    Via,
    check_count,
    check_list,
    check_names,
    check_text,
    flag,
    model_call,
    named_model,
    refuse,
)
from runrails_gateway.dialects.base import Ask
from runrails_gateway.dialects.wording import openai_error, responses_event
from runrails_gateway.errors import BadRequest
from runrails_gateway.growing import measured_of

if TYPE_CHECKING:
    from runrails.keyroutes import KeyPlace
    from runrails_gateway.dialects.base import Body, Dialect, Vendor
    from runrails_gateway.dialects.told import Told

__all__ = ["RESPONSES"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")


class _Responses:
    name: Vendor = "openai"
    path = "/responses"
    operation = "responses.create"

    def read(
        self, body: Body, *, provider: str | None = None, place: KeyPlace | None = None, region: str | None = None,
        user_agent: str = "", retries: int = 0,
    ) -> Ask:  # fmt: skip
        check_names(body)
        model, stream = named_model(body), flag(body, "stream")
        _check(body)
        previous = _previous(body)
        tier = premium_tier(body)
        wire = openai_responses(body if tier is None else {**body, "service_tier": None}, measured_of(body))
        call = model_call(
            wire, Via(provider, place, region, user_agent, retries), endpoint=self.path, tier=tier
        )  # fmt: skip
        plan = response_plan(body, wire, call, relayed=True)
        return Ask(
            operation=self.operation, model=model, stream=stream, body=body, plan=plan, previous_id=previous,
            user_agent=user_agent,
        )  # fmt: skip

    def refusal(self, told: Told) -> bytes:
        return openai_error(told)

    def event(self, told: Told) -> bytes:
        return responses_event(told)


def _check(body: Body) -> None:
    if not isinstance(body.get("input"), str):
        check_list(body, "input", needed=True)
    check_text(body, "instructions")
    check_list(body, "tools")
    check_count(body, "max_output_tokens")
    flag(body, "background")
    refuse(body, "background", "Responses in the background are not served: nobody would see what they cost.")
    # Both are kept for the account, which many share here; and a prompt there may have tools of any price.
    refuse(body, "conversation", "Conversations in the provider's keeping are not served.")
    refuse(body, "prompt", "Prompts in the provider's keeping are not served.")


def _previous(body: Body) -> str | None:
    previous = body.get("previous_response_id")
    if previous is None:
        return None
    if not isinstance(previous, str) or not _ID.fullmatch(previous):
        raise BadRequest(
            "invalid_value", "`previous_response_id` can be the id of no response.", param="previous_response_id"
        )
    return previous


RESPONSES: Dialect = _Responses()
