"""The OpenAI Agents SDK's own agents under the guard, over real clients and a fake provider."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    FunctionTool,
    MaxTurnsExceeded,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIProvider,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    SQLiteSession,
    WebSearchTool,
    function_tool,
    handoff,
    set_tracing_disabled,
)
from agents.run_state import RunState

from rr_clients import TOLD, World
from rr_desk import BAD, EXPECTED, TASK, Desk, deaf, desk
from runrails import Guard, GuardrailStopped, Limits
from runrails.errors import (
    BoundUnknown,
    BudgetExceeded,
    CallTooLarge,
    ConfigError,
    GuardFault,
    LoopDetected,
    PriceUnknown,
)
from runrails.testing.provider import Error, ProviderRequest, Stall, Text, ToolCalls, ToolUse
from runrails.testing.provider.script import Script
from runrails_openai_agents import GuardrailRunner, guard_agent, guard_config, models
from runrails_openai_agents.models import GuardedModel
from runrails_openai_agents.requests import question_of

set_tracing_disabled(disabled=True)

KINDS = (OpenAIChatCompletionsModel, OpenAIResponsesModel)
MODES = ("run", "streamed")
MODEL = "fake-model"
FREE = Limits(run="50", month="100", steps=None)
LOOK = ToolUse("look", {"text": "x"})


class Bench:
    """A provider, a guard, and agents whose client is closed in the end."""

    def __init__(self, script: Script, limits: Limits | None = None, **options: Any) -> None:
        self.world = World(script, limits or FREE, **options).__enter__()
        self.guard: Guard = self.world.guard
        self.runner = GuardrailRunner(self.guard)
        self.client = openai.AsyncOpenAI(base_url=self.world.provider.openai_url, api_key="k", max_retries=0)
        self.exact = True
        self.looks = 0
        self.answers: list[str] = ["no result"]

    def model(self, kind: type[Model] = OpenAIChatCompletionsModel, name: str = MODEL) -> Model:
        return kind(name, self.client)  # type: ignore[call-arg]

    def agent(self, model: Model | None = None, **options: Any) -> Agent[Any]:
        options.setdefault("tools", [self.look()])
        return Agent(
            name=options.pop("name", "clerk"), instructions="Be quick.", model=model or self.model(), **options
        )

    def look(self) -> FunctionTool:
        @function_tool
        def look(text: str) -> str:
            """Look something up."""
            self.looks += 1
            return self.answers[min(self.looks, len(self.answers)) - 1]

        return look

    async def go(self, agent: Agent[Any], mode: str = "run", given: Any = TASK, **options: Any) -> Any:
        options.setdefault("max_turns", 100)
        if mode == "run":
            return await self.runner.run(agent, given, **options)
        result = self.runner.run_streamed(agent, given, **options)
        async for _ in result.stream_events():
            pass
        return result

    async def close(self) -> None:
        await self.client.close()
        await asyncio.sleep(0)
        try:
            if self.exact:
                self.world.settled()
        finally:
            self.world.__exit__(None, None, None)


async def until(so: Callable[[], bool]) -> None:
    """What another thread or task of the SDK does cannot be waited for otherwise."""
    for _ in range(2_000):
        if so():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to it")


@pytest.fixture
async def make() -> AsyncIterator[Any]:
    """Makes benches and checks, when the test is over, that their ledgers are their bills."""
    made: list[Bench] = []

    def bench(script: Script, limits: Limits | None = None, **options: Any) -> Bench:
        made.append(Bench(script, limits, **options))
        return made[-1]

    yield bench
    for one in made:
        await one.close()


# Stopping.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
async def test_the_founding_agent_ends_normally(make: Any, kind: type[Model], mode: str) -> None:
    """The bad review is recorded, the others are done; the failing call is executed at most five times."""
    bench, done = make(desk), Desk()
    agent = bench.agent(bench.model(kind), tools=[function_tool(done.classify), function_tool(done.record)])

    result = await bench.go(agent, mode)

    assert "The reviews are classified." == result.final_output
    assert EXPECTED == done.topics
    assert 4 == done.calls[f"classify {BAD}"]
    assert ["loop_hinted", "loop_blocked", "run_ended"] == bench.world.names()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_model_that_ignores_everything_is_stopped(make: Any, kind: type[Model], mode: str) -> None:
    """Four executions, one block, and the attempt after it ends the run at the model, with its public type."""
    bench = make(deaf(LOOK))

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(bench.model(kind)), mode)

    assert (4, 6) == (bench.looks, bench.world.hits)


async def test_nothing_starts_after_the_stop(make: Any) -> None:
    """The run around it stays stopped: another agent in it sends nothing, whoever caught the exception."""
    bench = make(deaf(LOOK))
    with pytest.raises(GuardrailStopped), bench.guard.run() as run:
        for _ in range(3):
            with pytest.raises(GuardrailStopped):
                await bench.go(bench.agent())
        hits = bench.world.hits
        with pytest.raises(GuardrailStopped):
            await bench.go(bench.agent(), "streamed", "something else")
        run.check()

    assert (6, 4) == (hits, bench.looks)
    assert hits == bench.world.hits


async def test_the_saved_conversation_is_whole_after_a_stop(make: Any) -> None:
    """Every call in the session has its output, so a provider takes the conversation up again."""
    bench = make(deaf(LOOK, most=6))
    session = SQLiteSession("s")
    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(), session=session)

    items: list[Any] = await session.get_items()
    asked = [item["call_id"] for item in items if item.get("type") == "function_call"]
    answered = [item["call_id"] for item in items if item.get("type") == "function_call_output"]

    assert asked == answered
    assert "I give up." == (await bench.go(bench.agent(), given="And now?", session=session)).final_output
    session.close()


async def test_an_unknown_tool_is_a_loop_as_well(make: Any) -> None:
    """The SDK answers such calls itself; their results are counted from the next request."""
    bench = make(deaf(ToolUse("nothing_like_it", {})))
    config = RunConfig(tool_not_found_behavior="return_error_to_model")

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(), run_config=config)

    assert 5 == bench.world.hits


async def test_parallel_identical_calls_count_as_one_attempt(make: Any) -> None:
    """Three equal calls in one answer are one attempt: the fifth answer's are not executed."""
    bench = make(deaf(LOOK, LOOK, LOOK))

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent())

    assert (12, 6) == (bench.looks, bench.world.hits)


async def test_a_tool_that_raises_is_a_loop_as_well(make: Any) -> None:
    """The SDK makes a text of the error, which is the outcome."""
    bench = make(deaf(ToolUse("broken", {})))
    calls = 0

    @function_tool
    def broken() -> str:
        """Break."""
        nonlocal calls
        calls += 1
        raise OSError("the disk is gone")

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(tools=[broken]))

    assert 4 == calls


async def test_progress_is_no_loop(make: Any) -> None:
    """Forty calls with something new each are not touched."""
    bench = make(deaf(LOOK, most=40))
    bench.answers = [f"row {number}" for number in range(40)]

    result = await bench.go(bench.agent())

    assert ("I give up.", 40, []) == (result.final_output, bench.looks, bench.world.names()[:-1])


async def test_a_hint_is_added_to_the_tools_own_text(make: Any) -> None:
    """The model reads the result first, and a user's own guardrails have seen the result without the hint."""
    seen: list[str] = []

    def script(request: ProviderRequest) -> Any:
        seen.append(request.last.text if request.last is not None else "")
        return deaf(LOOK, most=3)(request)

    bench = make(script)
    await bench.go(bench.agent())

    assert ["no result", "no result"] == seen[1:3]
    assert seen[3].startswith("no result\n\n[runrails]")


# Other agents.


async def test_handoffs_belong_to_it(make: Any) -> None:
    """Both agents are guarded, by handoff object or agent, in a circle too, and the loop is seen in the second one."""

    def script(request: ProviderRequest) -> Any:
        if request.number == 1:
            return ToolCalls([ToolUse("transfer_to_second", {}, id="h1")])
        return deaf(LOOK)(request)

    bench = make(script)
    first = bench.agent(name="first", tools=[])
    second = bench.agent(name="second", handoffs=[handoff(first)])
    first.handoffs.append(second)

    with pytest.raises(LoopDetected):
        await bench.go(first)

    assert (4, 7) == (bench.looks, bench.world.hits)
    assert second.tools[0].tool_input_guardrails is None  # type: ignore[union-attr] -- the user's own are untouched


async def test_an_agent_as_a_tool_draws_on_the_same_run(make: Any) -> None:
    """A guarded inner agent is hinted at and blocked; the stop is the outer run's, and comes at the outer model."""

    def script(request: ProviderRequest) -> Any:
        if any("ask_inner" in tool for tool in request.tools):
            return deaf(ToolUse("ask_inner", {"input": "x"}))(request)
        return deaf(LOOK)(request)

    bench = make(script)
    inner = guard_agent(bench.guard, bench.agent(name="inner"))
    outer = bench.agent(tools=[inner.as_tool("ask_inner", "Ask.")])

    with pytest.raises(LoopDetected):
        await bench.go(outer)

    assert (4, 7) == (bench.looks, bench.world.hits)
    assert 1 == bench.world.names().count("run_ended")


async def test_an_inner_agent_with_a_model_by_name_is_guarded_through_the_configuration(make: Any) -> None:
    """Its tools cannot be blocked, so it is stopped after the fifth execution."""

    def script(request: ProviderRequest) -> Any:
        if any("ask_inner" in tool for tool in request.tools):
            return deaf(ToolUse("ask_inner", {"input": "x"}))(request)
        return deaf(LOOK)(request)

    bench = make(script)
    inner = Agent(name="inner", model=MODEL, tools=[bench.look()])
    outer = Agent(name="outer", model=MODEL, tools=[inner.as_tool("ask_inner", "Ask.", max_turns=50)])
    config = RunConfig(model_provider=OpenAIProvider(openai_client=bench.client, use_responses=False))

    with pytest.raises(LoopDetected):
        await bench.go(outer, run_config=config)

    assert (5, 6) == (bench.looks, bench.world.hits)


async def test_an_inner_agent_with_an_unguarded_model_is_refused(make: Any) -> None:
    """Nobody could see what it spends, so nothing is started."""
    bench = make(TOLD)
    outer = bench.agent(tools=[bench.agent(name="inner").as_tool("ask_inner", "Ask.")])

    with pytest.raises(ConfigError, match="guard_agent"):
        await bench.go(outer)

    bench.world.untouched()


@pytest.mark.parametrize("way", ["tool", "handoff", "handoff object"])
async def test_an_unguarded_model_further_inside_is_refused(make: Any, way: str) -> None:
    """So with one that an inner agent without a model of its own calls, or hands off to."""
    bench = make(TOLD)
    deep = bench.agent(name="deep")
    reached: Any = {
        "tool": {"tools": [deep.as_tool("ask_deep", "Ask.")]},
        "handoff": {"handoffs": [deep]},
        "handoff object": {"handoffs": [handoff(deep)]},
    }
    inner: Agent[Any] = Agent(name="inner", model=MODEL, **reached[way])
    deep.handoffs.append(inner)

    with pytest.raises(ConfigError, match="guard_agent"):
        await bench.go(bench.agent(tools=[inner.as_tool("ask_inner", "Ask.")]))

    bench.world.untouched()


async def test_a_stop_that_a_tool_lets_out_is_the_runs(make: Any) -> None:
    """The SDK wraps what a tool raises in an error of its own; out comes the public stop."""

    def script(request: ProviderRequest) -> Any:
        if any("ask_inner" in tool for tool in request.tools):
            return ToolCalls([ToolUse("ask_inner", {"input": "x"})])
        return deaf(LOOK)(request)

    bench = make(script)
    inner = guard_agent(bench.guard, bench.agent(name="inner"))
    outer = bench.agent(tools=[inner.as_tool("ask_inner", "Ask.", failure_error_function=None)])

    with pytest.raises(LoopDetected):
        await bench.go(outer)


# Money.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
async def test_what_is_booked_is_what_is_billed(make: Any, kind: type[Model], mode: str) -> None:
    """To the picodollar, cached and reasoning tokens included; `make` compares the ledger with the bill."""
    bench = make(TOLD)

    result = await bench.go(bench.agent(bench.model(kind)), mode)

    assert ("Hello there, my friend.", 1) == (result.final_output, bench.world.hits)
    assert bench.world.billed > 0


@pytest.mark.parametrize("mode", MODES)
async def test_an_unknown_price_sends_nothing(make: Any, mode: str) -> None:
    """The refusal names the model."""
    bench = make({"*": TOLD})

    with pytest.raises(PriceUnknown, match="nobody-knows"):
        await bench.go(bench.agent(bench.model(name="nobody-knows")), mode)

    bench.world.untouched()


async def test_a_hosted_tool_sends_nothing(make: Any) -> None:
    """The provider bills it by the call, as often as its model likes."""
    bench = make(TOLD)

    with pytest.raises(BoundUnknown, match="web_search"):
        await bench.go(bench.agent(bench.model(OpenAIResponsesModel), tools=[WebSearchTool()]))

    bench.world.untouched()


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(extra_args={"web_search_options": {}}),
        ModelSettings(extra_body={"messages": []}),
        ModelSettings(extra_args={"prediction": {"type": "content", "content": "x"}}),
        ModelSettings(extra_body={"tools": [{"type": "web_search"}]}),
    ],
)
async def test_extras_that_nobody_can_bound_send_nothing(make: Any, settings: ModelSettings) -> None:
    """What they cost beside the tokens of the conversation is in no price card."""
    bench = make(TOLD)

    with pytest.raises(BoundUnknown):
        await bench.go(bench.agent(model_settings=settings))

    bench.world.untouched()


@pytest.mark.parametrize(
    ("kind", "extras"),
    [
        (OpenAIChatCompletionsModel, {"extra_args": {"max_completion_tokens": 4_000}}),
        (OpenAIChatCompletionsModel, {"extra_body": {"max_completion_tokens": 4_000}}),
        (OpenAIResponsesModel, {"extra_body": {"max_output_tokens": 4_000}}),
    ],
)
async def test_a_cap_among_the_extras_is_what_is_held_for(make: Any, kind: type[Model], extras: Any) -> None:
    """It is sent in the place of the settings' own, or beside it; where it does not fit nothing is sent."""
    bench, small = make(Text("word " * 3_000)), make(TOLD, Limits(run="0.03", steps=None))
    settings = ModelSettings(max_tokens=10, **extras)

    await bench.go(bench.agent(bench.model(kind), model_settings=settings))
    with pytest.raises(CallTooLarge):
        await small.go(small.agent(small.model(kind), model_settings=settings))

    assert ["run_ended"] == bench.world.names()
    small.world.untouched()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_without_a_cap_is_given_one_if_the_limits_say_so(make: Any, kind: type[Model]) -> None:
    """The model's own maximum, where it fits."""
    caps: list[int | None] = []

    def script(request: ProviderRequest) -> Any:
        caps.append(request.max_tokens)
        return Text("Fine.")

    bench = make(script, Limits(run="1.00", steps=None, uncapped="cap"))
    await bench.go(bench.agent(bench.model(kind)))

    assert [4_096] == caps


@pytest.mark.parametrize("kind", KINDS)
async def test_a_small_budget_lowers_the_cap(make: Any, kind: type[Model]) -> None:
    """The request goes out with the cap that the budget buys."""
    caps: list[int | None] = []

    def script(request: ProviderRequest) -> Any:
        caps.append(request.max_tokens)
        return Text("Fine.")

    bench = make(script, Limits(run="0.04", steps=None))
    await bench.go(bench.agent(bench.model(kind)))

    assert caps[0] is not None
    assert 1_024 <= caps[0] < 4_096


async def test_a_used_up_budget_ends_the_run(make: Any) -> None:
    """The call that could pass the limit is not sent."""
    bench = make(deaf(LOOK), Limits(run="0.05", steps=None))
    bench.answers = [f"row {number}" for number in range(99)]

    with pytest.raises(BudgetExceeded):
        await bench.go(bench.agent(bench.model(name="fake-flat")))

    assert (5, 5) == (bench.world.hits, bench.looks)


async def test_a_guarded_client_below_counts_once(make: Any) -> None:
    """The model's permit covers the request of the client."""
    bench = make(TOLD)
    bench.guard.wrap(bench.client)
    with bench.guard.run() as run:
        await bench.go(bench.agent())
        await bench.go(bench.agent(), "streamed")

        assert (2, 2) == (run.report().model_calls, bench.world.hits)


async def test_an_error_answer_costs_nothing(make: Any) -> None:
    """The hold is given back, and the error is the user's."""
    bench = make(Error(400, message="no"))

    with pytest.raises(openai.BadRequestError):
        await bench.go(bench.agent())

    assert (0, 0) == (bench.world.spent, bench.world.held)


async def test_a_cancelled_task_leaves_no_hold(make: Any) -> None:
    """What the provider may have billed is charged at the hold, never less."""
    bench = make(Stall(Event(), TOLD))
    bench.exact = False
    task = asyncio.create_task(bench.go(bench.agent()))
    await until(lambda: bench.world.hits > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    bench.world.provider.wait_idle()
    assert 0 == bench.world.held
    assert bench.world.spent >= bench.world.billed > 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_is_cancelled_is_settled(make: Any, kind: type[Model]) -> None:
    """For its input and what had come, never for less than the bill, and nothing stays held."""
    bench = make(Stall(Event(), Text("word " * 200), after_chunks=3))
    bench.exact = False
    result = bench.runner.run_streamed(bench.agent(bench.model(kind)), TASK)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and getattr(event.data, "delta", None):
            result.cancel()
    await until(lambda: bench.world.names() != [])

    bench.world.provider.wait_idle()
    assert (["run_ended"], 0) == (bench.world.names(), bench.world.held)
    assert bench.world.spent >= bench.world.billed > 0


async def test_a_stream_that_is_left_early_is_settled(make: Any) -> None:
    """The SDK reads an answer to its end in the background, whoever still listens."""
    bench = make(TOLD)
    result = bench.runner.run_streamed(bench.agent(), TASK)
    async for _ in result.stream_events():
        break
    await until(lambda: "run_ended" in bench.world.names())

    # What the fake answer reports of its short question is more than any text can be.
    assert ["input_underestimated", "run_ended"] == sorted(bench.world.names())


# Runs.


async def test_each_call_of_the_runner_is_a_run_of_its_own(make: Any) -> None:
    """Two at once have their own steps; nothing is shared but the month."""
    bench = make(deaf(LOOK, most=4), Limits(run="50", month="100", steps=5))
    bench.answers = [f"row {number}" for number in range(99)]
    agent = bench.agent()

    with pytest.raises(GuardrailStopped):
        await bench.go(agent)
    await bench.go(agent)

    assert 2 == bench.world.names().count("run_ended")


async def test_inside_a_run_it_all_belongs_to_that_one(make: Any) -> None:
    """Steps and costs are the run's; the same question asked again is a retry."""
    bench = make(deaf(LOOK, most=99))
    agent = bench.agent()
    executed: list[int] = []
    with pytest.raises(LoopDetected), bench.guard.run() as run:
        for _ in range(9):
            with contextlib.suppress(MaxTurnsExceeded):
                await bench.go(agent, max_turns=2)
            executed.append(bench.looks)

    assert [2, 4, 4] == executed  # the third time the call is blocked, and then the turns are over
    assert "loop_detected" == run.stop_reason


async def test_another_question_begins_anew(make: Any) -> None:
    """Two failing look-ups for each of six questions are no loop."""

    def script(request: ProviderRequest) -> Any:
        if sum(message.role == "tool" for message in request.messages) == 2:
            return Text("Nothing.")
        return ToolCalls([LOOK])

    bench = make(script)
    with bench.guard.run():
        for number in range(6):
            await bench.go(bench.agent(), given=f"Question {number}")

    assert (12, []) == (bench.looks, [name for name in bench.world.names() if "loop" in name])


@pytest.mark.parametrize("supervised", [False, True])
def test_the_synchronous_form_is_the_same(supervised: bool) -> None:
    """`run_sync` runs on the thread's own event loop, with a supervisor or without."""

    def work() -> Any:
        bench, done = Bench(desk), Desk()
        agent = bench.agent(tools=[function_tool(done.classify), function_tool(done.record)])
        if supervised:
            outcome = bench.guard.supervise(bench.runner.run_sync).invoke(agent, TASK, max_turns=100)
            result: Any = outcome.value
            assert outcome.stop is None
        else:
            result = bench.runner.run_sync(agent, TASK, max_turns=100)
        loop = asyncio.get_event_loop_policy().get_event_loop()
        loop.run_until_complete(bench.close())
        loop.close()
        return result.final_output, done.topics

    with ThreadPoolExecutor(1) as pool:
        assert ("The reviews are classified.", EXPECTED) == pool.submit(work).result()


async def test_a_supervisor_tells_a_stop_as_an_outcome(make: Any) -> None:
    """Over the adapter's runner, and over the SDK's own with a guarded agent."""
    bench = make(deaf(LOOK))
    outcome = await bench.guard.supervise(bench.runner.run).ainvoke(bench.agent(), TASK, max_turns=99)
    assert ("loop_detected", 4) == (outcome.stop_reason, bench.looks)
    assert "The run ended here" in (outcome.answer or "")

    agent = guard_agent(bench.guard, bench.agent())
    outcome = await bench.guard.supervise(Runner.run).ainvoke(agent, TASK, max_turns=99)
    assert ("loop_detected", 8) == (outcome.stop_reason, bench.looks)


async def test_a_guarded_agent_outside_of_any_run_is_refused(make: Any) -> None:
    """Its calls would belong to nothing that ends."""
    bench = make(TOLD)

    with pytest.raises(ConfigError, match="no run of its guard"):
        await Runner.run(guard_agent(bench.guard, bench.agent()), TASK)

    bench.world.untouched()


async def test_two_guards_are_refused(make: Any) -> None:
    """The same calls would be paid twice."""
    bench, other = make(TOLD), make(TOLD)
    agent = guard_agent(other.guard, bench.agent())

    with pytest.raises(ConfigError, match="another guard"):
        await bench.go(agent)

    bench.world.untouched()


async def test_guarding_twice_is_guarding_once(make: Any) -> None:
    """A copy of a copy asks once for each call."""
    bench = make(desk)
    done = Desk()
    agent = bench.agent(tools=[function_tool(done.classify), function_tool(done.record)])
    twice = guard_agent(bench.guard, guard_agent(bench.guard, agent).clone(name="renamed"))
    with bench.guard.run() as run:
        await bench.go(twice)

        assert (12, 10) == (run.report().model_calls, run.report().tool_calls)
    assert isinstance(twice.model, GuardedModel)
    assert not isinstance(twice.model.inner, GuardedModel)


async def test_the_sdks_own_limits_are_untouched(make: Any) -> None:
    """`max_turns` still ends a run, with the SDK's error."""
    bench = make(deaf(LOOK))

    with pytest.raises(MaxTurnsExceeded):
        await bench.go(bench.agent(), max_turns=2)

    assert 2 == bench.world.hits


async def test_an_approval_asks_for_the_tool_once(make: Any) -> None:
    """A run that waits for a person goes on where it was, guarded; a state read without the guard is refused."""
    bench = make(deaf(LOOK, most=1))
    tool = bench.look()
    tool.needs_approval = True
    agent = bench.agent(tools=[tool])
    with bench.guard.run() as run:
        result = await bench.go(agent)
        state = result.to_state()
        state.approve(result.interruptions[0])
        assert TASK == question_of(state)  # it goes on in the same conversation
        done = await bench.go(agent, given=state)

        assert ("I give up.", 1, 1) == (done.final_output, bench.looks, run.report().tool_calls)
    plain = await RunState.from_json(agent, state.to_json())
    with pytest.raises(ConfigError, match="from_json"):
        await bench.go(agent, given=plain)


async def test_observing_stops_nothing(make: Any) -> None:
    """Every call is made, without hints; what would have been is in the report."""
    bench = make(deaf(LOOK, most=9), mode="observe")
    with bench.guard.run() as run:
        await bench.go(bench.agent())

        assert (9, 10) == (bench.looks, bench.world.hits)
        assert "look" in (run.report().would_have_stopped or "")


# Bugs of ours.


@pytest.mark.parametrize("part", ["usage_of", "results_in", "asked_for"])
async def test_a_bug_in_an_observing_part_changes_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """The result is the user's; the bug is an event, and what is not known is charged at the hold."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(models, part, broken)
    bench = make(deaf(LOOK, most=2))
    bench.exact = False

    result = await bench.go(bench.agent())

    assert ("I give up.", 2) == (result.final_output, bench.looks)
    assert "adapter_failed" in bench.world.names()
    assert bench.world.spent >= bench.world.billed


@pytest.mark.parametrize("mode", MODES)
async def test_a_bug_in_a_deciding_part_refuses(make: Any, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """With a type of its own and its cause; nothing is sent."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(models, "model_call", broken)
    bench = make(TOLD)

    with pytest.raises(GuardFault) as caught:
        await bench.go(bench.agent(), mode)

    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    bench.world.untouched()


async def test_a_configuration_by_hand_is_guarded(make: Any) -> None:
    """For `as_tool(run_config=…)`, which no runner sees."""
    bench = make({"*": TOLD})
    config = guard_config(bench.guard, {"model": bench.model()})

    assert isinstance(config.model, GuardedModel)
    assert config.model is guard_config(bench.guard, config).model
