"""Pydantic AI's own agents under the guard, over real clients and a fake provider."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import anthropic
import openai
import pytest
from pydantic_ai import (
    Agent,
    ModelHTTPError,
    ModelRetry,
    ToolReturn,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
    UsageLimits,
    capture_run_messages,
)
from pydantic_ai.capabilities import AbstractCapability, WebSearch
from pydantic_ai.messages import ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from rr_clients import TOLD, World
from rr_desk import BAD, EXPECTED, TASK, Desk, deaf, desk
from runrails import Guard, GuardrailStopped, Limits, Price
from runrails.errors import BoundUnknown, BudgetExceeded, ConfigError, GuardFault, LoopDetected, PriceUnknown
from runrails.testing.provider import Error, ProviderRequest, Stall, Text, ToolCalls, ToolUse
from runrails.testing.provider.script import Script
from runrails.tiers import served_tier
from runrails_pydantic_ai import GuardrailCapability, models

OPENAI = ("chat", "responses")
KINDS = (*OPENAI, "anthropic")
MODES = ("run", "events", "iter")
MODEL = "fake-model"
FREE = Limits(run="50", month="100", steps=None)
LOOK = ToolUse("look", {"text": "x"})


class Bench:
    """A provider, a guard, and agents whose clients are closed in the end."""

    def __init__(self, script: Script, limits: Limits | None = None, **options: Any) -> None:
        self.world = World(script, limits or FREE, **options).__enter__()
        self.guard: Guard = self.world.guard
        self.client = openai.AsyncOpenAI(base_url=self.world.provider.openai_url, api_key="k", max_retries=0)
        self.other = anthropic.AsyncAnthropic(
            base_url=self.world.provider.anthropic_url, api_key="k", max_retries=0
        )  # fmt: skip
        self.exact = True
        self.looks = 0
        self.answers: list[Any] = ["no result"]

    def model(self, kind: str = "chat", name: str = MODEL) -> Model:
        if kind == "anthropic":
            return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=self.other))
        made = OpenAIChatModel if kind == "chat" else OpenAIResponsesModel
        return made(name, provider=OpenAIProvider(openai_client=self.client))

    def agent(self, model: Model | None = None, *, guarded: bool = True, **options: Any) -> Agent[None, Any]:
        options.setdefault("tools", [self.look])
        capabilities: list[AbstractCapability[Any]] = [GuardrailCapability(self.guard)] if guarded else []
        capabilities += options.pop("capabilities", [])
        return Agent(model or self.model(), instructions="Be quick.", capabilities=capabilities, **options)

    def look(self, text: str) -> Any:
        """Look something up."""
        self.looks += 1
        return self.answers[min(self.looks, len(self.answers)) - 1]

    async def go(self, agent: Agent[None, Any], mode: str = "run", given: str = TASK, **options: Any) -> Any:
        if mode == "run":
            return (await agent.run(given, **options)).output
        if mode == "events":
            return (await agent.run(given, event_stream_handler=drain, **options)).output
        async with agent.iter(given, **options) as run:
            async for _ in run:
                pass
            assert run.result is not None
            return run.result.output

    async def close(self) -> None:
        await self.client.close()
        await self.other.close()
        await asyncio.sleep(0)
        try:
            if self.exact:
                self.world.settled()
        finally:
            self.world.__exit__(None, None, None)


async def drain(_: object, events: AsyncIterable[object]) -> None:
    """Read a stream to its end."""
    async for _ in events:
        pass


async def until(so: Callable[[], bool]) -> None:
    """What another thread does cannot be waited for otherwise."""
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
async def test_the_founding_agent_ends_normally(make: Any, kind: str, mode: str) -> None:
    """The bad review is recorded, the others are done; the failing call is executed at most five times."""
    bench, done = make(desk), Desk()
    agent = bench.agent(bench.model(kind), tools=[done.classify, done.record])

    assert "The reviews are classified." == await bench.go(agent, mode)
    assert EXPECTED == done.topics
    assert 4 == done.calls[f"classify {BAD}"]
    assert ["loop_hinted", "loop_blocked", "run_ended"] == bench.world.names()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_model_that_ignores_everything_is_stopped(make: Any, kind: str, mode: str) -> None:
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
            await bench.go(bench.agent(), "events", "something else")
        run.check()

    assert (6, 4) == (hits, bench.looks)
    assert hits == bench.world.hits


async def test_the_history_is_whole_after_a_stop(make: Any) -> None:
    """Every call in it has its return, so a provider takes the conversation up again."""
    bench = make(deaf(LOOK, most=6))
    with capture_run_messages() as messages, pytest.raises(LoopDetected):
        await bench.go(bench.agent())

    parts = [part for message in messages for part in message.parts]
    asked = [part.tool_call_id for part in parts if isinstance(part, ToolCallPart)]
    answered = [part.tool_call_id for part in parts if isinstance(part, ToolReturnPart)]

    assert asked == answered
    assert "I give up." == await bench.go(bench.agent(), given="And now?", message_history=list(messages))


async def test_an_unknown_tool_is_a_loop_as_well(make: Any) -> None:
    """Pydantic AI answers such calls itself; their results are counted from the next request."""
    bench = make(deaf(ToolUse("nothing_like_it", {})))

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(retries=99))

    assert 5 == bench.world.hits


async def test_arguments_that_do_not_fit_are_a_loop_as_well(make: Any) -> None:
    """The tool is never executed, and the same complaint comes back."""
    bench = make(deaf(ToolUse("look", {"txt": "x"})))

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(retries=99))

    assert (0, 5) == (bench.looks, bench.world.hits)


async def test_parallel_identical_calls_count_as_one_attempt(make: Any) -> None:
    """Three equal calls in one answer are one attempt: the fifth answer's are not executed."""
    bench = make(deaf(LOOK, LOOK, LOOK))

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent())

    assert (12, 6) == (bench.looks, bench.world.hits)


async def test_a_tool_that_asks_for_a_retry_is_a_loop_as_well(make: Any) -> None:
    """`ModelRetry` without end: the fifth call is answered in the tool's place."""
    bench = make(deaf(ToolUse("broken", {})))
    calls = 0

    def broken() -> str:
        """Break."""
        nonlocal calls
        calls += 1
        raise ModelRetry("the disk is gone")

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(tools=[broken], retries=99))

    assert 4 == calls


async def test_progress_is_no_loop(make: Any) -> None:
    """Forty calls with something new each are not touched."""
    bench = make(deaf(LOOK, most=40))
    bench.answers = [f"row {number}" for number in range(40)]

    assert "I give up." == await bench.go(bench.agent())
    assert (40, ["run_ended"]) == (bench.looks, bench.world.names())


@pytest.mark.parametrize(
    "answer",
    [
        "no result",
        {"found": []},
        ToolReturn("no result", content="Look."),
        ToolReturn({"found": []}),
        ToolReturn({"found": []}, content="Look."),
        ToolReturn({"found": []}, content=["Look."]),
    ],
)
async def test_a_hint_comes_with_the_result(make: Any, answer: object) -> None:
    """In a text at its end; a result that is no text stays what it is, and the hint follows it."""
    seen: list[list[Any]] = []

    def script(request: ProviderRequest) -> Any:
        seen.append([message.text for message in request.messages])
        return deaf(LOOK, most=3)(request)

    bench = make(script)
    bench.answers = [answer]
    await bench.go(bench.agent())

    assert [] == [text for text in seen[2] if "[runrails]" in text]
    assert 1 == len([text for text in seen[3] if "[runrails]" in text])


async def test_the_capability_may_be_given_to_one_run(make: Any) -> None:
    """Or to both the agent and the run: each call counts once all the same."""
    bench = make(deaf(LOOK, most=2))
    with bench.guard.run() as run:
        await bench.go(bench.agent(guarded=False), capabilities=[GuardrailCapability(bench.guard)])
        await bench.go(bench.agent(), capabilities=[GuardrailCapability(bench.guard)], given="again")

        assert (4, 2) == (run.report().model_calls, run.report().tool_calls)


# Other agents.


async def test_an_agent_in_a_tool_draws_on_the_same_run(make: Any) -> None:
    """The stop in the inner agent is answered in the tool's place, and ends the outer one at its model."""

    def script(request: ProviderRequest) -> Any:
        if any("ask_inner" in tool for tool in request.tools):
            return deaf(ToolUse("ask_inner", {}))(request)
        return deaf(LOOK)(request)

    bench = make(script)
    inner = bench.agent()

    async def ask_inner() -> str:
        """Ask."""
        return str((await inner.run("x")).output)

    with capture_run_messages() as messages, pytest.raises(LoopDetected):
        await bench.go(bench.agent(tools=[ask_inner]))

    assert (4, 7) == (bench.looks, bench.world.hits)
    assert 1 == bench.world.names().count("run_ended")
    assert "not executed" in str(messages[-1])


async def test_a_conversation_inside_a_tool_is_one_of_its_own(make: Any) -> None:
    """Six different questions to an inner agent, which fails twice at each, are no loop."""

    def script(request: ProviderRequest) -> Any:
        if any("ask_inner" in tool for tool in request.tools):
            count = sum(message.role == "tool" for message in request.messages)
            return Text("Done.") if count == 6 else ToolCalls([ToolUse("ask_inner", {"what": f"q{count}"})])
        return Text("Nothing.") if sum(m.role == "tool" for m in request.messages) == 2 else ToolCalls([LOOK])

    bench = make(script)
    inner = bench.agent()

    async def ask_inner(what: str) -> str:
        """Ask."""
        return f"{what}: {(await inner.run('always the same')).output}"

    assert "Done." == await bench.go(bench.agent(tools=[ask_inner]))
    assert (12, ["run_ended"]) == (bench.looks, bench.world.names())


# Money.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
async def test_what_is_booked_is_what_is_billed(make: Any, kind: str, mode: str) -> None:
    """To the picodollar, cached and reasoning tokens included; `make` compares the ledger with the bill."""
    bench = make(TOLD)

    assert "Hello there, my friend." == await bench.go(bench.agent(bench.model(kind)), mode)
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
    agent = bench.agent(bench.model("responses"), capabilities=[WebSearch()])

    with pytest.raises(BoundUnknown, match="web_search"):
        await bench.go(agent)

    bench.world.untouched()


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("responses", {"openai_native_tools": [{"type": "web_search"}]}, "openai_native_tools"),
        ("responses", {"extra_body": {"tools": [{"type": "web_search"}]}}, "web_search"),
        ("chat", {"extra_body": {"web_search_options": {}}}, "web_search_options"),
        ("chat", {"extra_body": {"model": "dearer"}}, "model"),
        ("chat", {"openai_prediction": {"type": "content", "content": "x"}}, "prediction"),
        ("chat", {"bedrock_guardrail_config": {"guardrailIdentifier": "g"}}, "guardrail"),
        ("chat", {"bedrock_performance_configuration": {"latency": "optimized"}}, "latency"),
        ("chat", {"anthropic_speed": "fast"}, "premium speed"),
        ("anthropic", {"anthropic_container": {"id": "c"}}, "container"),
        ("anthropic", {"extra_body": {"mcp_servers": [{"url": "x"}]}}, "mcp_servers"),
    ],
)
async def test_settings_that_nobody_can_bound_send_nothing(make: Any, kind: str, settings: Any, named: str) -> None:
    """What they cost beside the tokens of the messages is in no price card."""
    bench = make(TOLD)

    with pytest.raises(BoundUnknown, match=named):
        await bench.go(bench.agent(bench.model(kind)), model_settings=settings)

    bench.world.untouched()


@pytest.mark.parametrize("key", ["openai_service_tier", "service_tier"])
async def test_a_tier_that_has_a_price_is_held_for_and_charged_at_it(make: Any, key: str) -> None:
    """An answer that does not say how it was served was served as asked; without a price nothing is sent."""
    tiered = Price(input="3", output="15", tiers={"priority": Price(input="6", output="30")})
    bench = make(Text("word " * 10), prices={MODEL: tiered, "untiered": Price(input="3", output="15")})
    bench.exact = False
    settings: Any = {key: "priority", "max_tokens": 500}

    await bench.go(bench.agent(), model_settings=settings)
    with pytest.raises(PriceUnknown, match="priority"):
        await bench.go(bench.agent(bench.model(name="untiered")), model_settings=settings)

    assert (2 * bench.world.billed, 1) == (bench.world.spent, bench.world.hits)
    (record,) = bench.world.store.usage()
    assert 500 * 30 * 10**6 < record.estimated_pusd


@pytest.mark.parametrize(
    ("provider", "details", "asked", "served"),
    [
        ("openai", {"service_tier": "priority"}, None, "priority"),
        ("azure", {"service_tier": "priority"}, None, "priority"),
        ("azure", {"service_tier": "default"}, "priority", None), ("azure", {}, "priority", "priority"),
        ("other", {"service_tier": "gold"}, None, None), ("openai", None, None, None),
    ],
)  # fmt: skip
def test_an_answer_says_how_it_was_served(provider: str, details: Any, asked: str | None, served: str | None) -> None:
    """On OpenAI's wire; what says nothing was served as asked."""
    answer = ModelResponse(parts=[], provider_name=provider, provider_details=details)
    wanted = None if asked is None else served_tier({"service_tier": asked})
    tier = models._answered(answer, wanted).tier

    assert served == (None if tier is None else tier.name)


@pytest.mark.parametrize(("region", "pusd"), [("us-east-1", 3_500_000), ("sa-east-1", 5_880_000)])
async def test_bedrock_is_priced_where_it_is_asked(make: Any, region: str, pusd: int) -> None:
    """A model's output costs $3.50 a million tokens, in São Paulo $5.88."""
    boto3 = pytest.importorskip("boto3")
    bedrock = pytest.importorskip("pydantic_ai.models.bedrock")
    from pydantic_ai.providers.bedrock import BedrockProvider

    # Of a session of its own: the default one is shared by all tests of a process, and may be guarded.
    client = boto3.session.Session().client(
        "bedrock-runtime", region_name=region, endpoint_url="http://127.0.0.1:9", aws_access_key_id="a",
        aws_secret_access_key="b", config=boto3.session.Config(retries={"max_attempts": 0}),
    )  # fmt: skip
    bench = make(TOLD, prices={})
    model = bedrock.BedrockConverseModel(
        "meta.llama3-70b-instruct-v1:0", provider=BedrockProvider(bedrock_client=client)
    )

    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        await bench.go(bench.agent(model, tools=[]), model_settings={"max_tokens": 900})

    (record,) = bench.world.store.usage()
    assert 900 * pusd < record.estimated_pusd < 1_000 * pusd


async def test_plain_settings_are_no_reason_to_refuse(make: Any) -> None:
    """A default tier, an empty list of tools, and fields of the request that cost nothing."""
    bench = make(TOLD)
    settings: Any = {
        "bedrock_service_tier": {"type": "default"},
        "bedrock_performance_configuration": {"latency": "standard"},
        "anthropic_container": False,
        "extra_body": {"top_k": 3},
    }

    await bench.go(bench.agent(), model_settings=settings)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("chat", {"max_tokens": 10, "extra_body": {"max_completion_tokens": 4_000}}),
        ("chat", {"max_tokens": 10, "extra_body": {"n": 5}}),
        ("anthropic", {"max_tokens": 10, "extra_body": {"max_tokens": 4_000}}),
    ],
)
async def test_a_cap_in_the_extra_body_is_what_is_held_for(make: Any, kind: str, settings: Any) -> None:
    """It is sent in the place of the settings' own, or beside it; nothing costs more than was held."""
    bench = make(Text("word " * 3_000))

    await bench.go(bench.agent(bench.model(kind)), model_settings=settings)

    assert ["run_ended"] == bench.world.names()


async def test_what_the_provider_keeps_is_bounded_by_the_context(make: Any) -> None:
    """An earlier answer may be as long as the model reads, whatever the new message has."""
    bench = make(TOLD, Limits(run="0.02", steps=None))
    settings: Any = {"max_tokens": 10, "openai_previous_response_id": "resp_1"}

    with pytest.raises(BudgetExceeded):
        await bench.go(bench.agent(bench.model("responses")), model_settings=settings)

    bench.world.untouched()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_without_a_cap_is_given_one_if_the_limits_say_so(make: Any, kind: str) -> None:
    """The model's own maximum, where it fits."""
    caps: list[int | None] = []

    def script(request: ProviderRequest) -> Any:
        caps.append(request.max_tokens)
        return Text("Fine.")

    bench = make(script, Limits(run="1.00", steps=None, uncapped="cap"))
    await bench.go(bench.agent(bench.model(kind)))

    assert [4_096] == caps


@pytest.mark.parametrize("kind", KINDS)
async def test_a_small_budget_lowers_the_cap(make: Any, kind: str) -> None:
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
        for mode in MODES:
            await bench.go(bench.agent(), mode)

        assert (3, 3) == (run.report().model_calls, bench.world.hits)


async def test_an_error_answer_costs_nothing(make: Any) -> None:
    """The hold is given back, and the error is the user's."""
    bench = make(Error(400, message="no"))

    with pytest.raises(ModelHTTPError):
        await bench.go(bench.agent())

    assert (0, 0) == (bench.world.spent, bench.world.held)


async def test_a_fallback_model_is_refused_as_a_whole(make: Any) -> None:
    """Which of its models will be asked cannot be told; the capability for fallbacks is seen through."""
    bench = make({"*": TOLD})

    with pytest.raises(PriceUnknown, match="fallback"):
        await bench.go(bench.agent(FallbackModel(bench.model(), bench.model(name="fake-flat"))))

    bench.world.untouched()


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
async def test_a_stream_that_is_left_is_settled(make: Any, kind: str) -> None:
    """For its input and what had come, never for less than the bill, and nothing stays held."""
    bench = make(Stall(Event(), Text("word " * 200), after_chunks=3))
    bench.exact = False
    async with bench.agent(bench.model(kind)).run_stream(TASK) as result:
        async for _ in result.stream_text(delta=True, debounce_by=None):
            break

    bench.world.provider.wait_idle()
    assert (["run_ended"], 0) == (bench.world.names(), bench.world.held)
    assert bench.world.spent >= bench.world.billed > 0


async def test_an_error_of_the_users_own_in_a_stream_is_settled(make: Any) -> None:
    """It passes through, and nothing stays held."""
    bench = make(Stall(Event(), Text("word " * 200), after_chunks=3))
    bench.exact = False

    with pytest.raises(ZeroDivisionError):
        async with bench.agent().run_stream(TASK) as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                raise ZeroDivisionError

    bench.world.provider.wait_idle()
    assert (["run_ended"], 0) == (bench.world.names(), bench.world.held)
    assert bench.world.spent >= bench.world.billed > 0


# Runs.


async def test_each_run_of_an_agent_is_a_run_of_its_own(make: Any) -> None:
    """Nothing is shared but the month."""
    bench = make(deaf(LOOK, most=4), Limits(run="50", month="100", steps=5))
    bench.answers = [f"row {number}" for number in range(99)]
    agent = bench.agent()

    with pytest.raises(GuardrailStopped):
        await bench.go(agent)
    await bench.go(agent)

    assert 2 == bench.world.names().count("run_ended")


async def test_two_at_once_do_not_meet(make: Any) -> None:
    """The same question asked at the same time is another sample, in one run too."""
    bench = make(deaf(LOOK, most=20))
    agent = bench.agent()
    with bench.guard.run():
        ends = await asyncio.gather(*(bench.go(agent) for _ in range(3)), return_exceptions=True)

    assert any(isinstance(end, LoopDetected) for end in ends)
    assert 4 <= bench.looks <= 12


async def test_inside_a_run_it_all_belongs_to_that_one(make: Any) -> None:
    """Steps and costs are the run's; the same question asked again is a retry."""
    bench = make(deaf(LOOK, most=99))
    executed: list[int] = []
    with pytest.raises(LoopDetected), bench.guard.run() as run:
        for _ in range(9):
            with contextlib.suppress(UsageLimitExceeded):
                await bench.go(bench.agent(), usage_limits=UsageLimits(request_limit=2))
            executed.append(bench.looks)

    assert [2, 4, 4] == executed  # the third time the call is blocked, and then the requests are over
    assert "loop_detected" == run.stop_reason


@pytest.mark.parametrize("supervised", [False, True])
def test_the_synchronous_form_is_the_same(supervised: bool) -> None:
    """`run_sync` runs on the thread's own event loop, with a supervisor or without."""

    def work() -> Any:
        bench, done = Bench(desk), Desk()
        agent = bench.agent(tools=[done.classify, done.record])
        if supervised:
            outcome = bench.guard.supervise(agent.run_sync).invoke(TASK)
            result: Any = outcome.value
            assert outcome.stop is None
        else:
            result = agent.run_sync(TASK)
        loop = asyncio.get_event_loop_policy().get_event_loop()
        loop.run_until_complete(bench.close())
        loop.close()
        return result.output, done.topics

    with ThreadPoolExecutor(1) as pool:
        assert ("The reviews are classified.", EXPECTED) == pool.submit(work).result()


async def test_a_supervisor_tells_a_stop_as_an_outcome(make: Any) -> None:
    """Over the agent's own method, as a plain function."""
    bench = make(deaf(LOOK))

    outcome = await bench.guard.supervise(bench.agent().run).ainvoke(TASK)

    assert ("loop_detected", 4) == (outcome.stop_reason, bench.looks)
    assert "The run ended here" in (outcome.answer or "")


async def test_pydantics_own_limits_are_untouched(make: Any) -> None:
    """`usage_limits` and tool retries still end a run, with the framework's errors."""
    bench = make(deaf(LOOK))
    with pytest.raises(UsageLimitExceeded):
        await bench.go(bench.agent(), usage_limits=UsageLimits(request_limit=2))
    assert 2 == bench.world.hits

    bench = make(deaf(ToolUse("nothing_like_it", {})))
    with pytest.raises(UnexpectedModelBehavior):
        await bench.go(bench.agent())


async def test_a_typed_output_is_guarded_too(make: Any) -> None:
    """An answer that never fits the type is a loop of its own kind."""
    bench = make(deaf(ToolUse("final_result", {"response": "not a number"})))

    with pytest.raises(LoopDetected):
        await bench.go(bench.agent(output_type=int, retries=99))

    assert 5 == bench.world.hits


async def test_the_context_is_left_as_it_was(make: Any) -> None:
    """After a run, also one that is left early, the code around it is in no run."""
    from runrails.run import current_run

    bench = make(deaf(LOOK, most=1))
    agent = bench.agent()
    async with agent.iter(TASK) as run:
        assert current_run() is not None
        async for _ in run:
            break

    assert current_run() is None
    await bench.go(agent)


async def test_a_run_of_another_guard_around_it_is_refused(make: Any) -> None:
    """The same calls would be paid twice."""
    bench, other = make(TOLD), make(TOLD)

    with other.guard.run(), pytest.raises(ConfigError, match="another"):
        await bench.go(bench.agent())

    bench.world.untouched()


async def test_observing_stops_nothing(make: Any) -> None:
    """Every call is made, without hints; what would have been is in the report."""
    bench = make(deaf(LOOK, most=9), mode="observe")
    with bench.guard.run() as run:
        await bench.go(bench.agent())

        assert (9, 10) == (bench.looks, bench.world.hits)
        assert "look" in (run.report().would_have_stopped or "")


# Bugs of ours.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("part", ["usage_of", "results_in", "asked_for"])
async def test_a_bug_in_an_observing_part_changes_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch, part: str, mode: str
) -> None:
    """The result is the user's; the bug is an event, and what is not known is charged at the hold."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(models, part, broken)
    bench = make(deaf(LOOK, most=2))
    bench.exact = False

    assert ("I give up.", 2) == (await bench.go(bench.agent(), mode), bench.looks)
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
