"""The two forms of a recorded run, made into typed steps."""

from __future__ import annotations

import json

import pytest

from rr_audit import USAGE, answers, asks, bad, line, tool, user
from runrails.audit.recording import ModelAnswered, ToolRan, UserSpoke
from runrails.audit.records import parse_line
from runrails.calls import ToolCall, ToolOutcome
from runrails.usage import Usage


def steps(**fields: object) -> list[object]:
    """The steps of one line."""
    return list(parse_line(line(**fields)).steps)


def test_messages_become_steps() -> None:
    """A conversation: the user, one model call an assistant message, results numbered among themselves."""
    conversation = [
        {"role": "system", "content": "be good"},
        user(),
        asks(1, model="m", usage=USAGE),
        answers(1, "found", name="search"),
        {"role": "assistant", "content": [{"type": "text", "text": "done"}]},
    ]
    assert steps(messages=conversation) == [
        UserSpoke(agent=""),
        ModelAnswered(agent="", model="m", usage=Usage(input_tokens=10, output_tokens=5)),
        ToolRan(1, ToolCall(name="search", args="{}", id="call_1"), ToolOutcome(ok=True, result="found")),
        ModelAnswered(agent="", model=None, usage=None),
    ]


def test_parallel_calls_are_a_batch_and_keep_the_order_of_their_results() -> None:
    """Calls of one assistant message share a batch; results are numbered as they are recorded."""
    both = asks(1) | {"tool_calls": [*_calls(asks(1)), *_calls(asks(2, name="other"))]}
    first, second = steps(messages=[both, answers(2, "b"), answers(1, "a")])[1:]
    assert isinstance(first, ToolRan)
    assert isinstance(second, ToolRan)
    assert [(ran.number, ran.call.name, ran.call.batch) for ran in (first, second)] == [
        (1, "other", 0),
        (2, "search", 0),
    ]


def _calls(message: dict[str, object]) -> list[object]:
    calls = message["tool_calls"]
    assert isinstance(calls, list)
    return calls


@pytest.mark.parametrize(
    ("content", "result"),
    [
        ("x", "x"),
        (None, None),
        ("", ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        (["a", "b"], "a\nb"),
        ([{"type": "image_url"}], [{"type": "image_url"}]),
    ],
)
def test_content_of_every_shape(content: object, result: object) -> None:
    """Text in parts is text; parts that are no text stay parts."""
    [_, ran] = steps(messages=[asks(1), answers(1, content)])
    assert isinstance(ran, ToolRan)
    assert ran.outcome == ToolOutcome(ok=True, result=result)


@pytest.mark.parametrize(("status", "ok"), [("error", False), ("success", True), (None, True)])
def test_status_of_a_tool_message(status: str | None, ok: object) -> None:
    """A tool message may say that the call failed."""
    [_, ran] = steps(messages=[asks(1), answers(1, "x", status=status)])
    assert isinstance(ran, ToolRan)
    assert ok == ran.outcome.ok


def test_the_older_function_call() -> None:
    """`function_call` and role `function`, which have no id, are read too."""
    message = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    [_, ran] = steps(messages=[message, {"role": "function", "name": "f", "content": "x"}])
    assert ran == ToolRan(1, ToolCall(name="f", args="{}"), ToolOutcome(ok=True, result="x"))


def test_custom_tools_and_decoded_arguments() -> None:
    """Free-text tools of OpenAI and recorders that store decoded arguments are read too."""
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    [_, ran] = steps(messages=[{"role": "assistant", "tool_calls": [custom]}, answers(1)])
    assert isinstance(ran, ToolRan)
    assert (ran.call.name, ran.call.args) == ("sh", "ls")
    [_, ran] = steps(messages=[asks(1, args={"q": 1}), answers(1)])
    assert isinstance(ran, ToolRan)
    assert ran.call.args == {"q": 1}


def test_an_id_may_come_again_after_its_answer() -> None:
    """Some frameworks number calls anew in every answer; each result belongs to the latest call."""
    found = steps(messages=[asks(1), answers(1), asks(1, name="other"), answers(1)])
    assert [step.call.name for step in found if isinstance(step, ToolRan)] == ["search", "other"]


def test_a_call_without_a_result_is_not_a_step() -> None:
    """A run that ended in the middle of a tool call is read as far as it went."""
    assert steps(messages=[asks(1)]) == [ModelAnswered(agent="", model=None, usage=None)]


BAD_MESSAGES = {
    "no object": (["x"], "messages[0] must be an object, not text."),
    "no role": ([{}], "messages[0].role must be text that is not empty, but it is missing."),
    "unknown role": ([{"role": "bot"}], "messages[0].role is none that is known."),
    "content of a number": (
        [{"role": "user", "content": 1}],
        "messages[0].content must be text, a list of parts or null",
    ),
    "model of a number": ([{"role": "assistant", "model": 1}], "messages[0].model must be text, not a number."),
    "calls no list": ([{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls must be a list"),
    "call without id": (
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
        "messages[0].tool_calls[0].id must be text",
    ),
    "call without name": (
        [{"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}],
        "messages[0].tool_calls[0].function.name must be text",
    ),
    "call without function": (
        [{"role": "assistant", "tool_calls": [{"id": "1"}]}],
        "messages[0].tool_calls[0].function must be an object, not null.",
    ),
    "arguments of a number": ([asks(1, args=3)], "arguments must be the JSON text of an object, not a number."),
    "two calls, one id": (
        [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}] * 2}],
        "messages[0].tool_calls[1] has the id of another call of the same message.",
    ),
    "answer to nothing": ([user(), answers(1)], "messages[1] answers no tool call that is waiting for an answer."),
    "answer twice": ([asks(1), answers(1), answers(1)], "messages[2] answers no tool call"),
    "answer without id": ([asks(1), {"role": "tool", "content": "x"}], "messages[1].tool_call_id must be text"),
    "function to nothing": ([{"role": "function", "name": "f", "content": "x"}], "messages[0] answers no tool call"),
    "status of a number": ([asks(1), answers(1, status=1)], "messages[1].status must be text, not a number."),
    "unknown status": ([asks(1), answers(1, status="bad")], 'messages[1].status must be "error" or "success".'),
    "usage no object": ([{"role": "assistant", "usage": 3}], "messages[0].usage must be an object, not a number."),
    "usage of fractions": (
        [{"role": "assistant", "usage": {"prompt_tokens": 1.5, "completion_tokens": 1}}],
        "messages[0].usage cannot be true: prompt_tokens is not a whole number of tokens.",
    ),
    "usage unknown": ([{"role": "assistant", "usage": {"words": 3}}], "messages[0].usage is in no form that is known."),
}


@pytest.mark.parametrize(("messages", "what"), BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
def test_bad_messages_are_named_by_their_place(messages: list[object], what: str) -> None:
    """A message of the wrong form is refused with its place in the run."""
    assert what in bad(line(messages=messages)).what


def test_steps_are_numbered_as_they_are_listed() -> None:
    """Tool steps carry their place among all steps, their agent and their batch."""
    listed = [
        {"kind": "user", "text": "go"},
        {"kind": "llm", "text": "hm", "agent": "main/sub"},
        tool(batch=3, agent="main/sub", t=1.5),
        tool("other", ok=True, output={"n": 1}),
    ]
    assert steps(steps=listed) == [
        UserSpoke(agent=""),
        ModelAnswered(agent="main/sub", model=None, usage=None),
        ToolRan(
            3,
            ToolCall(name="search", args={"q": "x"}, batch=3, agent="main/sub"),
            ToolOutcome(ok=False, result="no result"),
        ),
        ToolRan(4, ToolCall(name="other", args={"q": "x"}), ToolOutcome(ok=True, result={"n": 1})),
    ]


def test_output_and_error_may_stand_side_by_side() -> None:
    """Recorders that write both keys, one of them null, are understood; a failure may have its text in `output`."""
    base = {"kind": "tool", "name": "f", "args": {}}
    found = steps(
        steps=[
            {**base, "ok": True, "output": "x", "error": None},
            {**base, "ok": False, "output": None, "error": "boom"},
            {**base, "ok": False, "output": "boom"},
        ]
    )
    outcomes = [step.outcome for step in found if isinstance(step, ToolRan)]
    assert outcomes == [
        ToolOutcome(ok=True, result="x"),
        ToolOutcome(ok=False, result="boom"),
        ToolOutcome(ok=False, result="boom"),
    ]


BAD_STEPS = {
    "no object": ([1], "steps[0] must be an object, not a number."),
    "no kind": ([{}], 'steps[0].kind must be "llm", "user" or "tool".'),
    "unknown kind": ([{"kind": "think"}], 'steps[0].kind must be "llm", "user" or "tool".'),
    "no name": ([{"kind": "tool", "ok": True}], "steps[0].name must be text that is not empty, but it is missing."),
    "no ok": ([{"kind": "tool", "name": "f"}], "steps[0].ok must be true or false, but it is missing."),
    "ok as text": ([{"kind": "tool", "name": "f", "ok": "yes"}], "steps[0].ok must be true or false, but it is text."),
    "ok with error": ([{"kind": "tool", "name": "f", "ok": True, "error": "x"}], "steps[0] is ok and has an error."),
    "text of a number": ([{"kind": "llm", "text": 1}], "steps[0].text must be text, not a number."),
    "agent of a number": ([{"kind": "user", "agent": 1}], "steps[0].agent must be text, not a number."),
    "batch of a list": ([tool(batch=[1])], "steps[0].batch must be a whole number, not a list."),
    "batch true": ([tool(batch=True)], "steps[0].batch must be a whole number, not true or false."),
    "time as text": ([tool(t="now")], "steps[0].t must be a finite number, not text."),
}


@pytest.mark.parametrize(("listed", "what"), BAD_STEPS.values(), ids=BAD_STEPS.keys())
def test_bad_steps_are_named_by_their_place(listed: list[object], what: str) -> None:
    """A step of the wrong form is refused with its place in the run."""
    assert what in bad(line(steps=listed)).what


def test_an_endless_time_is_refused() -> None:
    """A number that JSON allows but no float can hold is no time."""
    assert "steps[0].t must be a finite number" in bad('{"id": 1, "steps": [{"kind": "llm", "t": 1e999}]}').what


def test_unknown_keys_are_ignored() -> None:
    """Recordings carry labels and whatever else a framework writes; that is not ours to refuse."""
    text = json.dumps({"id": "a", "outcome": "success", "steps": [{"kind": "llm", "text": "x", "color": 3}]})
    assert parse_line(text).steps == (ModelAnswered(agent="", model=None, usage=None),)


USAGES = {
    "openai chat": (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
        10,
        4,
    ),
    "openai responses": ({"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}, 10, 4),
    "openai realtime": ({"input_tokens": 10, "output_tokens": 5, "input_token_details": {"cached_tokens": 4}}, 10, 4),
    "anthropic": ({"input_tokens": 6, "output_tokens": 5, "cache_read_input_tokens": 4}, 10, 4),
    "langchain": ({"input_tokens": 10, "output_tokens": 5, "input_token_details": {"cache_read": 4}}, 10, 4),
    "bedrock": ({"inputTokens": 6, "outputTokens": 5, "cacheReadInputTokens": 4}, 10, 4),
    "gemini": ({"promptTokenCount": 10, "candidatesTokenCount": 5, "cachedContentTokenCount": 4}, 10, 4),
}


@pytest.mark.parametrize(("report", "entered", "cached"), USAGES.values(), ids=USAGES.keys())
def test_usage_in_every_providers_form(report: dict[str, object], entered: int, cached: int) -> None:
    """Whatever form a recorder kept, cached tokens are counted once."""
    [step] = steps(messages=[{"role": "assistant", "content": "x", "usage": report}])
    assert isinstance(step, ModelAnswered)
    assert step.usage == Usage(input_tokens=entered, cache_read_tokens=cached, output_tokens=5)


@pytest.mark.parametrize("report", [None, {}, {"prompt_tokens": None}])
def test_no_usage_is_not_zero(report: object) -> None:
    """An empty report is none."""
    [step] = steps(messages=[{"role": "assistant", "content": "x", "usage": report}])
    assert step == ModelAnswered(agent="", model=None, usage=None)
