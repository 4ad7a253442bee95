"""The two dialects that models on Bedrock are asked in: how a request goes there, and how what comes is told. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from runrails.clients.sse import SseReader
from runrails.request_wire import may_reason
from runrails_gateway.bedrock.chat import chat_answer, chat_request
from runrails_gateway.bedrock.messages import messages_answer, messages_request
from runrails_gateway.bedrock.streams import ChatStream, LateInput, MessagesStream, Thoughtful
from runrails_gateway.dialects import CHAT, MESSAGES
from runrails_gateway.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runrails.clients.sse import EventReader
    from runrails_gateway.bedrock.parts import Body, Json
    from runrails_gateway.bedrock.streams import Retold
    from runrails_gateway.dialects import Ask, Dialect

__all__ = ["WORDINGS", "About", "Wording", "on_bedrock"]


class About(NamedTuple):
    """What an answer has that Converse does not say."""

    model: str
    """As the request names it."""
    id: str
    created_s: int


class _Answered(Protocol):
    def __call__(self, told: Body, about: About) -> Json: ...


class Wording(NamedTuple):
    """One dialect."""

    dialect: Dialect
    request: Callable[[Body], Json]
    """The body of Converse. Raises BadRequest."""
    answer: _Answered
    stream: Callable[[About], Retold]


def _chat(told: Body, about: About) -> Json:
    return chat_answer(told, model=about.model, answer_id=f"chatcmpl-{about.id}", created_s=about.created_s)


def _chat_stream(about: About) -> Retold:
    return ChatStream(model=about.model, answer_id=f"chatcmpl-{about.id}", created_s=about.created_s)


def _message(told: Body, about: About) -> Json:
    return messages_answer(told, model=about.model, answer_id=f"msg_bdrk_{about.id}")


def _message_stream(about: About) -> Retold:
    return MessagesStream(model=about.model, answer_id=f"msg_bdrk_{about.id}")


WORDINGS: Mapping[str, Wording] = {
    CHAT.path: Wording(CHAT, chat_request, _chat, _chat_stream),
    MESSAGES.path: Wording(MESSAGES, messages_request, _message, _message_stream),
}
"""By the dialect's path."""


def on_bedrock(dialect: Dialect, ask: Ask) -> Ask:
    """
    The same request for a model on Bedrock. It is seen to before anything is held for it.

    Raises:
        BadRequest: It asks for what there is not.
    """
    wording, plan = WORDINGS.get(dialect.path), ask.plan
    if wording is None or plan is None:
        raise BadRequest(
            "unsupported_operation", "Models on Bedrock are served as chat completions and as messages only.",
            next_step="Use POST /v1/chat/completions or POST /v1/messages.", param="model",
        )  # fmt: skip
    wording.request(ask.body)
    if plan.stream is None:
        return ask
    events: EventReader
    if dialect is MESSAGES:
        events = LateInput(reasoning=not plan.call.can_cap, names_model=False)
    else:
        events = Thoughtful(reasoning=may_reason(ask.model), hides=bool(plan.changes))
    return replace(ask, plan=replace(plan, stream=SseReader(events, whole_lines=True)))
