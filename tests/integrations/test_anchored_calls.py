"""Real client loops: from the second call on, the input held for is what was counted plus what is new."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rr_clients import MODEL, World
from runrails import Guard, Limits
from runrails.cli.shell import run
from runrails.ledger import UsageRecord
from runrails.stores.memory import MemoryStore
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import ProviderRequest, Text, ToolCalls, ToolUse
from runrails.usage import Usage

SYSTEM = "You look after the orders of a shop, and answer in one sentence whatever the customer asks. " * 60
QUESTION = "Where is order 4711? It was to arrive on Monday."
RESULT = json.dumps({"order": 4711, "state": "in transit", "carrier": "Hermes", "weight_kg": 2.5})
TOOL: Any = {"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}
ANTHROPIC_TOOL: Any = {"name": "find_order", "input_schema": {"type": "object"}}
CALL = ToolCalls([ToolUse("find_order", {"order": 4711})], text="Let me look that up.")
STEPS = 6


def pairs(store: MemoryStore | SQLiteStore) -> list[tuple[int, int]]:
    """Predicted and actual input tokens of every call, oldest first."""
    records: list[UsageRecord] = sorted(store.usage(), key=lambda record: record.facts.step)
    return [
        (record.facts.input_bound_tokens, record.result.usage.input_tokens)
        for record in records
        if record.result is not None and record.result.usage is not None
    ]


def check_close(found: list[tuple[int, int]], *, steps: int = STEPS) -> None:
    """Never below; the first at most as its text can be, all others close."""
    assert steps == len(found)
    assert all(predicted >= actual for predicted, actual in found)
    first, *others = [predicted / actual for predicted, actual in found]
    assert first > 1.5
    assert max(others) < 1.25


def openai_loop(world: World, client: Any, *, steps: int = STEPS) -> list[Any]:
    """An agent's loop as people write it: the answer's own message goes back in."""
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    for _ in range(steps):
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL], max_tokens=200)
        message = answer.choices[0].message
        messages = [*messages, message]
        for call in message.tool_calls or []:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULT})
    return messages


def test_an_openai_loop_is_anchored() -> None:
    """With tool calls that go back as the SDK's own objects."""
    with World(CALL) as world, world.guard.run():
        openai_loop(world, world.openai())
        check_close(pairs(world.store))
        assert [] == [event.name for event in world.events if "input" in event.name]


def test_the_books_keep_what_was_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a file too, and `runrails usage --json` tells it beside what was reported."""
    store = SQLiteStore(tmp_path / "books.db")
    with World(CALL, store=store) as world, world.guard.run():
        openai_loop(world, world.openai(), steps=2)
        found = pairs(store)
        assert 2 == len(found)
        assert all(predicted >= actual > 0 for predicted, actual in found)
    assert 0 == run(["usage", "--json", "--store", f"sqlite:///{tmp_path / 'books.db'}"])
    records = json.loads(capsys.readouterr().out)
    assert found == [(record["input_bound_tokens"], record["input_tokens"]) for record in records]


def test_an_edited_history_is_bounded_as_a_whole() -> None:
    """So is one that was cut short; the conversation after it is anchored again."""
    with World(CALL) as world, world.guard.run():
        client = world.openai()
        messages = openai_loop(world, client)
        edited = [{"role": "system", "content": SYSTEM.replace("one sentence", "two sentences")}, *messages[1:]]
        for given in (edited, messages[:1] + messages[-2:], [*messages[:1], *messages[-2:], messages[1]]):
            client.chat.completions.create(model=MODEL, messages=given, tools=[TOOL], max_tokens=200)
        client.chat.completions.create(model=MODEL, messages=messages, max_tokens=200)  # without its tools
        ratios = [predicted / actual for predicted, actual in pairs(world.store)[STEPS:]]
        assert [True, True, False, True] == [ratio > 1.4 for ratio in ratios]


def test_an_anthropic_loop_is_anchored_while_its_cache_mark_moves() -> None:
    """The mark is no part of what the model reads, and stands at another message in every request."""
    with World(CALL) as world, world.guard.run():
        client = world.anthropic()
        messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
        for _ in range(STEPS):
            block = messages[-1]["content"][-1]
            marked = {**block, "cache_control": {"type": "ephemeral"}}
            sent = [*messages[:-1], {**messages[-1], "content": [*messages[-1]["content"][:-1], marked]}]
            answer = client.messages.create(
                model=MODEL, system=SYSTEM, messages=sent, tools=[ANTHROPIC_TOOL], max_tokens=200
            )
            results = [
                {"type": "tool_result", "tool_use_id": part.id, "content": RESULT}
                for part in answer.content
                if part.type == "tool_use"
            ]
            messages = [
                *messages,
                {"role": "assistant", "content": answer.content},
                {"role": "user", "content": results},
            ]
        check_close(pairs(world.store))


@pytest.mark.skipif(os.environ.get("RUNRAILS_TESTS") == "oldest", reason="create_agent is newer")
def test_a_langchain_agent_is_anchored() -> None:
    """By the callback alone, and by the middleware."""
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    from runrails.testing.langchain import ScriptedChatModel
    from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware

    @tool
    def find_order(order: int) -> str:
        """Find an order."""
        return json.dumps({"order": order, "state": "in transit", "carrier": "Hermes"})

    for with_middleware in (False, True):
        calls = [
            ToolCalls([ToolUse("find_order", {"order": number})], text="One moment.") for number in range(STEPS - 1)
        ]
        model = ScriptedChatModel([*calls, Text("It is on its way.")], max_tokens=300)
        store = MemoryStore()
        guard = Guard(Limits(run=None, steps=None), store=store, prices=model.prices, sinks=[], user="alice")
        middleware = [GuardrailMiddleware(guard)] if with_middleware else []
        callbacks = [] if with_middleware else [GuardrailCallbackHandler(guard)]
        agent = create_agent(model, [find_order], system_prompt=SYSTEM, middleware=middleware)
        agent.invoke({"messages": [("user", QUESTION)]}, config={"callbacks": callbacks})
        check_close(pairs(store))
        guard.close()


def test_a_provider_that_counts_more_is_told_of_and_given_a_margin() -> None:
    """One event a run and model; the next bound is wide enough, in every run of the guard, and never shrinks."""
    usage = Usage(input_tokens=30_000, output_tokens=10)
    with World(Text("Yes.", usage=usage)) as world:
        client = world.openai()
        with world.guard.run():
            for _ in range(3):
                client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": SYSTEM}], max_tokens=200
                )
        with world.guard.run():
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": SYSTEM}], max_tokens=200)
        told = [event for event in world.events if event.name == "runrails.input_underestimated"]
        assert ["warning"] == [event.level for event in told]
        first = pairs(world.store)[0][0]
        assert {"model": MODEL, "predicted_tokens": first, "actual_tokens": 30_000} == {
            name: told[0].fields[name] for name in ("model", "predicted_tokens", "actual_tokens")
        }
        assert first < 30_000
        found = sorted(predicted for predicted, _ in pairs(world.store))
        assert found[1] >= 33_000
        assert world.guard.margins.of("", MODEL) > 20_000


def test_a_picture_that_is_exchanged_is_bounded_anew() -> None:
    """As long as it is the same one, it was counted."""

    def picture(name: str) -> Any:
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{name}"}}

    with World(Text("A goat.")) as world, world.guard.run():
        client = world.openai()
        said: list[Any] = []
        for name in ("a", "a", "b"):
            said = [{"role": "user", "content": [{"type": "text", "text": SYSTEM}, picture(name)]}]
            client.chat.completions.create(model=MODEL, messages=said, max_tokens=200)
        first, second, third = (predicted for predicted, _ in pairs(world.store))
        assert first == third
        assert second < first - 40_000


def test_a_picture_behind_an_address_is_bounded_anew() -> None:
    """Whoever has the address may put a larger one there, and so spend what was never held, or widen every bound."""
    sizes = iter((2_000, 2_000 + 20 * 1_500))

    def answer(_: ProviderRequest) -> Text:
        return Text("A goat.", usage=Usage(input_tokens=next(sizes), output_tokens=2))

    pictures = [{"type": "image_url", "image_url": {"url": f"https://example.org/{n}.png"}} for n in range(20)]
    said: Any = [{"role": "user", "content": [{"type": "text", "text": "Look."}, *pictures]}]
    with World(answer) as world, world.guard.run():
        client = world.openai()
        for _ in range(2):
            client.chat.completions.create(model=MODEL, messages=said, max_tokens=200)
        world.settled()
        assert all(predicted >= reported for predicted, reported in pairs(world.store))
        assert {"bound_violated", "input_underestimated"}.isdisjoint(world.names())
