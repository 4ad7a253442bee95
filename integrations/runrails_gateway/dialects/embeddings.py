"""OpenAI's embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.clients.wireplans import embeddings_plan
from runrails.request_wire import openai_embeddings
from runrails_gateway.dialects.asking import Via, check_list, check_names, model_call, named_model, refuse
from runrails_gateway.dialects.base import Ask
from runrails_gateway.dialects.wording import openai_error, openai_event

if TYPE_CHECKING:
    from runrails.keyroutes import KeyPlace
    from runrails_gateway.dialects.base import Body, Dialect, Vendor
    from runrails_gateway.dialects.told import Told

__all__ = ["EMBEDDINGS"]


class _Embeddings:
    name: Vendor = "openai"
    path = "/embeddings"
    operation = "embeddings.create"

    def read(
        self, body: Body, *, provider: str | None = None, place: KeyPlace | None = None, region: str | None = None,
        user_agent: str = "", retries: int = 0,
    ) -> Ask:  # fmt: skip
        check_names(body)
        model = named_model(body)
        refuse(body, "stream", "Embeddings are not streamed.")
        if not isinstance(body.get("input"), str):
            check_list(body, "input", needed=True)
        call = model_call(
            openai_embeddings(body), Via(provider, place, region, user_agent, retries), endpoint=self.path,
            can_cap=False, kind="embedding",
        )  # fmt: skip
        return Ask(
            operation=self.operation, model=model, stream=False, body=body, plan=embeddings_plan(call),
            user_agent=user_agent,
        )  # fmt: skip

    def refusal(self, told: Told) -> bytes:
        return openai_error(told)

    def event(self, told: Told) -> bytes:
        return openai_event(told)


EMBEDDINGS: Dialect = _Embeddings()
