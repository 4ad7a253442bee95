"""Stored answers, cheaper models and shorter conversations of LangChain's models and agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

import rr_history
from rr_clients import TOLD, World
from runrails import ConfigError, Downgrade, Guard, LimitReached, Limits, Pruning, ResponseCache
from runrails.savers.pruning import marker
from runrails.stores.memory import MemoryStore
from runrails.testing.langchain import ScriptedChatModel
from runrails.testing.prices import PRICES
from runrails.testing.provider.values import Text, ToolCalls, ToolUse
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, ResponseCacheAdapter

LIMITS = Limits(run="1.00", month="100")


def _world(**options: Any) -> World:
    return World(TOLD, options.pop("limits", LIMITS), cache=ResponseCache(), **options)


def _model(world: World, **options: Any) -> ChatOpenAI:
    about: Any = {"model": "fake-model", "api_key": "k", "max_tokens": 900, "max_retries": 0, **options}
    return ChatOpenAI(base_url=world.provider.openai_url, **about)


def _config(world: World, **metadata: Any) -> Any:
    return {"callbacks": [GuardrailCallbackHandler(world.guard)], "metadata": metadata}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_is_given_again_without_asking(asynchronous: bool) -> None:
    """It costs nothing, is a step, and the report says what it saved."""
    with _world() as world:
        model = _model(world, cache=ResponseCacheAdapter(world.guard))
        with world.guard.run() as run:
            if asynchronous:
                first, again = (asyncio.run(model.ainvoke("hi")) for _ in range(2))
            else:
                first, again = model.invoke("hi"), model.invoke("hi")
        world.settled()
        report = run.report()

        assert 1 == world.hits
        assert (first.content, first.response_metadata) == (again.content, again.response_metadata)
        assert first.id != again.id
        assert (2, ["completed", "cached"]) == (report.steps, [row.end for row in report.rows])
        assert [("cache", 1, world.billed)] == [(each.what, each.calls, each.saved_pusd) for each in report.savings]
        assert 1 == world.names().count("response_cached")


def test_a_wrapped_client_below_counts_once() -> None:
    """The callback's layer is the one that asks the cache."""
    with _world() as world:
        client = world.openai()
        model = _model(
            world, cache=ResponseCacheAdapter(world.guard), client=client.chat.completions, root_client=client
        )
        with world.guard.run() as run:
            model.invoke("hi")
            model.invoke("hi")
        world.settled()

        assert (1, 2) == (world.hits, run.report().steps)


def test_no_tenant_is_given_the_answer_of_another() -> None:
    """LangChain's metadata says whose a call is."""
    with _world() as world:
        model = _model(world, cache=ResponseCacheAdapter(world.guard))
        for user in ("bob", "carol", "bob", "carol"):
            model.invoke("hi", config=_config(world, runrails_user=user))

        assert 2 == world.hits


def test_a_call_of_nobody_is_not_stored() -> None:
    """Without the guard's callback nobody says whose it is; another guard's run says nothing either."""
    with _world() as world:
        model = _model(world, cache=ResponseCacheAdapter(world.guard))
        other = Guard(LIMITS, user="bob", store=MemoryStore(), prices=PRICES, sinks=[])
        with other:
            model.invoke("hi")
            model.invoke("hi")
            with other.run():
                model.invoke("hi")
                model.invoke("hi")

        assert 4 == world.hits


@pytest.mark.parametrize("other", [{"temperature": 0.5}, {"model": "fake-reasoner"}, {"max_tokens": 901}])
def test_another_question_is_asked(other: dict[str, Any]) -> None:
    """Whatever can change the answer."""
    with _world() as world:
        cache = ResponseCacheAdapter(world.guard)
        with world.guard.run():
            _model(world, cache=cache).invoke("hi")
            _model(world, cache=cache, **other).invoke("hi")
            _model(world, cache=cache).invoke("Hi")

        assert 3 == world.hits


def test_tool_calls_are_given_again_and_count_as_steps() -> None:
    """An agent that asks the same for ever ends at its limit; what is not JSON is a miss."""
    with World(
        ToolCalls([ToolUse("f", {"a": 1}, "call_7")]), Limits(run="1.00", steps=5), cache=ResponseCache()
    ) as world:
        model = _model(world, cache=ResponseCacheAdapter(world.guard))

        def ask() -> None:
            with world.guard.run():
                for _ in range(10):
                    assert "call_7" == model.invoke("hi").tool_calls[0]["id"]

        with pytest.raises(LimitReached):
            ask()

        assert 1 == world.hits
        world.settled()


@pytest.mark.parametrize("damage", [b"[", b"[1]", b'[{"message": {"type": "human", "data": {"content": "x"}}}]'])
def test_a_stored_answer_that_is_none_is_a_miss_and_an_event(damage: bytes) -> None:
    """It is forgotten, and the model is asked."""
    with _world() as world:
        model = _model(world, cache=ResponseCacheAdapter(world.guard))
        cache: Any = world.guard.cache
        with world.guard.run():
            model.invoke("hi")
            cache.put(next(iter(cache._storage._kept)), damage, lambda reason: None)
            model.invoke("hi")
            model.invoke("hi")
        world.settled()

        assert (2, 1) == (world.hits, world.names().count("cache_failed"))


def test_a_guard_without_a_cache_has_no_adapter() -> None:
    """It is said what to write."""
    with Guard(store=MemoryStore()) as guard, pytest.raises(ConfigError, match="ResponseCache"):
        ResponseCacheAdapter(guard)


# Agents.


class Researcher:
    """An agent that looks up one thing after another, and the requests its models were sent."""

    def __init__(self, lookups: int, limits: Limits, *, cheaper: bool = False, **usage: Any) -> None:
        self.sent: list[tuple[str, list[BaseMessage]]] = []
        self.events: list[Any] = []
        self.guard = Guard(limits, user="alice", store=MemoryStore(), prices=PRICES, sinks=[self.events.append])
        self._lookups = lookups

        def made(name: str) -> ScriptedChatModel:
            def script(messages: Sequence[BaseMessage]) -> Any:
                self.sent.append((name, list(messages)))
                if len(self.sent) > self._lookups:
                    return Text("done")
                number = len(self.sent)
                return ToolCalls([ToolUse("look", {"what": f"{number}{side}"}, f"c{number}{side}") for side in "ab"])

            return ScriptedChatModel(script, model_name=name, max_tokens=900)

        @tool
        def look(what: str) -> str:
            """Look something up."""
            return f"found {what} " + "x" * 100

        middleware = GuardrailMiddleware(self.guard, cheaper=[made("fake-reasoner")] if cheaper else ())
        self.agent: Any = create_agent(
            made("fake-model"), [look], system_prompt="be brief", middleware=[middleware], checkpointer=InMemorySaver()
        )

    def run(self, **config: Any) -> tuple[Any, Any]:
        """The saved conversation and the report."""
        asked: Any = {"messages": [HumanMessage("the task")]}
        with self.guard, self.guard.run() as run:
            answer = self.agent.invoke(asked, config={"configurable": {"thread_id": "1"}, **config})
        return answer["messages"], run.report()

    def named(self, name: str) -> list[Any]:
        """The events of that name."""
        return [each.fields for each in self.events if each.name == f"runrails.{name}"]


def test_an_agents_long_conversation_is_sent_shorter_and_saved_whole() -> None:
    """Every request is one that providers accept; the state has every message, and no note of ours."""
    world = Researcher(12, Limits(run="5.00", pruning=Pruning(after_messages=12, keep_last=6)))

    saved, report = world.run()

    sizes = [len(messages) for _, messages in world.sent]
    assert 13 == len(sizes)
    assert max(sizes) <= 13  # with the system prompt
    assert [] == [problem for _, messages in world.sent for problem in rr_history.problems(messages)]
    assert 38 == len(saved)
    assert not any("[runrails]" in str(message.content) for message in saved)
    newest = world.sent[-1][1]
    assert ("be brief", "the task") == (newest[0].content, newest[1].content)
    assert marker(37 - 1 - (len(newest) - 3)) == newest[2].content
    (saving,) = report.savings
    assert ("pruning", True) == (saving.what, saving.saved_pusd > 0)
    assert len(world.named("conversation_pruned")) == saving.calls
    assert ["messages"] == [each["what"] for each in world.named("context_filling")]


def test_an_agents_call_of_a_named_kind_goes_to_the_cheaper_model() -> None:
    """By the tag of its metadata; its record says which model was asked for."""
    limits = Limits(run="5.00", downgrade=Downgrade(to="fake-reasoner", kinds=("classify",)))
    world = Researcher(1, limits, cheaper=True)

    _, report = world.run(metadata={"runrails_tags": {"kind": "classify"}})

    assert ["fake-reasoner"] * 2 == [name for name, _ in world.sent]
    assert {"fake-reasoner"} == {row.name for row in report.by("model")}
    assert ["fake-model"] == [row.name for row in report.by("tag:asked_model")]
    assert [("downgrade", 2, True)] == [(each.what, each.calls, each.saved_pusd > 0) for each in report.savings]
    assert 2 == len(world.named("model_downgraded"))
    assert json.dumps(report.as_dict())


def test_from_a_share_of_the_budget_on_an_agent_goes_on_cheaper() -> None:
    """In the middle of its task, with the same conversation."""
    limits = Limits(run="0.04", downgrade=Downgrade(to={"fake-model": "fake-reasoner"}, above="0.1"))
    world = Researcher(12, limits, cheaper=True)

    saved, _ = world.run()

    names = [name for name, _ in world.sent]
    assert sorted(names) == names
    assert {"fake-model", "fake-reasoner"} == set(names)
    assert [] == rr_history.problems(saved)


@pytest.mark.parametrize("own", [{"max_completion_tokens": 4_000}, {}, {"max_completion_tokens": 50}, {"n": 3}])
def test_a_cheaper_model_is_asked_for_no_more_than_the_other(own: dict[str, Any]) -> None:
    """Settings of its own would make a dear call of a cheap one; where they cannot be lowered the call stays."""
    limits = Limits(run="5.00", downgrade=Downgrade(to="fake-reasoner", kinds=("classify",)))
    with _world(limits=limits) as world:
        common: Any = {"base_url": world.provider.openai_url, "api_key": "k", "max_retries": 0}
        cheap = ChatOpenAI(model="fake-reasoner", **common, **own)
        agent: Any = create_agent(
            _model(world, max_tokens=100), [], middleware=[GuardrailMiddleware(world.guard, cheaper=[cheap])]
        )
        with world.guard.run():
            agent.invoke({"messages": [HumanMessage("hi")]}, {"metadata": {"runrails_tags": {"kind": "classify"}}})

        ((sent, cap),) = [(each.model, each.max_tokens) for each in world.provider.received]
        told = [e.fields["reason"] for e in world.events if e.name == "runrails.downgrade_refused"]
        if "n" in own:
            assert ("fake-model", 100, ["adapter"]) == (sent, cap, told)
        else:
            assert ("fake-reasoner", min(100, own.get("max_completion_tokens", 100)), []) == (sent, cap, told)


def test_a_cheaper_model_that_nobody_gave_is_told_once() -> None:
    """The agent goes on with its own."""
    limits = Limits(run="5.00", downgrade=Downgrade(to="fake-reasoner", kinds=("classify",)))
    world = Researcher(2, limits)

    _, report = world.run(metadata={"runrails_tags": {"kind": "classify"}})

    assert {"fake-model"} == {name for name, _ in world.sent}
    assert ["no_model"] == [each["reason"] for each in world.named("downgrade_refused")]
    assert () == report.savings


def test_a_bare_callback_cannot_change_a_request_and_says_so_once() -> None:
    """It is sent as it is."""
    rule = Downgrade(to="fake-reasoner", kinds=("classify",))
    with _world(limits=Limits(run="1.00", downgrade=rule)) as world:
        model = _model(world)
        with world.guard.run() as run, world.guard.attribute(tags={"kind": "classify"}):
            model.invoke("hi")
            model.invoke("hi")

        assert ["fake-model"] * 2 == [each.model for each in world.provider.received]
        told = [e.fields["reason"] for e in world.events if e.name == "runrails.downgrade_refused"]
        assert ["adapter"] == told
        assert () == run.report().savings


@pytest.mark.parametrize("wrong", [["gpt-4o-mini"], [object()], [AIMessage("x")]])
def test_cheaper_models_are_chat_models(wrong: Any) -> None:
    """What is none is refused at once."""
    with Guard(store=MemoryStore()) as guard, pytest.raises(ConfigError, match="cheaper"):
        GuardrailMiddleware(guard, cheaper=wrong)
