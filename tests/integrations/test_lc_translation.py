"""LangChain's messages, parameters, results and errors, made into the core's values."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import httpx
import openai
import pytest
from botocore.exceptions import ClientError
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from runrails.errors import BudgetExceeded, GuardrailStopped, LoopDetected
from runrails.usage import Usage
from runrails_langchain.messages import prompt_of, text_prompt
from runrails_langchain.models import model_facts
from runrails_langchain.results import of_answer, of_error
from runrails_langchain.stops import public_stop
from runrails_langchain.tools import outcome_of, tool_name

CALL = {"name": "look", "args": {"q": "ä"}, "id": "call_1", "type": "tool_call"}


def answer(message: AIMessage, llm_output: dict[str, Any] | None = None) -> LLMResult:
    """A result with one message."""
    return LLMResult(generations=[[ChatGeneration(message=message)]], llm_output=llm_output)


def usage(input_tokens: int, output_tokens: int, **more: Any) -> Any:
    """LangChain's usage."""
    total = input_tokens + output_tokens
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, "total_tokens": total, **more}


# Prompts.


def test_every_text_of_a_conversation_is_in_the_prompt() -> None:
    """Contents, tool calls with their arguments and ids, and tool results."""
    messages: list[BaseMessage] = [
        SystemMessage("be brief"),
        HumanMessage([{"type": "text", "text": "hello"}, "plain"]),
        AIMessage("thinking", tool_calls=[CALL], invalid_tool_calls=[
            {"name": "bad", "args": "{", "id": "call_2", "error": None, "type": "invalid_tool_call"}]),
        ToolMessage("found", tool_call_id="call_1", name="look"),
    ]  # fmt: skip
    prompt = prompt_of(messages, {}).prompt

    assert 4 == prompt.messages
    assert None is prompt.unbounded
    for text in ("be brief", "hello", "plain", "thinking", "look", '{"q":"ä"}', "call_1", "bad", "{", "found"):
        assert text in prompt.texts


def test_a_tool_call_that_the_content_repeats_is_counted_once() -> None:
    """Anthropic's content holds the calls which LangChain also lists."""
    content: Any = [{"type": "text", "text": "I look"}, {"type": "tool_use", "id": "c", "name": "look", "input": {}}]
    prompt = prompt_of([AIMessage(content, tool_calls=[CALL])], {}).prompt

    assert ("I look", "look", "call_1", '{"q":"ä"}') == prompt.texts


@pytest.mark.parametrize("kind", ["image", "image_url", "input_image"])
def test_pictures_are_counted_whatever_their_size(kind: str) -> None:
    """A picture's bound is a vendor's constant, so its bytes do not matter."""
    prompt = prompt_of([HumanMessage([{"type": kind, "image_url": {"url": "https://x/y.png"}}] * 3)], {}).prompt

    assert (3, None, ()) == (prompt.images, prompt.unbounded, prompt.texts)


@pytest.mark.parametrize("kind", ["file", "document", "input_audio", "audio", "video", "media", "something_new"])
def test_content_without_a_bound_is_named_not_guessed(kind: str) -> None:
    """Also for content types that do not exist yet."""
    assert kind == prompt_of([HumanMessage([{"type": kind, "data": "…"}])], {}).prompt.unbounded


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "thinking", "thinking": "hm", "signature": "sig"}, "hm"),
        ({"type": "redacted_thinking", "data": "xyz"}, "xyz"),
        ({"type": "reasoning", "reasoning": "because"}, "because"),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}]}, "so"),
        ({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "deep"}]}, "deep"),
        ({"type": "tool_result", "tool_use_id": "t", "content": "flat"}, "flat"),
        ({"type": "refusal", "refusal": "no"}, "no"),
        ({"text": "bedrock"}, "bedrock"),
    ],
)
def test_known_content_is_text(block: dict[str, Any], text: str) -> None:
    """Thoughts, refusals and results inside the content are sent, so they count."""
    prompt = prompt_of([AIMessage([block])], {}).prompt

    assert None is prompt.unbounded
    assert any(text in part for part in prompt.texts)


def test_schemas_of_tools_and_of_structured_output_are_part_of_the_prompt() -> None:
    """They are billed as input."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    params = {"tools": [tool], "response_format": {"type": "json_schema", "json_schema": {"name": "Answer"}}}
    tools = prompt_of([HumanMessage("x")], params).prompt.tools

    assert ('{"type":"function","function":{"name":"look","parameters":{}}}',) == tools[:1]
    assert "Answer" in tools[1]


@pytest.mark.parametrize(
    ("messages", "params"),
    [
        ([HumanMessage([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}])], {}),
        ([HumanMessage([{"cachePoint": {"type": "default"}}])], {}),
        ([HumanMessage("x")], {"cache_control": {"type": "ephemeral"}}),
        ([HumanMessage("x")], {"tools": [{"name": "t", "cache_control": {"type": "ephemeral"}}]}),
    ],
)
def test_a_request_to_write_the_cache_is_seen(messages: list[BaseMessage], params: dict[str, Any]) -> None:
    """A cache write is dearer than plain input."""
    assert prompt_of(messages, params).cache_write
    assert not prompt_of([HumanMessage("x")], {}).cache_write


def test_plain_text_models_send_their_prompt() -> None:
    """One text, one message."""
    prompt = text_prompt(["complete me"], {}).prompt

    assert (("complete me",), 1) == (prompt.texts, prompt.messages)


def test_recursive_arguments_are_an_error_not_a_hang() -> None:
    """The deciding part refuses what it cannot read."""
    args: dict[str, Any] = {}
    args["self"] = args
    message = AIMessage("x")
    message.tool_calls = [{"name": "t", "args": args, "id": "c", "type": "tool_call"}]
    with pytest.raises(ValueError, match="Circular"):
        prompt_of([message], {})


# Models.


@pytest.mark.parametrize(
    ("metadata", "params", "expected"),
    [
        ({"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_max_tokens": 5}, {"max_completion_tokens": 7, "n": 2},
         ("gpt-4o", "openai", 7, 2)),
        ({"ls_provider": "azure", "ls_model_name": "dep"}, {"model": None, "azure_deployment": "dep"},
         ("dep", "azure", None, 1)),
        ({"ls_provider": "amazon_bedrock", "ls_model_name": "us.anthropic.claude-x-v1:0", "ls_max_tokens": 77}, {},
         ("us.anthropic.claude-x-v1:0", "amazon_bedrock", 77, 1)),
        ({"ls_provider": "google_genai", "ls_model_name": "gemini-2.0"}, {"max_output_tokens": 9, "candidate_count": 3},
         ("gemini-2.0", "google_genai", 9, 3)),
        (None, {"model_name": "m", "model_kwargs": {"max_tokens": 4}}, ("m", None, 4, 1)),
        (None, {"model_id": "a.b", "inferenceConfig": {"maxTokens": 3}}, ("a.b", None, 3, 1)),
        ({"ls_model_name": "llama"}, {"num_predict": -1}, ("llama", None, None, 1)),
        ({"ls_model_name": "m"}, {"max_tokens": True, "n": 0}, ("m", None, None, 1)),
        (None, {}, ("unknown", None, None, 1)),
    ],
)  # fmt: skip
def test_model_provider_and_caps_are_found(metadata: Any, params: Any, expected: tuple[Any, ...]) -> None:
    """Wherever the integrations put them; without a name the price is unknown and the call is refused."""
    facts = model_facts(metadata, params)

    assert expected == (facts.name, facts.provider, facts.max_tokens, facts.n)


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("o3-mini", {}, True), ("gpt-5-mini", {}, True), ("gpt-4o", {}, False), ("gpt-3.5-turbo", {}, False),
        ("claude-sonnet-4-5", {}, False), ("claude-sonnet-4-5", {"thinking": {"type": "enabled"}}, True),
        ("us.deepseek.r1-v1:0", {}, True), ("gemini-2.5-pro", {}, True), ("gpt-4o", {"reasoning_effort": "low"}, True),
    ],
)  # fmt: skip
def test_models_that_may_reason_unseen(name: str, params: dict[str, Any], expected: bool) -> None:
    """Their cut streams do not show all that is billed."""
    assert expected == model_facts({"ls_model_name": name}, params).reasoning


# Results.


def test_usage_comes_from_the_message_before_the_output() -> None:
    """With several answers each repeats the usage of all: the first one speaks."""
    message = AIMessage("x", usage_metadata=usage(10, 5), response_metadata={"model_name": "gpt-4o-2024-08-06"})
    result = LLMResult(
        generations=[[ChatGeneration(message=message), ChatGeneration(message=message)]],
        llm_output={"token_usage": {"prompt_tokens": 99, "completion_tokens": 99}},
    )
    found = of_answer(result)

    assert ("completed", Usage(input_tokens=10, output_tokens=5)) == (found.end, found.usage)
    assert "gpt-4o-2024-08-06" == found.model


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"token_usage": {"prompt_tokens": 10, "completion_tokens": 5}}, Usage(input_tokens=10, output_tokens=5)),
        ({"usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 90}},
         Usage(input_tokens=100, cache_read_tokens=90, output_tokens=5)),
        ({"token_usage": {}}, None),
        ({}, None),
        (None, None),
        ({"token_usage": {"prompt_tokens": -1, "completion_tokens": 5}}, None),
    ],
)  # fmt: skip
def test_usage_in_the_output_is_a_fallback(output: dict[str, Any] | None, expected: Usage | None) -> None:
    """Missing or malformed usage is missing, which is not zero."""
    assert expected == of_answer(answer(AIMessage("x"), output)).usage
    text = LLMResult(generations=[[Generation(text="x")]], llm_output=output)
    assert expected == of_answer(text).usage


def test_a_stream_without_its_input_tokens_has_no_usage() -> None:
    """The older Anthropic form: the output is known, the input is not, and no prompt has none."""
    assert None is of_answer(answer(AIMessage("x", usage_metadata=usage(0, 50)))).usage


def test_a_cache_hit_costs_nothing() -> None:
    """LangChain repeats the usage of the paid call and marks it by a cost of 0 only."""
    message = AIMessage("x", usage_metadata=usage(10, 5, total_cost=0))

    assert "cached" == of_answer(answer(message)).end


class _Status(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("no")
        self.status_code = status_code


def _caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


REQUEST = httpx.Request("POST", "http://127.0.0.1/")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_Status(500), "failed"),
        (_Status(429), "failed"),
        (_Status(302), "unknown"),
        (openai.BadRequestError("no", response=httpx.Response(400, request=REQUEST), body=None), "failed"),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}, "Error": {}}, "Converse"), "failed"),
        (_caused(ValueError("wrapped"), _Status(400)), "failed"),
        (openai.APITimeoutError(request=REQUEST), "unknown"),
        (openai.APIConnectionError(request=REQUEST), "unknown"),
        (_caused(openai.APIConnectionError(request=REQUEST), httpx.ConnectError("refused")), "failed"),
        (_caused(openai.APIConnectionError(request=REQUEST), httpx.ReadError("reset")), "unknown"),
        (TimeoutError(), "unknown"),
        (ValueError("bad json"), "unknown"),
        (asyncio.CancelledError(), "unknown"),
        (KeyboardInterrupt(), "unknown"),
        (BudgetExceeded(scope="run:r", period="-", unit="pusd", limit=1, spent=1, held=0, needed=1), "failed"),
        (GeneratorExit(), "cut"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_only_a_definite_error_costs_nothing(error: BaseException, expected: str) -> None:
    """Without proof the money may be spent."""
    for response in (None, LLMResult(generations=[[]]), answer(AIMessage("", response_metadata={"status_code": 1}))):
        assert expected == of_error(error, response, reasoning=False).end


def _chunk(**fields: Any) -> LLMResult:
    message = AIMessageChunk("Once upon", **fields)
    return LLMResult(generations=[[ChatGenerationChunk(message=message)], []])


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError()])
def test_a_stream_that_was_broken_off_is_measured_by_what_came(error: BaseException) -> None:
    """Usage that came on the way is only a part of it, so it is not taken for the whole."""
    chunk = {"name": "look", "args": '{"q"', "id": "c", "index": 0, "type": "tool_call_chunk"}
    result = of_error(error, _chunk(tool_call_chunks=[chunk], usage_metadata=usage(10, 1)), reasoning=True)

    assert ("cut", ("Once upon", "look", '{"q"'), None, True) == (
        result.end, result.output_text, result.usage, result.reasoning
    )  # fmt: skip


def test_a_stream_left_after_its_end_is_complete() -> None:
    """The reader left after the last chunk had told everything."""
    response = _chunk(usage_metadata=usage(10, 4), response_metadata={"finish_reason": "stop", "model_name": "m-1"})
    result = of_error(GeneratorExit(), response, reasoning=False)

    assert ("completed", Usage(input_tokens=10, output_tokens=4), "m-1") == (result.end, result.usage, result.model)


def test_a_connection_lost_in_mid_stream_is_charged_for_what_came() -> None:
    """As one that its reader has left; before anything came nobody knows."""
    result = of_error(ConnectionError(), _chunk(), reasoning=False)
    assert ("cut", True) == (result.end, bool("".join(result.output_text)))
    assert "unknown" == of_error(ConnectionError(), None, reasoning=False).end


# Tools.


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (ToolMessage("fine", tool_call_id="c"), (True, "fine")),
        (ToolMessage("bad", tool_call_id="c", status="error"), (False, "bad")),
        (Command(update={"messages": [ToolMessage("other", tool_call_id="d"), ToolMessage("mine", tool_call_id="c")]}),
         (True, "mine")),
        ("text", (True, "text")), (None, (True, None)), ({"a": 1}, (True, {"a": 1})),
        (HumanMessage, (True, str(HumanMessage))),
    ],
)  # fmt: skip
def test_what_a_tool_gave_back(output: Any, expected: tuple[bool, Any]) -> None:
    """A message, a command that holds one, or any value."""
    outcome = outcome_of(output, "c")

    assert expected == (outcome.ok, outcome.result)


def test_the_name_of_a_tool_is_found_in_every_version() -> None:
    """In the serialized form, else among the arguments of the hook."""
    assert ["a", "b", "unknown"] == [tool_name({"name": "a"}, {}), tool_name(None, {"name": "b"}), tool_name({}, {})]


# Stops.


def test_a_public_stop_is_also_what_the_layers_above_let_through() -> None:
    """Its class, text and fields are those of the stop; only what swallows exceptions sees a difference."""
    stop = LoopDetected("The same again.", next_step="Fix it.", scope="run:r", count=5)
    public = public_stop(stop)

    assert isinstance(public, LoopDetected | GuardrailStopped)
    assert isinstance(public, RuntimeError)
    assert isinstance(public, GraphBubbleUp)
    assert (str(stop), stop.as_dict(), "LoopDetected") == (str(public), public.as_dict(), type(public).__name__)
    assert type(public) is type(public_stop(public)) is type(public.again())


@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_a_public_stop_can_be_pickled_and_copied(copied: Any) -> None:
    """It crosses process borders with every field."""
    public = public_stop(BudgetExceeded(scope="run:r", period="-", unit="pusd", limit=1, spent=1, held=0, needed=1))
    again = copied(public)

    assert type(public) is type(again)
    assert (str(public), public.as_dict()) == (str(again), again.as_dict())
