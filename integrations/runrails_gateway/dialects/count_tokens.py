"""Anthropic's counting of tokens, which costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails_gateway.dialects.asking import check_names, named_model
from runrails_gateway.dialects.base import Ask
from runrails_gateway.dialects.messages import check_messages
from runrails_gateway.dialects.wording import anthropic_error, anthropic_event

if TYPE_CHECKING:
    from runrails.keyroutes import KeyPlace
    from runrails_gateway.dialects.base import Body, Dialect, Vendor
    from runrails_gateway.dialects.told import Told

__all__ = ["COUNT_TOKENS"]


class _CountTokens:
    name: Vendor = "anthropic"
    path = "/v1/messages/count_tokens"
    operation = "messages.count_tokens"

    def read(
        self, body: Body, *, provider: str | None = None, place: KeyPlace | None = None, region: str | None = None,
        user_agent: str = "", retries: int = 0,
    ) -> Ask:  # fmt: skip
        del provider, place, region, retries
        check_names(body)
        model = named_model(body)
        check_messages(body)
        return Ask(operation=self.operation, model=model, stream=False, body=body, plan=None, user_agent=user_agent)

    def refusal(self, told: Told) -> bytes:
        return anthropic_error(told)

    def event(self, told: Told) -> bytes:
        return anthropic_event(told)


COUNT_TOKENS: Dialect = _CountTokens()
