"""What LangChain's parameters ask for beside the messages: tiers, hosted tools, extra bodies, what a provider keeps."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_openai import ChatOpenAI

from rr_clients import MODEL, Canned, World, sse
from runrails import Limits, Price, ResponseCache
from runrails.calls import ServedTier
from runrails.errors import BoundUnknown, PriceUnknown
from runrails.testing.provider import Text
from runrails.tiers import premium
from runrails_langchain import GuardrailCallbackHandler, GuardrailMiddleware, ResponseCacheAdapter
from runrails_langchain.asked import NOTHING, asked_of
from runrails_langchain.results import of_answer

FREE = Limits(run=None, month="100", steps=None)
PRICES = {
    "tiered": Price(
        input="2", output="10", tiers={"priority": Price(input="4", output="20"), "flex": Price(input="1", output="5")}
    ),
    "untiered": Price(input="2", output="10"),
}
COUNTS = {"prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200}
PLAIN = (1_000 * 2 + 200 * 10) * 10**6


def _answer(tier: str | None) -> Canned:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "tiered", "choices": [choice],
            "usage": COUNTS, "service_tier": tier}  # fmt: skip
    return Canned(sse(body).removeprefix(b"data: "))


def _chunks(tier: str) -> Canned:
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiered", "service_tier": tier}
    text = {"index": 0, "delta": {"role": "assistant", "content": "fine"}}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    body = sse({**head, "choices": [text]}, {**head, "choices": [end]}, {**head, "choices": [], "usage": COUNTS})
    return Canned(body + b"data: [DONE]\n\n", kind="text/event-stream")


def _model(url: str, **options: Any) -> ChatOpenAI:
    about: Any = {"model": MODEL, "api_key": "k", "max_tokens": 900, "max_retries": 0, **options}
    return ChatOpenAI(base_url=url, **about)


def _config(world: World) -> Any:
    return {"callbacks": [GuardrailCallbackHandler(world.guard)]}


def _only(world: World) -> Any:
    (record,) = world.store.usage()  # type: ignore[attr-defined]
    return record


@pytest.mark.parametrize(
    ("served", "double"), [("default", 2), ("priority", 4), ("flex", 1), (None, 2), ("on_demand", 2)]
)
@pytest.mark.parametrize("streams", [False, True])
def test_what_served_a_call_is_what_it_is_charged_at(served: str | None, double: int, *, streams: bool) -> None:
    """A project's default may be another tier than the standard one; the answer tells."""
    with World(prices=PRICES, limits=FREE) as world:
        server = _chunks(served) if streams and served else _answer(served)
        with server:
            model = _model(server.url, model="tiered", streaming=streams and served is not None)
            model.invoke("hi", config=_config(world))

        assert (PLAIN * double // 2, "settled") == (_only(world).actual_pusd, _only(world).state)


@pytest.mark.parametrize(
    "options", [{"service_tier": "priority"}, {"extra_body": {"service_tier": "priority"}}], ids=["field", "body"]
)
@pytest.mark.parametrize(("served", "double"), [("priority", 4), ("default", 2), (None, 4)])
def test_a_tier_that_has_a_price_is_held_for(options: Any, served: str | None, double: int) -> None:
    """At that price, and charged so unless the answer says that it was another one."""
    with World(prices=PRICES, limits=FREE) as world, _answer(served) as server:
        _model(server.url, model="tiered", max_tokens=2_000, **options).invoke("hi", config=_config(world))
        record = _only(world)

        assert PLAIN * double // 2 == record.actual_pusd
        assert 2_000 * 20 * 10**6 < record.estimated_pusd < 2_200 * 20 * 10**6


@pytest.mark.parametrize("extra", [{}, {"extra_body": {"service_tier": "priority"}}])
def test_a_tier_without_a_price_is_refused_with_nothing_sent(extra: Any) -> None:
    """By name, with what to write down."""
    with World(prices=PRICES, limits=FREE) as world:
        model = _model(world.provider.openai_url, model="untiered", **(extra or {"service_tier": "priority"}))
        with pytest.raises(PriceUnknown, match="'priority' is unknown"):
            model.invoke("hi", config=_config(world))
        world.untouched()


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        ({"tools": [{"type": "web_search"}]}, "web_search"), ({"web_search_options": {}}, "web_search_options"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]}, "web_search_20250305"),
        ({"tools": [{"google_search": {}}]}, "google_search"), ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"tools": [{"systemTool": {"name": "nova_grounding"}}]}, "systemTool"),
        ({"extra_body": {"tools": [{"type": "file_search"}]}}, "file_search"),
        ({"extra_body": {"model": "dearer"}}, "model beside"), ({"extra_body": {"messages": []}}, "messages beside"),
        ({"extra_body": {"web_search_options": {}}}, "web_search_options"), ({"prediction": {"content": "x"}}, "pred"),
    ],
)  # fmt: skip
def test_what_nobody_can_bound_sends_nothing(bound: dict[str, Any], named: str) -> None:
    """The provider executes it as often as the model likes, or reads something else than what was measured."""
    with World(limits=FREE) as world:
        with pytest.raises(BoundUnknown, match=named):
            _model(world.provider.openai_url).bind(**bound).invoke("hi", config=_config(world))
        world.untouched()


@pytest.mark.parametrize(
    ("params", "given", "named"),
    [
        ({"model_kwargs": {"speed": "fast"}}, {}, None), ({}, {"inference_geo": "us"}, None),
        ({}, {"mcp_servers": [{"url": "x"}]}, "mcp_servers"), ({}, {"guardrail_config": {"a": 1}}, "guardrail_config"),
        ({}, {"performance_config": {"latency": "optimized"}}, "latency-optimized inference"),
        ({}, {"additional_model_request_fields": {"tools": [{"type": "web_search_1"}]}}, "the tool web_search_1"),
        ({"tools": [{"name": "f"}]}, {"model_kwargs": {"tools": [{"type": "web_fetch_1"}]}}, "the tool web_fetch_1"),
        ({"guardrailIdentifier": "g"}, {}, "guardrailIdentifier"),
    ],
)  # fmt: skip
def test_what_a_model_was_made_with_counts_where_it_is_sent(
    params: dict[str, Any], given: dict[str, Any], named: str | None
) -> None:
    """Some of LangChain's models send what their callbacks are told only of how the model was made."""
    asked = asked_of(params, given)

    assert named == asked.unbounded
    assert (asked.unbounded or premium(asked.params)) is not None


def test_a_tier_that_bedrock_is_asked_for_is_seen() -> None:
    """Its callbacks hear of it only in how the model was made; a call's own goes before it."""
    assert "priority" == asked_of({}, {"service_tier": "priority"}).tier
    assert None is asked_of({"service_tier": "default"}, {"service_tier": "priority"}).tier


def test_the_middleware_refuses_them_as_well() -> None:
    """It plans what the callback will see."""
    from langchain.agents import create_agent

    with World(limits=FREE) as world:
        agent: Any = create_agent(
            _model(world.provider.openai_url), [{"type": "web_search"}], middleware=[GuardrailMiddleware(world.guard)]
        )
        with pytest.raises(BoundUnknown, match="web_search"):
            agent.invoke({"messages": [{"role": "user", "content": "hi"}]})
        world.untouched()


def test_an_extra_body_is_held_for() -> None:
    """It is what is sent: five answers cost five times one."""
    with World(Text("word " * 3_000), FREE) as world:
        _model(world.provider.openai_url, max_tokens=100, extra_body={"n": 5}).invoke("hi", config=_config(world))

        world.settled()
        assert world.spent <= _only(world).estimated_pusd
        assert "bound_violated" not in world.names()


@pytest.mark.parametrize(
    "params",
    [
        {}, {"extra_body": None}, {"extra_body": {"top_k": 3}}, {"service_tier": "auto"}, {"service_tier": "flex"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools": [{"name": "f", "input_schema": {}}]},
        {"tools": [{"toolSpec": {"name": "f"}}, {"cachePoint": {"type": "default"}}]}, {"tools": None},
        {"tools": [{"type": "custom", "name": "f"}]}, {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"tools": [{"function_declarations": [{"name": "f"}]}]}, {"web_search_options": None}, {"mcp_servers": []},
    ],
)  # fmt: skip
def test_plain_parameters_are_no_reason_to_refuse(params: dict[str, Any]) -> None:
    """Tools of the client's own in every wire form, and settings that cost nothing."""
    assert (None, None, None) == asked_of(params, NOTHING)[1:]


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "cached_content"])
def test_what_the_provider_keeps_is_bounded_by_the_context(name: str) -> None:
    """It adds what nobody here has seen."""
    with World(limits=FREE) as world, _answer("default") as server:
        world.guard.prices.card(MODEL, now_ms=0)
        _model(server.url).bind(extra_body={name: "x"}).invoke("hi", config=_config(world))

        assert 200_000 * 3 * 10**6 <= _only(world).estimated_pusd


@pytest.mark.parametrize(
    ("told", "served"),
    [
        ({}, None), ({"service_tier": "defaultdefault"}, None), ({"service_tier": "prioritypriority"}, "priority"),
        ({"usage": {"service_tier": "priority"}}, "priority"), ({"usage": {"inference_geo": "us"}}, "us"),
        ({"service_tier": "standard", "usage": {"service_tier": "priority"}}, None), ({"usage": None}, None),
    ],
)  # fmt: skip
def test_an_answer_tells_its_tier_wherever_langchain_puts_it(told: dict[str, Any], served: str | None) -> None:
    """Chunks that all say it are joined to one text; Anthropic says it among the usage."""
    message = AIMessage("x", response_metadata=told, usage_metadata={
        "input_tokens": 1, "output_tokens": 1, "total_tokens": 2})  # fmt: skip
    tier = of_answer(LLMResult(generations=[[ChatGeneration(message=message)]])).tier

    assert served == (None if tier is None else tier.name)
    assert tier is None or isinstance(tier, ServedTier)


class Undescribed(BaseChatModel):
    """A class of somebody's own, which LangChain describes by its name alone."""

    called: str
    known: bool = False

    @property
    def _llm_type(self) -> str:
        return "mine"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.called} if self.known else {}

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "fake", "ls_model_name": self.called, "ls_model_type": "chat", "ls_max_tokens": 9}

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        used: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.called, usage_metadata=used))])


@pytest.mark.parametrize(("known", "ends"), [(False, ["completed"] * 3), (True, ["completed", "completed", "cached"])])
def test_a_model_that_is_not_described_has_no_stored_answers(known: bool, ends: list[str]) -> None:
    """Its answers would be given for any other model of its class, with any other parameters."""
    prices = {"fake-model": Price(input="1", output="1"), "fake-mini": Price(input="1", output="1")}
    with World(limits=FREE, prices=prices, cache=ResponseCache()) as world, world.guard.run() as run:
        cache = ResponseCacheAdapter(world.guard)
        said = [
            Undescribed(called=name, known=known, cache=cache).invoke("who are you?").content
            for name in ("fake-model", "fake-mini", "fake-model")
        ]

        assert ["fake-model", "fake-mini", "fake-model"] == said
        assert ends == [row.end for row in run.report().rows]
