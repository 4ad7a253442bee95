"""Real clients, unchanged but for their base URL and key, over a real socket: types parse, errors have their class."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from rr_gateway import HOUSE, MODEL, World, gateway
from runrails import Limits
from runrails.testing.provider import Text, ToolCalls, ToolUse, founding
from runrails.usage import Usage

USAGE = Usage(input_tokens=1000, output_tokens=500)
TOLD = Text("Hello there.", usage=USAGE, ignores_max_tokens=True)
HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def gw() -> Iterator[World]:
    """One gateway for tests that change nothing about it."""
    with gateway(TOLD) as made:
        yield made


def client(made: World, **options: Any) -> openai.OpenAI:
    found = openai.OpenAI(**{"base_url": made.openai_url, "api_key": made.key, **options})
    made.closing.append(found.close)
    return found


def claude(made: World, **options: Any) -> anthropic.Anthropic:
    found = anthropic.Anthropic(**{"base_url": made.url, "api_key": made.key, **options})
    made.closing.append(found.close)
    return found


def test_openai_chat(gw: World) -> None:
    """A plain chat completion, charged exactly what the provider bills, on the platform's key."""
    answer = client(gw).chat.completions.create(model=MODEL, messages=HI, max_tokens=2000)
    assert "Hello there." == answer.choices[0].message.content
    assert answer.usage is not None
    assert 1500 == answer.usage.total_tokens
    gw.settled()
    assert f"Bearer {HOUSE}" == gw.provider.received[-1].headers["authorization"]
    assert gw.key not in repr([request.headers for request in gw.provider.received])


def test_openai_stream_hides_what_was_not_asked_for(gw: World) -> None:
    """Usage is asked for on the caller's behalf, and the chunk that has it is left out again."""
    stream = client(gw).chat.completions.create(model=MODEL, messages=HI, max_tokens=2000, stream=True)
    chunks = list(stream)
    assert "Hello there." == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert [None] == list({chunk.usage for chunk in chunks})
    assert {"include_usage": True} == gw.provider.received[-1].body["stream_options"]
    gw.settled()


def test_openai_stream_with_usage(gw: World) -> None:
    """Who asks for the usage gets it."""
    stream = client(gw).chat.completions.create(
        model=MODEL, messages=HI, max_tokens=2000, stream=True, stream_options={"include_usage": True}
    )
    usage = [chunk.usage for chunk in stream][-1]
    assert usage is not None
    assert (1000, 500) == (usage.prompt_tokens, usage.completion_tokens)
    gw.settled()


def test_openai_raw_response(gw: World) -> None:
    """Headers tell the request, the run and the cost."""
    raw = client(gw).chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=2000)
    row = gw.rows()[-1]
    assert "Hello there." == raw.parse().choices[0].message.content
    assert raw.headers["x-request-id"].startswith("req_")
    assert row.facts.run == raw.headers["x-runrails-run"]
    assert row.actual_pusd == int(float(raw.headers["x-runrails-cost-usd"]) * 10**12)
    assert float(raw.headers["x-runrails-budget-remaining"]) > 0
    assert raw.headers["x-request-id"] == raw.parse()._request_id


def test_openai_streaming_response(gw: World) -> None:
    """The SDK's own streaming of raw bytes."""
    with client(gw).chat.completions.with_streaming_response.create(
        model=MODEL, messages=HI, max_tokens=2000
    ) as response:
        assert "Hello there." in response.read().decode()
    gw.settled()


class Weather(BaseModel):
    """What the model is to answer."""

    city: str
    celsius: int


def test_openai_parse() -> None:
    """Structured output is parsed by the SDK as ever."""
    with gateway(Text('{"city":"Oslo","celsius":-3}')) as made:
        answer = client(made).chat.completions.parse(model=MODEL, messages=HI, max_tokens=2000, response_format=Weather)
        assert Weather(city="Oslo", celsius=-3) == answer.choices[0].message.parsed
        made.settled()


def test_openai_parses_responses_and_streams() -> None:
    """The same of the Responses API, and of a stream whose events the SDK puts together."""
    with gateway(Text('{"city":"Oslo","celsius":-3}')) as made:
        ours, oslo = client(made), Weather(city="Oslo", celsius=-3)
        parsed = ours.responses.parse(model=MODEL, input="hi", max_output_tokens=2000, text_format=Weather)
        assert oslo == parsed.output_parsed
        with ours.chat.completions.stream(
            model=MODEL, messages=HI, max_tokens=2000, response_format=Weather
        ) as stream:  # fmt: skip
            assert oslo == stream.get_final_completion().choices[0].message.parsed
        with ours.responses.stream(model=MODEL, input="hi", max_output_tokens=2000, text_format=Weather) as events:
            assert oslo == events.get_final_response().output_parsed
        made.settled()


def test_openai_responses(gw: World) -> None:
    """The Responses API, whole and streamed."""
    answer = client(gw).responses.create(model=MODEL, input="hi", max_output_tokens=2000)
    assert "Hello there." == answer.output_text
    kinds = [event.type for event in client(gw).responses.create(
        model=MODEL, input="hi", max_output_tokens=2000, stream=True
    )]  # fmt: skip
    assert ("response.created", "response.completed") == (kinds[0], kinds[-1])
    gw.settled()


def test_openai_embeddings(gw: World) -> None:
    """Embeddings, as base64 and as numbers."""
    answer = client(gw).embeddings.create(model=MODEL, input=["hi", "ho"])
    assert 2 == len(answer.data)
    assert isinstance(answer.data[0].embedding[0], float)
    gw.settled()


def test_openai_models() -> None:
    """What has a price and an upstream, and nothing else."""
    served = {"models": ("fake-*", "other", "unpriced")}
    with gateway(TOLD, guard={"prices": {"fake-model": "0", "other": "0", "else": "0"}}, upstream=served) as made:
        names = [model.id for model in client(made).models.list()]
        assert ["fake-model", "other"] == names
        assert "fake-model" == client(made).models.retrieve("fake-model").id
        with pytest.raises(openai.NotFoundError):
            client(made).models.retrieve("../../etc/passwd")
        page = claude(made).models.list()
        assert names == [model.id for model in page.data]
        made.untouched()


async def test_openai_async(gw: World) -> None:
    """The asynchronous client, whole and streamed."""
    async with openai.AsyncOpenAI(base_url=gw.openai_url, api_key=gw.key) as found:
        answer = await found.chat.completions.create(model=MODEL, messages=HI, max_tokens=2000)
        assert "Hello there." == answer.choices[0].message.content
        stream = await found.chat.completions.create(model=MODEL, messages=HI, max_tokens=2000, stream=True)
        assert "Hello there." == "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    gw.settled()


async def test_openai_async_methods() -> None:
    """Everything else that the asynchronous client can do here: raw, parsed, responses, embeddings, models."""
    with gateway(Text('{"city":"Oslo","celsius":-3}')) as made:
        async with openai.AsyncOpenAI(base_url=made.openai_url, api_key=made.key) as found:
            raw = await found.chat.completions.with_raw_response.create(model=MODEL, messages=HI, max_tokens=2000)
            assert (True, 200) == (raw.headers["x-request-id"].startswith("req_"), raw.status_code)
            oslo = Weather(city="Oslo", celsius=-3)
            answer = await found.chat.completions.parse(
                model=MODEL, messages=HI, max_tokens=2000, response_format=Weather
            )
            assert oslo == answer.choices[0].message.parsed
            told = await found.responses.parse(model=MODEL, input="hi", max_output_tokens=2000, text_format=Weather)
            assert oslo == told.output_parsed
            events = await found.responses.create(model=MODEL, input="hi", max_output_tokens=2000, stream=True)
            assert "response.completed" == [event.type async for event in events][-1]
            assert 1 == len((await found.embeddings.create(model=MODEL, input="hi")).data)
            assert MODEL in [model.id async for model in found.models.list()]
        made.settled()


def test_anthropic_messages(gw: World) -> None:
    """Messages, whole and streamed, by `x-api-key`."""
    answer = claude(gw).messages.create(model=MODEL, messages=HI, max_tokens=2000)
    assert isinstance(answer.content[0], anthropic.types.TextBlock)
    assert "Hello there." == answer.content[0].text
    assert (answer._request_id or "").startswith("req_")
    with claude(gw).messages.stream(model=MODEL, messages=HI, max_tokens=2000) as stream:
        assert "Hello there." == stream.get_final_text()
    assert HOUSE == gw.provider.received[-1].headers["x-api-key"]
    gw.settled()


def test_anthropic_count_tokens(gw: World) -> None:
    """Counting costs nothing and is passed on."""
    before = gw.spent
    assert claude(gw).messages.count_tokens(model=MODEL, messages=HI).input_tokens > 0
    assert (before, 0) == (gw.spent, gw.held)


def test_langchain_openai(gw: World) -> None:
    """ChatOpenAI: invoke, stream with usage, tools."""
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=gw.openai_url, api_key=gw.key, max_tokens=2000)  # type: ignore[arg-type, call-arg]
    assert "Hello there." == model.invoke("hi").content
    chunks = list(model.stream("hi", stream_usage=True))
    assert "Hello there." == "".join(str(chunk.content) for chunk in chunks)
    assert 1500 in {(chunk.usage_metadata or {}).get("total_tokens") for chunk in chunks}
    gw.settled()


def test_langchain_anthropic(gw: World) -> None:
    """ChatAnthropic: invoke and stream."""
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(model=MODEL, base_url=gw.url, api_key=gw.key, max_tokens=2000)  # type: ignore[call-arg, arg-type]
    assert "Hello there." == model.invoke("hi").content
    assert "Hello there." == "".join(str(chunk.text) for chunk in model.stream("hi"))
    gw.settled()


def test_curl(gw: World) -> None:
    """No SDK at all."""
    made = subprocess.run(
        ["curl", "-sS", "-i", f"{gw.openai_url}/chat/completions", "-H", f"Authorization: Bearer {gw.key}",
         "-d", json.dumps({"model": MODEL, "messages": HI, "max_tokens": 2000})],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    head, _, body = made.stdout.partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "Hello there." == json.loads(body)["choices"][0]["message"]["content"]
    gw.settled()


# What is refused.


@pytest.mark.parametrize(
    ("key", "kind"),
    [("sk-nobody", openai.AuthenticationError), ("rr_live_AAAAAAAAAAAAAAAA_x", openai.AuthenticationError)],
)
def test_wrong_key(gw: World, key: str, kind: type[Exception]) -> None:
    """401 in both dialects, before the body is read, and nothing of the key comes back."""
    hits = gw.hits
    with pytest.raises(kind) as caught:
        client(gw, api_key=key).chat.completions.create(model=MODEL, messages=HI)
    assert key not in str(caught.value)
    with pytest.raises(anthropic.AuthenticationError):
        claude(gw, api_key=key).messages.create(model=MODEL, messages=HI, max_tokens=5)
    assert hits == gw.hits


def test_missing_scope() -> None:
    """403 where a key may not do that."""
    with gateway(TOLD, scopes=("ai:embed",)) as made:
        with pytest.raises(openai.PermissionDeniedError):
            client(made).chat.completions.create(model=MODEL, messages=HI)
        with pytest.raises(anthropic.PermissionDeniedError):
            claude(made).messages.create(model=MODEL, messages=HI, max_tokens=5)
        made.untouched()


def test_unknown_model() -> None:
    """404 where no upstream serves it, 400 where nobody priced it; neither is sent."""
    with gateway(TOLD, upstream={"models": ("fake-*", "unpriced")}) as made:
        with pytest.raises(openai.NotFoundError) as caught:
            client(made).chat.completions.create(model="gpt-4o", messages=HI)
        assert "model_not_found" == caught.value.code
        with pytest.raises(openai.BadRequestError) as refused:
            client(made).chat.completions.create(model="unpriced", messages=HI)
        assert "model_unpriced" == refused.value.code
        made.untouched()


@pytest.mark.parametrize("limits", [Limits(run=None, month="0.002"), Limits(run=None, key_month="0.002")])
def test_exactly_one_request_after_the_budget_is_exhausted(limits: Limits) -> None:
    """Default SDKs, with their retries: one request, 402, nothing reaches the provider."""
    with gateway(Text("x", usage=Usage(input_tokens=10, output_tokens=10)), limits) as made:
        ours, theirs = client(made), claude(made)
        with pytest.raises(openai.APIStatusError) as caught:
            for _ in range(200):
                ours.chat.completions.create(model=MODEL, messages=HI, max_tokens=20)
        assert (402, "insufficient_quota", "budget_exhausted") == (
            caught.value.status_code, caught.value.type, caught.value.code
        )  # fmt: skip
        before, hits = made.watching.began_count, made.hits
        assert 0 < hits
        made.settled()
        with pytest.raises(openai.APIStatusError):
            ours.chat.completions.create(model=MODEL, messages=HI, max_tokens=20)
        with pytest.raises(anthropic.APIStatusError) as told:
            theirs.messages.create(model=MODEL, messages=HI, max_tokens=20)
        assert (402, "retry-after" in told.value.response.headers) == (told.value.status_code, False)
        assert (before + 2, hits) == (made.watching.began_count, made.hits)


def test_exactly_one_request_through_langchain() -> None:
    """Its own retries do not multiply a refusal either."""
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    with gateway(TOLD, Limits(run=None, month="0.0000001")) as made:
        for model in (
            ChatOpenAI(model=MODEL, base_url=made.openai_url, api_key=made.key, max_tokens=2000),  # type: ignore[arg-type, call-arg]
            ChatAnthropic(model=MODEL, base_url=made.url, api_key=made.key, max_tokens=2000),  # type: ignore[call-arg, arg-type]
        ):
            before = made.watching.began_count
            with pytest.raises(Exception, match="402"):
                model.invoke("hi")
            assert before + 1 == made.watching.began_count
        made.untouched()


# The founding story.

TOOL: Any = [{
    "type": "function",
    "function": {"name": "classify_review", "description": "Classify.", "parameters": {
        "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]
    }},
}]  # fmt: skip


def test_founding_story() -> None:
    """An agent that would not give up: 5 executed calls with default settings, and one request after the stop."""
    with gateway(founding(), Limits()) as made:
        ours = client(made)
        messages: list[Any] = [{"role": "user", "content": "Classify the review."}]
        executed = 0
        with pytest.raises(openai.PermissionDeniedError) as caught:
            for _ in range(50):
                answer = ours.chat.completions.create(model=MODEL, messages=messages, tools=TOOL).choices[0].message
                messages.append(answer.model_dump(exclude_none=True))
                for call in answer.tool_calls or ():
                    executed += 1
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": "null"})
        assert 5 == executed
        assert "loop_detected" == caught.value.code
        assert executed + 1 == made.watching.began_count, "the SDK has not sent it again"
        assert 5 == made.hits
        made.settled()


def test_founding_story_through_anthropic() -> None:
    """The same in the other dialect."""
    with gateway(founding(), Limits()) as made:
        theirs = claude(made)
        tool: Any = [{"name": "classify_review", "input_schema": TOOL[0]["function"]["parameters"]}]
        messages: list[Any] = [{"role": "user", "content": "Classify the review."}]
        executed = 0
        with pytest.raises(anthropic.PermissionDeniedError):
            for _ in range(50):
                answer = theirs.messages.create(model=MODEL, messages=messages, tools=tool, max_tokens=500)
                messages.append({"role": "assistant", "content": answer.content})
                asked = [block for block in answer.content if isinstance(block, anthropic.types.ToolUseBlock)]
                executed += len(asked)
                messages.append({"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": block.id, "content": "null"} for block in asked
                ]})  # fmt: skip
        assert (5, 5, 6) == (executed, made.hits, made.watching.began_count)
        made.settled()


def test_founding_story_with_an_agent() -> None:
    """A LangChain agent that knows nothing of the gateway."""
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    calls: list[str] = []

    @tool
    def classify_review(text: str) -> str:
        """Classify a review."""
        calls.append(text)
        return "null"

    with gateway(founding(), Limits()) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ChatOpenAI(model=MODEL, base_url=made.openai_url, api_key=made.key)  # type: ignore[arg-type]
        agent = create_agent(model, [classify_review])
        with pytest.raises(openai.PermissionDeniedError):
            agent.invoke({"messages": HI}, {"recursion_limit": 100})
        assert (5, 5, 6) == (len(calls), made.hits, made.watching.began_count)
        made.settled()


def test_one_run_for_a_conversation() -> None:
    """The run is known again from the history that is resent, whatever its requests have in common beside that."""
    script = [ToolCalls([ToolUse("look", {"n": n}, id=f"call_{n}")]) for n in range(3)]
    with gateway([*script, Text("done")]) as made:
        ours = client(made)
        messages: list[Any] = list(HI)
        runs = set()
        for n in range(4):
            raw = ours.chat.completions.with_raw_response.create(model=MODEL, messages=messages, tools=TOOL)
            runs.add(raw.headers["x-runrails-run"])
            messages.append(raw.parse().choices[0].message.model_dump(exclude_none=True))
            messages.append({"role": "tool", "tool_call_id": f"call_{n}", "content": str(n)})
        assert 1 == len(runs)
        other = ours.chat.completions.with_raw_response.create
        with pytest.raises(openai.BadRequestError):  # the script has ended: a new conversation is another run
            other(model=MODEL, messages=HI)
        made.settled()


def test_one_run_for_a_streamed_conversation() -> None:
    """Answers that came in pieces are known again, too, in every dialect."""
    script = [ToolCalls([ToolUse("look", {"n": 1}, id="call_1")], text="Let me look."), Text("done")]
    with gateway([*script, *script, *script]) as made:
        ours, theirs = client(made), claude(made)
        said: list[Any] = list(HI)
        for _ in range(2):
            with ours.chat.completions.stream(model=MODEL, messages=said, tools=TOOL) as stream:
                answer = stream.get_final_completion().choices[0].message
            said += [answer.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": "call_1", "content": "1"}]
        asked: list[Any] = list(HI)
        tools: Any = [{"name": "look", "input_schema": {"type": "object"}}]
        for _ in range(2):
            with theirs.messages.stream(model=MODEL, messages=asked, tools=tools, max_tokens=500) as streamed:
                content = streamed.get_final_message().content
            result = {"type": "tool_result", "tool_use_id": "call_1", "content": "1"}
            asked += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        given: list[Any] = list(HI)
        for _ in range(2):
            with ours.responses.stream(model=MODEL, input=given) as events:
                output = events.get_final_response().output
            given += [item.model_dump(exclude_none=True) for item in output]
            given.append({"type": "function_call_output", "call_id": "call_1", "output": "1"})
        runs = [seen.run_id for seen in made.ended()]
        assert [runs[0], runs[0], runs[2], runs[2], runs[4], runs[4]] == runs
        assert 3 == len(set(runs))
        made.settled()


def test_responses_chain_by_the_answer_they_go_on_from() -> None:
    """`previous_response_id` names the run where no history is sent."""
    with gateway(TOLD) as made:
        ours = client(made)
        first = ours.responses.create(model=MODEL, input="hi")
        second = ours.responses.create(model=MODEL, input="and?", previous_response_id=first.id)
        ours.responses.create(model=MODEL, input="and?", previous_response_id=second.id)
        ours.responses.create(model=MODEL, input="hi")
        runs = [seen.run_id for seen in made.ended()]
        assert [runs[0]] * 3 == runs[:3]
        assert runs[3] != runs[0]


def test_run_header_is_accepted() -> None:
    """`X-Runrails-Run` names the run, and one user's is not another's."""
    with gateway(TOLD) as made:
        bob = made.new_key("bob")
        runs = [
            client(made, api_key=key).chat.completions.with_raw_response.create(
                model=MODEL, messages=HI, max_tokens=2000, extra_headers={"X-Runrails-Run": "nightly"}
            ).headers["x-runrails-run"]
            for key in (made.key, made.key, bob)
        ]  # fmt: skip
        assert (runs[0], False) == (runs[1], runs[0] == runs[2])
