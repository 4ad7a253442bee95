"""Whose money LangChain's calls are: by `metadata` and by `guard.attribute`, behind every layer of ours."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

import rr_lc
from rr_lc import Text, ToolCalls, ToolUse
from runrails import BudgetExceeded, ConfigError, Guard, GuardrailStopped, Limits, ScopeExhausted
from runrails.ledger import Account, RunArchive, SupportsUsage
from runrails.periods import month_of
from runrails.testing.langchain import ScriptedChatModel
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware

CENT = 10**10
LAYERS = ("callback", "with", "middleware", "both", "supervisor")
WRONG = (
    {"runrails_user": "no body"}, {"runrails_user": 5}, {"runrails_key": ""}, {"runrails_org": ["acme"]},
    {"runrails_tags": "team=ads"}, {"runrails_tags": {"team": 5}}, {"runrails_tags": {"te am": "ads"}},
)  # fmt: skip


def flat(script: Any, **fields: Any) -> ScriptedChatModel:
    """A model at one cent a call."""
    return ScriptedChatModel(script, model_name="fake-flat", max_tokens=100, **fields)


@tool
def look(what: str) -> str:
    """Look something up."""
    return f"{what} is fine"


def steps() -> ScriptedChatModel:
    """A model that looks one thing up and then answers, for any number of conversations at once."""

    def answer(messages: Any) -> Any:
        return Text("Done.") if messages[-1].type == "tool" else ToolCalls([ToolUse("look", {"what": "it"})])

    return flat(answer)


def asked(text: str = "Look.") -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def metadata(user: str, **more: object) -> dict[str, Any]:
    return {"metadata": {"runrails_user": user, **more}}


def call(layer: str, guard: Guard, model: ScriptedChatModel, config: dict[str, Any]) -> Any:
    """One agent's run behind one layer, or two."""
    middleware = [GuardrailMiddleware(guard)] if layer in ("middleware", "both") else []
    agent = create_agent(model, [look], middleware=middleware)
    if layer in ("callback", "both"):
        return agent.invoke(asked(), {**config, "callbacks": [GuardrailCallbackHandler(guard)]})  # type: ignore[arg-type]
    if layer == "with":
        with guard.run():
            return agent.invoke(asked(), config)  # type: ignore[arg-type]
    if layer == "supervisor":
        return guard.supervise(agent).invoke(asked(), config)
    return agent.invoke(asked(), config)  # type: ignore[arg-type]


def spent(guard: Guard, *users: str) -> list[int]:
    """What each user has spent this month, in cents."""
    month = month_of(guard.clock())
    return [guard.store.balance(Account(f"user:{user}", month)).spent // CENT for user in users]


def held(guard: Guard, user: str) -> int:
    """What a user's calls hold."""
    return guard.store.balance(Account(f"user:{user}", month_of(guard.clock()))).held


def calls_of(guard: Guard) -> Counter[tuple[str, str | None, str | None, tuple[tuple[str, str], ...]]]:
    """Whose the calls in the books are."""
    assert isinstance(guard.store, SupportsUsage)
    return Counter((r.facts.user, r.facts.key, r.facts.org, r.facts.tags) for r in guard.store.usage())


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_malformed_metadata_sends_nothing(layer: str, wrong: dict[str, Any]) -> None:
    """A ConfigError before anything is sent or held, in every layer; the next call is as usual."""
    with rr_lc.make_guard(user="alice") as guard:
        model = steps()
        with pytest.raises(ConfigError, match="metadata"):
            call(layer, guard, model, {"metadata": wrong})
        assert (0, [0], 0) == (model.calls, spent(guard, "alice"), held(guard, "alice"))
        call(layer, guard, model, {})
        assert [2] == spent(guard, "alice")


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_malformed_metadata_of_a_model_alone_sends_nothing(wrong: dict[str, Any]) -> None:
    """The same for a model without a chain, and nothing of the refused call stays in flight."""
    with rr_lc.make_guard(user="alice") as guard:
        model, handler = flat("Fine."), GuardrailCallbackHandler(guard)
        with pytest.raises(ConfigError, match="metadata"):
            model.invoke("hi", {"callbacks": [handler], "metadata": wrong})
        assert (0, 0) == (model.calls, held(guard, "alice"))
        model.invoke("hi", {"callbacks": [handler]})
        assert [1] == spent(guard, "alice")


@pytest.mark.parametrize("layer", LAYERS)
def test_metadata_says_whose_an_agents_calls_are(layer: str) -> None:
    """User, key, organisation and tags of the agent's `metadata` are on every model call of it, counted once."""
    said = metadata("bob", runrails_key="k1", runrails_org="acme", runrails_tags={"team": "ads"})
    with rr_lc.make_guard(user="alice", tags={"env": "prod"}) as guard:
        call(layer, guard, steps(), said)
        assert {("bob", "k1", "acme", (("env", "prod"), ("team", "ads"))): 2} == calls_of(guard)
        assert [0, 2] == spent(guard, "alice", "bob")


@pytest.mark.parametrize("mode", rr_lc.MODES)
def test_every_way_to_call_carries_it(mode: str) -> None:
    """Invoke, stream, batch and events, sync and async."""
    with rr_lc.make_guard(user="alice") as guard:
        agent = create_agent(steps(), [look])
        config = {**metadata("bob"), "callbacks": [GuardrailCallbackHandler(guard)]}
        rr_lc.drive(mode, agent, asked(), config)
        assert [0, 2] == spent(guard, "alice", "bob")


@pytest.mark.parametrize("layer", ["callback", "middleware", "both"])
def test_a_root_chains_run_is_its_users(layer: str) -> None:
    """The run that a root chain or an invocation opens is theirs whom its metadata names, and ends with their month."""
    with rr_lc.make_guard(Limits(month="0.02"), user="alice") as guard:
        call(layer, guard, steps(), metadata("bob", runrails_tags={"team": "ads"}))
        assert isinstance(guard.store, RunArchive)
        (record,) = guard.store.runs()
        assert ("bob", {"team": "ads"}) == (record.user, record.report["tags"])
        model = steps()
        if layer == "callback":
            with pytest.raises(BudgetExceeded, match="user:bob"):
                call(layer, guard, model, metadata("bob"))
        else:
            assert "user:bob" in call(layer, guard, model, metadata("bob"))["messages"][-1].text
        assert 0 == model.calls
        call(layer, guard, model, metadata("carol"))
        assert [0, 2, 2] == spent(guard, "alice", "bob", "carol")


@pytest.mark.parametrize("layer", ["with", "supervisor"])
def test_one_users_month_does_not_end_a_run_for_all(layer: str) -> None:
    """In a run that serves many, a call for a user whose month is over is refused, and the next one's goes on."""
    with rr_lc.make_guard(Limits(month="0.02"), user="alice") as guard:
        call(layer, guard, steps(), metadata("bob"))
        with guard.run() as run:
            model = steps()
            agent = create_agent(model, [look])
            with pytest.raises(ScopeExhausted, match="user:bob"):
                agent.invoke(asked(), metadata("bob"))  # type: ignore[arg-type]
            assert (0, None) == (model.calls, run.stopped)
            agent.invoke(asked(), metadata("carol"))  # type: ignore[arg-type]
        assert [0, 2, 2] == spent(guard, "alice", "bob", "carol")
        assert {"carol": 2} == {row.name: row.calls for row in run.report().by("user")}


def test_a_middleware_in_anothers_run_refuses_the_call_alone() -> None:
    """With middleware inside `with guard.run():` a refusal for one user is an error of that call, not an end."""
    with rr_lc.make_guard(Limits(month="0.01"), user="alice") as guard, guard.run() as run:
        agent = create_agent(flat("Fine."), middleware=[GuardrailMiddleware(guard)])
        agent.invoke(asked(), metadata("bob"))  # type: ignore[arg-type]
        with pytest.raises(ScopeExhausted):
            agent.invoke(asked(), metadata("bob"))  # type: ignore[arg-type]
        assert run.stopped is None
        agent.invoke(asked(), metadata("carol"))  # type: ignore[arg-type]
        assert ([0, 1, 1], 2) == (spent(guard, "alice", "bob", "carol"), run.report().steps)


def test_a_block_says_it_for_all_inside() -> None:
    """`guard.attribute` counts in every layer; `metadata` goes before it, and the guard's own after it."""
    for layer in LAYERS:
        with rr_lc.make_guard(user="alice") as guard:
            with guard.attribute(user="bob", org="acme"):
                call(layer, guard, steps(), {})
                call(layer, guard, steps(), metadata("carol"))
            call(layer, guard, steps(), {})
            assert {
                ("bob", None, "acme", ()): 2,
                ("carol", None, "acme", ()): 2,
                ("alice", None, None, ()): 2,
            } == calls_of(guard), layer


def test_a_supervised_run_in_a_block_ends_with_its_users_month() -> None:
    """Inside a block the supervisor's run is that user's: its end is an outcome, and the report is theirs."""
    with rr_lc.make_guard(Limits(month="0.01"), user="alice") as guard:
        supervisor = guard.supervise(create_agent(steps(), [look]))
        with guard.attribute(user="bob"):
            outcome = supervisor.invoke(asked())
        assert ("budget_exceeded", "bob") == (outcome.stop_reason, outcome.report.user)
        assert isinstance(outcome.stop, GuardrailStopped)
        assert [0, 1] == spent(guard, "alice", "bob")


def test_models_without_a_chain_share_a_run_and_nobody_pays_for_another() -> None:
    """The run that such calls share stays the guard's, whoever called first; each call is whose it says."""
    with rr_lc.make_guard(Limits(month="0.01"), user="alice") as guard:
        model, handler = flat("Fine."), GuardrailCallbackHandler(guard)
        with guard.attribute(user="bob"):
            model.invoke("hi", {"callbacks": [handler]})
            with pytest.raises(ScopeExhausted, match="user:bob"):
                model.invoke("hi", {"callbacks": [handler]})
        model.invoke("hi", {"callbacks": [handler], **metadata("carol")})
        model.invoke("hi", {"callbacks": [handler]})
        assert [1, 1, 1] == spent(guard, "alice", "bob", "carol")
        assert handler.last_run is not None
        assert "alice" == handler.last_run.report().user


def test_a_models_own_metadata_is_the_newest() -> None:
    """What is bound to one model inside an agent goes before what the agent was called with, tag by tag."""
    with rr_lc.make_guard(user="alice") as guard:
        inner = flat("A joke.").with_config(metadata={"runrails_org": "jokes"})

        @tool
        def joke() -> str:
            """Tell a joke."""
            return inner.invoke("go on").text

        agent = create_agent(flat([ToolCalls([ToolUse("joke", {})]), "Ha."]), [joke])
        agent.invoke(asked(), {**metadata("bob"), "callbacks": [GuardrailCallbackHandler(guard)]})  # type: ignore[arg-type]
        assert {("bob", None, None, ()): 2, ("bob", None, "jokes", ()): 1} == calls_of(guard)


@pytest.mark.parametrize("layer", ["handler", "with", "middleware"])
async def test_users_served_at_once_do_not_mix(layer: str) -> None:
    """Twenty agents at once, one handler or run or middleware: by metadata or by block, each pays for its own."""
    with rr_lc.make_guard(Limits(month="0.02"), user="alice") as guard:
        handler = GuardrailCallbackHandler(guard)
        middleware = [GuardrailMiddleware(guard)] if layer == "middleware" else []
        agent = create_agent(steps(), [look], middleware=middleware)
        extra: dict[str, Any] = {"callbacks": [handler]} if layer == "handler" else {}

        async def serve(number: int) -> None:
            if number % 2:
                await agent.ainvoke(asked(), {**extra, **metadata(f"u{number}")})
            else:
                with guard.attribute(user=f"u{number}"):
                    await agent.ainvoke(asked(), extra)  # type: ignore[arg-type]

        if layer == "with":
            async with guard.run(limits=Limits(run=None, steps=None)):
                await asyncio.gather(*map(serve, range(20)))
        else:
            await asyncio.gather(*map(serve, range(20)))
        assert [2] * 20 == spent(guard, *[f"u{n}" for n in range(20)])
        assert [0] == spent(guard, "alice")


def test_a_batch_has_a_user_for_each_input() -> None:
    """A batch with a configuration for each input pays for each by its own metadata, in LangChain's threads."""
    with rr_lc.make_guard(user="alice") as guard:
        agent = create_agent(steps(), [look])
        handler = GuardrailCallbackHandler(guard)
        configs: list[Any] = [{**metadata(f"u{n}"), "callbacks": [handler]} for n in range(6)]
        agent.batch([asked()] * 6, configs)
        assert [2] * 6 == spent(guard, *[f"u{n}" for n in range(6)])


def test_a_remote_store_keeps_users_apart() -> None:
    """With hooks off the event loop, metadata and block still reach the call they were said for."""
    from runrails.stores.memory import MemoryStore
    from runrails.testing import FlakyStore

    with rr_lc.make_guard(user="alice", store=FlakyStore(MemoryStore(), remote=True)) as guard:
        agent = create_agent(steps(), [look])
        handler = GuardrailCallbackHandler(guard)

        async def serve(number: int) -> None:
            with guard.attribute(user=f"u{number}", org=f"o{number}"):
                await agent.ainvoke(asked(), {"callbacks": [handler]})
            await agent.ainvoke(asked(), {**metadata(f"u{number}"), "callbacks": [handler]})

        async def main() -> None:
            await asyncio.gather(*map(serve, range(4)))

        asyncio.run(main())
        assert [4] * 4 == spent(guard, *[f"u{n}" for n in range(4)])


def test_metadata_goes_with_a_saved_conversation() -> None:
    """A graph with a checkpointer takes the same metadata, tags too, and keeps going."""
    with rr_lc.make_guard(user="alice") as guard:
        agent = create_agent(steps(), [look], checkpointer=InMemorySaver(), middleware=[GuardrailMiddleware(guard)])
        said = metadata("bob", runrails_tags={"team": "ads"})
        for _ in range(2):
            agent.invoke(asked(), {**said, "configurable": {"thread_id": "one"}})  # type: ignore[arg-type]
        assert {("bob", None, None, (("team", "ads"),)): 4} == calls_of(guard)


async def test_a_supervised_runs_metadata_say_whose_the_run_is() -> None:
    """The exhausted month of the one it is for ends it with an outcome, as the guard's own user's would."""
    with rr_lc.make_guard(Limits(month="0.02"), user="alice") as guard:
        supervisor = guard.supervise(create_agent(steps(), [look]).with_config(metadata={"runrails_org": "acme"}))
        first = supervisor.invoke(asked(), metadata("bob"))
        again = await supervisor.ainvoke(asked(), config=metadata("bob"))
        streamed = supervisor.stream(asked(), metadata("bob"))
        list(streamed)

        assert [None, "budget_exceeded", "budget_exceeded"] == [
            outcome.stop_reason for outcome in (first, again, streamed.outcome)
        ]
        assert ("bob", "acme") == (again.report.user, again.report.org)
        assert [0, 2] == spent(guard, "alice", "bob")
        assert supervisor.invoke(asked()).stop is None


def test_a_stream_is_paid_by_whoever_begins_to_read_it() -> None:
    """LangChain's streams begin with the first chunk: what a block has only made is nobody's call yet."""
    with rr_lc.make_guard(user="alice") as guard:
        config: Any = {"callbacks": [GuardrailCallbackHandler(guard)]}
        with guard.attribute(user="bob"):
            made, begun = (flat("one two three").stream("hi", config) for _ in range(2))
            next(begun)
        with guard.attribute(user="carol"):
            list(made)
            list(begun)
        assert [0, 1, 1] == spent(guard, "alice", "bob", "carol")
