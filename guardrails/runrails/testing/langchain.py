"""A LangChain chat model that plays a script. Needs `langchain-core` (the extra `runrails[langchain]`)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from runrails.testing.chat_messages import chat_chunks, chat_message, provider_messages, reply_of
from runrails.testing.model import Stage, written_prices
from runrails.testing.provider.bill import Bill, generated, price_function
from runrails.testing.provider.books import RECEIVED_MAX
from runrails.testing.provider.plan import Plan, take_apart
from runrails.testing.provider.script import SCRIPT_ENDED, ScriptFunction
from runrails.testing.provider.values import (
    Answer,
    Delay,
    Error,
    HangUp,
    Json,
    ProviderRequest,
    Stall,
    Text,
    ToolCalls,
)
from runrails.testing.provider.wire import compact

if TYPE_CHECKING:
    import threading

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

    from runrails.pricing.spec import Price
    from runrails.testing.provider.bill import PriceFunction
    from runrails.testing.provider.reply import Reply
    from runrails.usage import Usage

__all__ = ["ChatAnswer", "ChatScript", "ScriptedChatModel"]

ChatAnswer: TypeAlias = Answer | str | AIMessage | Exception
"""
An answer as for the fake provider, a text, an exception that is raised, or a message that is given as it is (a stream
gives its text, tool calls and usage).
"""

ChatScript: TypeAlias = ChatAnswer | Sequence[ChatAnswer] | Callable[[Sequence[BaseMessage]], ChatAnswer]
"""One answer (for ever), a list of answers (each once, in order), or a function of the messages."""


class ScriptedChatModel(BaseChatModel):
    """
    A chat model with scripted answers: sync and async, whole and streamed, with tools, usage (or none), errors, delays.

    Counters and the bill are shared by everything made from one model (`bind_tools`, `with_retry`, copies) and may be
    used from any thread.

    Args:
        script: What to answer; see `ChatScript`. A list that is used up raises `FakeProviderError` (400).
        by_request: Instead of `script`: a script for the fake provider, for instance `until_morning(...)`.
        repeat: Begin a list again when it is used up, for ever.
        model_name: Reported as `ls_model_name`. One with a card in `runrails.testing.PRICES` needs no other price.
        price: What it costs, if it has no card there; else the card of `fake-model` applies.
        price_pusd: Price function of the bill; left out, that of the card.
        sleep: Waits for a `Delay` in synchronous calls.
        asleep: The same in asynchronous ones.
        fields: `provider`, `max_tokens` and the fields of BaseChatModel: `callbacks`, `cache`, `disable_streaming`, …
    """

    model_name: str = "fake-model"
    provider: str = "fake"
    """Reported as `ls_provider`."""
    max_tokens: int | None = None
    """A cap on the answers, as a real model has one. A call's own `max_tokens` goes before it."""

    _stage: Stage = PrivateAttr()
    _next: Callable[[ProviderRequest, Sequence[BaseMessage]], ChatAnswer] = PrivateAttr()
    _prices: Mapping[str, Price] = PrivateAttr()
    _received: deque[tuple[BaseMessage, ...]] = PrivateAttr()

    def __init__(
        self,
        script: ChatScript = (),
        /,
        *,
        by_request: ScriptFunction | None = None,
        repeat: bool = False,
        model_name: str = "fake-model",
        price: Price | None = None,
        price_pusd: PriceFunction | None = None,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Awaitable[None]] | None = None,
        **fields: Any,  # pydantic checks them
    ) -> None:
        named: dict[str, Any] = {"model_name": model_name, **fields}
        super().__init__(**named)
        self._prices = written_prices(model_name, price)
        self._stage = Stage(price_pusd=price_pusd or price_function(self._prices), sleep=sleep, asleep=asleep)
        self._next = _chat_function(script, repeat=repeat) if by_request is None else _by_request(by_request)
        self._received = deque(maxlen=RECEIVED_MAX)

    @property
    def prices(self) -> Mapping[str, Price]:
        """The written price card, for `Guard(prices=model.prices)`."""
        return self._prices

    @property
    def bill(self) -> Bill:
        """Every call that costs money."""
        return self._stage.bill

    @property
    def calls(self) -> int:
        """How many calls have started."""
        return self._stage.calls

    @property
    def concurrency_max(self) -> int:
        """The most calls that were ever in flight at once."""
        return self._stage.in_flight_max

    @property
    def received(self) -> tuple[tuple[BaseMessage, ...], ...]:
        """The messages of each call, oldest first (the newest 10,000 calls)."""
        return tuple(self._received)

    @property
    def _llm_type(self) -> str:
        return "runrails-scripted"

    @property
    def _identifying_params(self) -> Mapping[str, object]:
        return {"model_name": self.model_name, "max_tokens": self.max_tokens}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        asked = kwargs.get("model")
        params: LangSmithParams = {
            "ls_provider": self.provider,
            "ls_model_name": asked if isinstance(asked, str) else self.model_name,
            "ls_model_type": "chat",
        }
        cap = kwargs.get("max_tokens", self.max_tokens)
        if isinstance(cap, int):
            params["ls_max_tokens"] = cap
        if stop:
            params["ls_stop"] = stop
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model. The script decides whether it uses them."""
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del stop, run_manager
        request = self._begin(messages, kwargs, stream=False)
        try:
            plan, given = self._plan(request, messages)
            self._stage.wait(plan.waits)
            return self._result(request, plan, given)
        finally:
            self._stage.leave()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del stop, run_manager
        request = self._begin(messages, kwargs, stream=False)
        try:
            plan, given = self._plan(request, messages)
            await self._stage.await_(plan.waits)
            return self._result(request, plan, given)
        finally:
            self._stage.leave()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        del stop, run_manager
        request = self._begin(messages, kwargs, stream=True)
        tape: _Tape | None = None
        try:
            plan, _given = self._plan(request, messages)
            self._stage.wait(plan.waits)
            tape = _Tape(self._stage, request, plan)
            for chunk, content in tape.chunks:
                self._stage.wait(tape.before(content=content))
                tape.sends(chunk, content=content)
                yield chunk
        finally:
            if tape is not None:
                tape.end()
            self._stage.leave()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        del stop, run_manager
        request = self._begin(messages, kwargs, stream=True)
        tape: _Tape | None = None
        try:
            plan, _given = self._plan(request, messages)
            await self._stage.await_(plan.waits)
            tape = _Tape(self._stage, request, plan)
            for chunk, content in tape.chunks:
                await self._stage.await_(tape.before(content=content))
                tape.sends(chunk, content=content)
                yield chunk
        finally:
            if tape is not None:
                tape.end()
            self._stage.leave()

    def _begin(self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any], *, stream: bool) -> ProviderRequest:
        self._received.append(tuple(messages))
        model, cap = kwargs.get("model"), kwargs.get("max_tokens", self.max_tokens)
        tools: Sequence[Json] = kwargs.get("tools") or ()
        return ProviderRequest(
            wire="in_process",
            path="",
            number=self._stage.enter(),
            model=model if isinstance(model, str) else self.model_name,
            messages=provider_messages(messages),
            tools=tuple(compact(tool).decode() for tool in tools),
            max_tokens=cap if isinstance(cap, int) else None,
            stream=stream,
        )

    def _plan(self, request: ProviderRequest, messages: Sequence[BaseMessage]) -> tuple[Plan, AIMessage | None]:
        """The next answer, taken apart; and the message that it is, if the script has a ready one."""
        answer = self._next(request, messages)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, AIMessage):
            return take_apart(reply_of(answer)), answer
        return take_apart(Text(answer) if isinstance(answer, str) else answer), None

    def _result(self, request: ProviderRequest, plan: Plan, given: AIMessage | None) -> ChatResult:
        reply = self._stage.reply(request, plan)
        self._stage.add(request, reply.usage, "completed")
        if given is not None:
            return ChatResult(generations=[ChatGeneration(message=given.model_copy(deep=True))])
        generation = ChatGeneration(message=chat_message(reply))
        return ChatResult(generations=[generation], llm_output={"model_name": reply.model})


class _Tape:
    """One stream: what is due before each chunk, and what has to be billed when it ends, however it ends."""

    def __init__(self, stage: Stage, request: ProviderRequest, plan: Plan) -> None:
        self._reply: Reply = stage.reply(request, plan)
        self._stage = stage
        self._request = request
        self._plan = plan
        self._billed = False
        self._sent = 0
        self.chunks = list(chat_chunks(self._reply))
        self._total = sum(content for _, content in self.chunks)

    def before(self, *, content: bool) -> Sequence[int | threading.Event]:
        """
        What to wait for before the next chunk.

        Raises:
            ConnectionError: The provider hangs up here.
        """
        here = self._sent > 0 or content
        hang_up = self._plan.hang_up
        if hang_up is not None and here and self._sent == min(hang_up.after_chunks or 0, self._total):
            self._billed = True
            if hang_up.billed:
                self._stage.add(self._request, self._so_far(), "errored")
            raise ConnectionError("the scripted provider hung up")
        waits: list[int | threading.Event] = []
        until = self._plan.pauses.pop(self._sent, None) if here else None
        if until is not None:
            waits.append(until)
        if content and self._reply.chunk_delay_ms:
            waits.append(self._reply.chunk_delay_ms)
        return waits

    def sends(self, chunk: ChatGenerationChunk, *, content: bool) -> None:
        """Count a chunk that goes out now; the last one completes the bill."""
        self._sent += content
        if chunk is self.chunks[-1][0]:
            self._billed = True
            self._stage.add(self._request, self._reply.usage, "completed")

    def end(self) -> None:
        """Bill a stream that its reader has left."""
        if not self._billed:
            self._billed = True
            self._stage.add(self._request, self._so_far(), "cut")

    def _so_far(self) -> Usage:
        return generated(self._reply.usage, self._sent, self._total)


def _by_request(script: ScriptFunction) -> Callable[[ProviderRequest, Sequence[BaseMessage]], ChatAnswer]:
    return lambda request, _messages: script(request)


def _chat_function(
    script: ChatScript, *, repeat: bool
) -> Callable[[ProviderRequest, Sequence[BaseMessage]], ChatAnswer]:
    if isinstance(script, str | AIMessage | Exception | Text | ToolCalls | Error | Delay | Stall | HangUp):
        return lambda _request, _messages: script
    if callable(script):
        return lambda _request, messages: script(messages)
    answers = tuple(script)

    def answer(request: ProviderRequest, messages: Sequence[BaseMessage]) -> ChatAnswer:
        del messages
        place = request.number - 1  # numbers are handed out one by one, so every answer is used exactly once
        if repeat and answers:
            return answers[place % len(answers)]
        return answers[place] if place < len(answers) else SCRIPT_ENDED

    return answer
