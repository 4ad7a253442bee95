"""Providers that report what cannot be true: the hold is kept, by every door that reads a usage report."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI

from rr_bedrock import BedrockWorld, converse, read, stream
from rr_clients import HI, MODEL, World
from runrails import Limits
from runrails.calls import ModelCall, ModelResult, Prompt
from runrails.ledger import SupportsUsage
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.provider import Text
from runrails.usage import Usage
from runrails.usage_wire import UsageMalformed, from_anthropic, from_bedrock, from_gemini, from_openai_chat
from runrails_langchain import GuardrailCallbackHandler

COUNTS: dict[str, Any] = {
    "NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf"), "negative": -7, "fractional": 12.5,
    "boolean": True, "2^70": 2**70, "text": "12",
}  # fmt: skip
CHAT = ("prompt_tokens", "completion_tokens", {"prompt_tokens_details": {"cached_tokens": 5_000}})
NAMES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": CHAT, "chat stream": CHAT, "langchain": CHAT, "langchain stream": CHAT,
    "agents chat": CHAT, "pydantic chat": CHAT,
    "responses": ("input_tokens", "output_tokens", {"input_tokens_details": {"cached_tokens": 5_000}}),
    "message": ("input_tokens", "output_tokens", {"cache_creation_input_tokens": 9, "cache_creation": {
        "ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1}}),
    "converse": ("inputTokens", "outputTokens", {"cacheWriteInputTokens": 9, "cacheDetails": [
        {"ttl": "5m", "inputTokens": 1}]}),
}  # fmt: skip
for _alias, _of in (
    ("responses stream", "responses"), ("message stream", "message"), ("converse stream", "converse"),
    ("agents responses", "responses"), ("pydantic responses", "responses"), ("pydantic message", "message"),
):  # fmt: skip
    NAMES[_alias] = NAMES[_of]


MADE_WHOLE: dict[str, tuple[str, ...]] = {
    "converse": ("boolean", "fractional", "text"), "agents": ("boolean", "text"), "pydantic": ("parts",),
    "langchain stream": ("boolean",),
}  # fmt: skip
"""
What a library reads as a number before anybody else sees it: botocore, the Agents SDK and LangChain's chunks take 1 for
`true`, the first two 12 for "12" and botocore for 12.5 as well; Pydantic AI the total of the cache writes alone.
"""


def _reports(door: str) -> dict[str, dict[str, Any]]:
    into, out, inconsistent = NAMES[door]
    made: dict[str, dict[str, Any]] = {}
    for name, count in COUNTS.items():
        made[f"{name} in"] = {into: count, out: 5}
        made[f"{name} out"] = {into: 10, out: count}
    made["parts exceed"] = {into: 10, out: 5, **inconsistent}
    return made


def _drain(answer: Any) -> None:
    for _ in answer:
        pass


def _sync(door: str, world: Any) -> None:
    kind, _, streamed = door.partition(" ")
    if kind == "chat":
        asked = world.openai().chat.completions.create(model=MODEL, messages=HI, max_tokens=50, stream=bool(streamed))
    elif kind == "responses":
        asked = world.openai().responses.create(model=MODEL, input="hi", max_output_tokens=50, stream=bool(streamed))
    elif kind == "message":
        asked = world.anthropic().messages.create(model=MODEL, messages=HI, max_tokens=50, stream=bool(streamed))
    elif kind == "langchain":
        model = ChatOpenAI(
            model=MODEL, base_url=world.provider.openai_url, api_key="k", max_tokens=50, max_retries=0,
            stream_usage=True,
        )  # fmt: skip
        config: Any = {"callbacks": [GuardrailCallbackHandler(world.guard)]}
        asked = model.stream("hi", config) if streamed else model.invoke("hi", config)
    else:
        boto = world.boto()
        if streamed:
            read(stream(boto))
        else:
            converse(boto)
        return
    if streamed:
        _drain(asked)


async def _async(door: str, world: Any) -> None:
    library, _, kind = door.partition(" ")
    client = openai.AsyncOpenAI(base_url=world.provider.openai_url, api_key="k", max_retries=0)
    try:
        if library == "agents":
            from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, set_tracing_disabled

            from runrails_openai_agents import GuardrailRunner

            set_tracing_disabled(disabled=True)
            made: Any = OpenAIChatCompletionsModel if kind == "chat" else OpenAIResponsesModel
            await GuardrailRunner(world.guard).run(Agent(name="a", model=made(MODEL, client)), "hi")
            return
        from pydantic_ai import Agent as PydanticAgent
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.models.openai import OpenAIResponsesModel as Responses
        from pydantic_ai.providers.openai import OpenAIProvider

        from runrails_pydantic_ai import GuardrailCapability

        if kind == "message":
            import anthropic
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            other = anthropic.AsyncAnthropic(base_url=world.provider.anthropic_url, api_key="k", max_retries=0)
            model: Any = AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=other))
        else:
            model = (OpenAIChatModel if kind == "chat" else Responses)(
                MODEL, provider=OpenAIProvider(openai_client=client)
            )
        await PydanticAgent(model, capabilities=[GuardrailCapability(world.guard)]).run("hi")
        if kind == "message":
            await other.close()
    finally:
        await client.close()


def _asked(door: str, world: Any) -> BaseException | None:
    try:
        if door.partition(" ")[0] in ("agents", "pydantic"):
            asyncio.run(_async(door, world))
        else:
            _sync(door, world)
    except Exception as exc:  # a framework may refuse such an answer in its own way
        return exc
    return None


def _kept(world: Any, door: str, what: str, trouble: BaseException | None) -> str | None:
    """What is wrong in the books after a bad report; None if the call is charged at its hold."""
    world.guard.flush()
    store = world.store
    assert isinstance(store, SupportsUsage)
    records = list(store.usage())
    shown = f"{door}, {what}: {None if trouble is None else type(trouble).__name__}"
    if len(records) != 1 or world.held:
        return f"{shown}: {len(records)} records, {world.held} held"
    (record,) = records
    if trouble is not None and record.result is not None and record.result.end == "cut":
        # The framework itself choked on the report, in the middle of its stream: bounded by what had come.
        kept = record.state == "unresolved" and world.billed <= (record.actual_pusd or 0) <= record.estimated_pusd
        return None if kept else f"{shown}: {record.state} {record.actual_pusd} of {record.estimated_pusd}"
    if record.actual_pusd != record.estimated_pusd or record.state != "unresolved":
        usage = None if record.result is None else record.result.usage
        return f"{shown}: {record.state} {record.actual_pusd} of {record.estimated_pusd}, {usage}"
    return None if world.spent == record.estimated_pusd > 0 else f"{shown}: {world.spent} spent"


@pytest.mark.parametrize("door", NAMES)
def test_a_report_that_cannot_be_true_is_charged_at_the_hold(door: str) -> None:
    """Whole and streamed; the answer is the caller's, unless the framework itself cannot read it."""
    wrong: list[str] = []
    for what, report in _reports(door).items():
        if what.startswith(MADE_WHOLE.get(door, MADE_WHOLE.get(door.partition(" ")[0], ()))):
            continue
        aws = door.startswith("converse")
        make: Callable[..., Any] = BedrockWorld if aws else World
        with make(Text("Fine, thank you.", wire_usage=report), Limits(run="50", month="100", steps=None)) as world:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # LangChain's serialiser speaks up about such counts
                trouble = _asked(door, world)
            found = _kept(world, door, what, trouble)
            if found is not None:
                wrong.append(found)
    assert [] == wrong


@pytest.mark.parametrize("what", [*COUNTS, "parts exceed"])
def test_langchains_own_metadata_that_cannot_be_true(what: str) -> None:
    """A model of anybody's may fill it in; the callback keeps the hold."""
    with World() as world:
        told: Any = {"input_tokens": 10, "output_tokens": COUNTS.get(what, 5), "total_tokens": 15}
        if what == "parts exceed":
            told["input_token_details"] = {"cache_read": 11}
        answer = AIMessage("fine")
        object.__setattr__(answer, "usage_metadata", told)
        model = ScriptedChatModel(answer, max_tokens=50)
        with contextlib.suppress(ValueError):
            model.invoke("hi", {"callbacks": [GuardrailCallbackHandler(world.guard)]})
        assert _kept(world, "metadata", what, None) is None


@pytest.mark.parametrize("what", COUNTS)
def test_nothing_by_hand_gets_past_the_door(what: str) -> None:
    """A canonical usage with such a count cannot be made, nor one be read from any wire; the hold stands in."""
    bad = COUNTS[what]
    for counts in ({"input_tokens": bad}, {"input_tokens": 5, "output_tokens": bad}):
        with pytest.raises(ValueError, match="whole numbers"):
            Usage(**counts)
    for normalise, report in (
        (from_openai_chat, {"prompt_tokens": 1, "completion_tokens": bad}),
        (from_anthropic, {"input_tokens": bad, "output_tokens": 1}),
        (from_bedrock, {"inputTokens": bad, "outputTokens": 1}),
        (from_gemini, {"promptTokenCount": bad, "candidatesTokenCount": 1}),
    ):
        with pytest.raises(UsageMalformed):
            normalise(report)  # type: ignore[arg-type]
    with World() as world:
        run = world.guard.run()
        permit = run.before_model(ModelCall(model=MODEL, prompt=Prompt(texts=("hi",), messages=1), max_tokens=50))
        run.after_model(permit, ModelResult(end="completed", usage=None))
        assert _kept(world, "door", what, None) is None
