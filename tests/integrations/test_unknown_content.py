"""Content whose size nobody can tell is refused in every form a request has: never taken for nothing."""

from __future__ import annotations

import os
from typing import Any

import pytest

from runrails.bounds import input_tokens_bound
from runrails.calls import Prompt
from runrails.errors import BoundUnknown
from runrails.request_wire import anthropic_messages, openai_chat, openai_responses

BLOCKS: list[dict[str, Any]] = [
    {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    {"type": "audio_url", "audio_url": {"url": "https://example.org/a.wav"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "input_file", "file_id": "file-1"},
    {"type": "video", "video": {"url": "https://example.org/a.mp4"}},
    {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
    {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}},
    {"type": "container_upload", "file_id": "file-1"},
    {"type": "web_search_tool_result", "tool_use_id": "t", "content": []},
    {"type": "hologram", "depth": 3},
    {"type": 7, "text": "hi"},
    {"type": None, "text": "hi"},
    {"text": "hi"},
    {},
]
"""Of the wires that exist, of ones that may come, and of none."""


def openai(block: object) -> Prompt:
    """In a chat completion."""
    return openai_chat({"model": "m", "messages": [{"role": "user", "content": [block]}]}).prompt


def responses(block: object) -> Prompt:
    """In a message of a response's input."""
    return openai_responses({"model": "m", "input": [{"role": "user", "content": [block]}]}).prompt


def item(block: object) -> Prompt:
    """As an item of a response's input; without a type it is a message, which may be empty."""
    known = block if isinstance(block, dict) and block.get("type") else {"type": "hologram"}
    return openai_responses({"model": "m", "input": [known]}).prompt


def result_of_a_call(block: object) -> Prompt:
    """In the output of a tool, in a response's input."""
    output = {"type": "function_call_output", "call_id": "c", "output": [block]}
    return openai_responses({"model": "m", "input": [output]}).prompt


def anthropic(block: object) -> Prompt:
    """In a message of Anthropic's."""
    return anthropic_messages({"model": "m", "messages": [{"role": "user", "content": [block]}]}).prompt


def system(block: object) -> Prompt:
    """In its system prompt."""
    return anthropic_messages({"model": "m", "system": [block], "messages": []}).prompt


def tool_result(block: object) -> Prompt:
    """In the result of a tool."""
    result = {"type": "tool_result", "tool_use_id": "t", "content": [block]}
    return anthropic_messages({"model": "m", "messages": [{"role": "user", "content": [result]}]}).prompt


@pytest.mark.parametrize("wire", [openai, responses, item, result_of_a_call, anthropic, system, tool_result])
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_no_wire_takes_it_for_nothing(wire: Any, block: dict[str, Any]) -> None:
    """Each block alone, and after one that is known."""
    prompt = wire(block)
    assert prompt.unbounded is not None
    with pytest.raises(BoundUnknown):
        input_tokens_bound(prompt)


@pytest.mark.parametrize("block", [None, 7, ["text"], b"text"])
@pytest.mark.parametrize("wire", [openai, anthropic, tool_result])
def test_what_is_no_block_is_refused(wire: Any, block: object) -> None:
    """Nor anything that is not even an object."""
    assert wire(block).unbounded is not None


SEARCH: dict[str, Any] = {"type": "web_search"}
FUNCTION: dict[str, Any] = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    "tool",
    [
        SEARCH, {"type": "tool_search"}, {"type": "hologram"}, {"type": "shell"},
        {"type": "namespace", "name": "crm", "tools": [FUNCTION, SEARCH]},
        {"type": "namespace", "name": "crm", "tools": [{"type": "namespace", "name": "in", "tools": [FUNCTION]}]},
    ],
)  # fmt: skip
def test_tools_of_the_provider_are_refused(tool: dict[str, Any]) -> None:
    """In a group of tools, too."""
    prompt = openai_responses({"model": "m", "input": "hi", "tools": [FUNCTION, tool, FUNCTION]}).prompt
    with pytest.raises(BoundUnknown, match="the tool "):
        input_tokens_bound(prompt)


def test_a_group_of_tools_costs_no_less_than_its_tools() -> None:
    """As coding agents send them; every tool counts, and so does what stands around them."""
    custom = {"type": "custom", "name": "patch", "description": "changes a file"}
    group = {"type": "namespace", "name": "crm", "description": "Looks after customers.", "tools": [FUNCTION, custom]}
    alone = openai_responses({"model": "m", "input": "hi", "tools": [FUNCTION, custom]}).prompt
    together = openai_responses({"model": "m", "input": "hi", "tools": [group]}).prompt
    assert input_tokens_bound(alone) < input_tokens_bound(together)


@pytest.mark.parametrize(
    "block",
    [
        {"video": {"source": {"bytes": b"x"}}}, {"audio": {"source": {"bytes": b"x"}}}, {"hologram": {}}, {},
        {"document": {"name": "a", "format": "pdf", "source": {"bytes": b"x"}}},
        {"toolResult": {"toolUseId": "t", "content": [{"video": {}}]}}, {"guardContent": {"hologram": {}}},
    ],
)  # fmt: skip
def test_converse_takes_nothing_for_nothing(block: dict[str, Any]) -> None:
    """Bedrock's form: one key, the kind."""
    converse = pytest.importorskip("runrails_aws.bedrock.converse").converse
    prompt = converse({"messages": [{"role": "user", "content": [block]}]}, model="m").prompt
    assert prompt.unbounded is not None


@pytest.mark.skipif(os.environ.get("RUNRAILS_TESTS") == "oldest", reason="blocks of LangChain 1")
@pytest.mark.parametrize(
    "block",
    [
        *(block for block in BLOCKS if isinstance(block.get("type"), str)),
        {"type": "media", "mime_type": "video/mp4", "data": "x"},  # Gemini's
        {"type": "executable_code", "executable_code": "1"},
        {"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"},
        {"type": "text-plain", "url": "https://example.org/a.txt"},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "hologram"}]},
        {"inlineData": {"mimeType": "video/mp4", "data": "x"}},
        {"fileData": {"fileUri": "gs://a/b"}},
        {},
    ],
)
def test_langchain_takes_nothing_for_nothing(block: dict[str, Any]) -> None:
    """Its own blocks, its providers' and Gemini's."""
    from langchain_core.messages import HumanMessage

    from runrails_langchain.messages import prompt_of

    prompt = prompt_of([HumanMessage([block])], {}).prompt
    assert prompt.unbounded is not None
