"""The last answer of a stopped agent or chain: what is sent to the model for it, and what becomes of what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from runrails.calls import ModelCall
from runrails.digest import Said, digest
from runrails.wrapup import OUTPUT_TOKENS
from runrails_langchain.heard import Heard
from runrails_langchain.models import model_facts
from runrails_langchain.requests import capped_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain.agents.middleware import ModelRequest
    from langchain_core.language_models import BaseChatModel

    from runrails.run import Run

__all__ = ["ModelSpeaker", "last_request", "said_in"]


class ModelSpeaker:
    """A chat model that is asked for the last answer."""

    def __init__(self, model: BaseChatModel) -> None:
        model, _ = _plain(model, {})
        settings = capped_settings(model, {}, OUTPUT_TOKENS)
        self._model = model if settings is None else model.bind(**settings)
        about = cast("dict[str, Any]", model._get_ls_params())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- there is no public form
        facts = model_facts(about, {})
        self._call = ModelCall(model=facts.name, provider=facts.provider, region=facts.region)

    def about(self) -> ModelCall | None:
        """Its name and provider."""
        return self._call

    def listen(self, run: Run) -> None:
        """The callback notes the newest conversation there."""
        run.adapters[Heard] = Heard()

    def said(self, run: Run) -> Sequence[Said] | None:
        """The newest conversation that the callback has seen in the run; without one the model could only invent."""
        heard = run.adapters.get(Heard)
        return said_in(heard.messages) or None if isinstance(heard, Heard) else None

    def say(self, prompt: str) -> str:
        """Ask it."""
        return str(self._model.invoke([HumanMessage(prompt)]).text)

    async def asay(self, prompt: str, run: Run) -> str:  # noqa: ARG002 -- the protocol's
        """Ask it, on an event loop."""
        return str((await self._model.ainvoke([HumanMessage(prompt)])).text)


def said_in(messages: Iterable[BaseMessage]) -> list[Said]:
    """A conversation as plain text."""
    said: list[Said] = []
    for message in messages:
        text = str(message.text)
        if isinstance(message, ToolMessage | FunctionMessage):
            said.append(Said("tool", text, message.name or ""))
        elif isinstance(message, SystemMessage):
            said.append(Said("system", text))
        elif isinstance(message, AIMessage):
            said.append(Said("assistant", text))
        else:
            said.append(Said("user", text))
    return said


def last_request(request: ModelRequest[Any], why: str, room_tokens: int) -> ModelRequest[Any] | None:
    """The request for the last answer, without tools and with a small cap; None if there is no room for it."""
    messages: list[BaseMessage] = [*request.messages]
    if request.system_message is not None:
        messages.insert(0, request.system_message)
    prompt = digest(said_in(messages), why, room_tokens)
    model, plain = _plain(request.model, request.model_settings)
    settings = capped_settings(model, plain, OUTPUT_TOKENS)
    if prompt is None or settings is None:
        return None
    return request.override(
        model=model, messages=[HumanMessage(prompt)], system_message=None, tools=[], tool_choice=None,
        response_format=None, model_settings=dict(settings),
    )  # fmt: skip


def _plain(model: BaseChatModel, settings: Mapping[str, object]) -> tuple[BaseChatModel, Mapping[str, object]]:
    """
    The model and settings without what one short answer has no room for: several answers, and Claude's extended
    thinking, whose budget must be smaller than the answer's cap.
    """
    changes: dict[str, object] = {}
    if getattr(model, "thinking", None):
        changes["thinking"] = None
    fields: object = getattr(model, "additional_model_request_fields", None)
    if isinstance(fields, Mapping) and "thinking" in fields:
        given = cast("Mapping[str, object]", fields)
        changes["additional_model_request_fields"] = {key: value for key, value in given.items() if key != "thinking"}
    if (getattr(model, "n", None) or 1) != 1:
        changes["n"] = 1
    plain = model.model_copy(update=changes) if changes else model
    return plain, {key: value for key, value in settings.items() if key not in ("n", "thinking")}
