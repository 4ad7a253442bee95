"""What bounds Bedrock's requests: every form that is documented is held for in full, everything else is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

pytest.importorskip("boto3")

from rr_bedrock import ASK, LLAMA, BedrockWorld, claude, converse, invoke, read
from runrails import CallRefused, Limits
from runrails.bounds import input_tokens_bound
from runrails.calls import Prompt
from runrails.errors import BoundUnknown, PriceUnknown
from runrails.pricing import Price
from runrails.testing.provider import Text
from runrails.usage import Usage
from runrails_aws.bedrock.converse import converse as read_converse
from runrails_aws.bedrock.invoke import invocation, maker_of, with_cap
from runrails_aws.bedrock.plan import BedrockOptions, retries_of

ARN = "arn:aws:bedrock:us-east-1:123456789012"
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}}


def said(*blocks: Any) -> Any:
    """Messages with these blocks."""
    return [{"role": "user", "content": list(blocks)}]


@pytest.mark.parametrize(
    "how",
    [
        {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
        {"performanceConfig": {"latency": "optimized"}},
        {"serviceTier": {"type": "priority"}},
        {"serviceTier": {"type": "reserved"}},
        {"modelId": f"{ARN}:prompt/ABCDEFGHIJ:1", "promptVariables": {"a": {"text": "b"}}},
        {"messages": said({"document": {"format": "pdf", "name": "x", "source": {"bytes": b"x"}}})},
        {"messages": said({"document": {"format": "txt", "name": "x", "source": {"s3Location": {"uri": "s3://b/k"}}}})},
        {"messages": said({"video": {"format": "mp4", "source": {"bytes": b"x"}}})},
        {"messages": said({"audio": {"format": "mp3", "source": {"bytes": b"x"}}})},
        {"messages": said({"toolResult": {"toolUseId": "a", "content": [
            {"document": {"format": "pdf", "name": "x", "source": {"bytes": b"x"}}}]}})},
        {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
        {"additionalModelRequestFields": {"max_tokens": 100_000}},
        {"additionalModelRequestFields": {"inferenceConfig": {"maxTokens": 100_000}}},
        {"additionalModelRequestFields": {"n": 3}},
        {"additionalModelRequestFields": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}},
        {"additionalModelRequestFields": {"mcp_servers": [{"type": "url", "url": "http://x"}]}},
        {"additionalModelRequestFields": {"speed": "fast"}},
    ],
)  # fmt: skip
def test_converse_that_nobody_can_bound_is_refused(how: dict[str, Any]) -> None:
    """Surcharges, files, hosted tools, second caps: by name, before anything is sent."""
    with BedrockWorld() as world:
        client = world.boto()
        with pytest.raises((BoundUnknown, PriceUnknown)) as caught:
            if str(how.get("modelId", "")).startswith("arn"):
                client.converse(**how)
            else:
                converse(client, **how)
        assert isinstance(caught.value, BoundUnknown)
        world.gone()


@pytest.mark.parametrize(
    "how",
    [
        {"system": [{"text": "be brief"}, {"cachePoint": {"type": "default"}}]},
        {"messages": said({"text": "a"}, {"cachePoint": {"type": "default"}})},
        {"messages": said({"text": "a"}, {"image": {"format": "png", "source": {"bytes": b"x"}}})},
        {"messages": said({"document": {"format": "txt", "name": "x", "source": {"text": "words"}}}, {"text": "a"})},
        {"messages": said({"document": {"name": "x", "source": {"content": [{"text": "words"}]}}}, {"text": "a"})},
        {"messages": said({"guardContent": {"text": {"text": "words"}}})},
        {"messages": said({"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}],
                                            "citations": {"enabled": True}}})},
        {"messages": [*ASK, {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}, {"text": "a"}]}, *ASK]},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": SCHEMA}}},
                                  {"cachePoint": {"type": "default"}}], "toolChoice": {"any": {}}}},
        {"additionalModelRequestFields": {"top_k": 3, "inferenceConfig": {"topK": 20}}},
        {"additionalModelRequestFields": {"tools": [{"type": "bash_20250124", "name": "bash"}]}},
        {"serviceTier": {"type": "flex"}, "performanceConfig": {"latency": "standard"}},
        {"requestMetadata": {"team": "x"}, "additionalModelResponseFieldPaths": ["/a"]},
        {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}"}}}}},
    ],
)  # fmt: skip
def test_converse_that_can_be_bounded_is_billed(how: dict[str, Any]) -> None:
    """What is documented goes through, is held for in full, and settles exactly."""
    with BedrockWorld(Text("ok")) as world:
        converse(world.boto(), **how)
        world.settled()
        assert "bound_violated" not in world.names()


def test_bound_of_converse_is_never_below_its_text() -> None:
    """Wherever in a request a text stands, its bytes are in the bound; a picture counts by the model, not its bytes."""
    text = "ﷺ" * 100  # one character, 18 of which NFKC makes
    plain = input_tokens_bound(read_converse({"messages": []}, model="m").prompt)
    least = input_tokens_bound(Prompt(texts=(text,))) - input_tokens_bound(Prompt())
    places: list[Any] = [
        {"system": [{"text": text}]},
        {"messages": said({"text": text})},
        {"messages": said({"toolUse": {"toolUseId": "a", "name": "b", "input": {"c": text}}})},
        {"messages": said({"toolResult": {"toolUseId": "a", "content": [{"json": {"c": text}}, {"text": text}]}})},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "b", "description": text, "inputSchema": {"json": {}}}}]}},
        {"additionalModelRequestFields": {"anything": text}},
        {"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": text}}}}},
    ]
    for place in places:
        assert input_tokens_bound(read_converse(place, model="m").prompt) >= plain + least, place
    picture = {"image": {"format": "png", "source": {"bytes": "eA=="}}}
    nested = said({"toolResult": {"toolUseId": "a", "content": [picture, picture]}}, picture)
    assert 3 == read_converse({"messages": nested}, model="m").prompt.images


def test_unknown_fields_and_blocks_are_named() -> None:
    """What a later API adds is refused by its name until somebody has looked at it."""
    assert "the field newThing" == read_converse({"newThing": 1}, model="m").prompt.unbounded
    assert "newBlock" == read_converse({"messages": said({"newBlock": {}})}, model="m").prompt.unbounded
    assert "untyped content" == read_converse({"messages": said("text")}, model="m").prompt.unbounded


TEXTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "titan": (
        "amazon.titan-text-express-v1",
        {"inputText": "hi", "textGenerationConfig": {"maxTokenCount": 300, "temperature": 0}},
        ("textGenerationConfig", "maxTokenCount"),
    ),
    "llama": (LLAMA, {"prompt": "hi", "max_gen_len": 300}, ("max_gen_len",)),
    "mistral": ("mistral.mistral-7b-instruct-v0:2", {"prompt": "hi", "max_tokens": 300}, ("max_tokens",)),
    "mistral chat": (
        "mistral.mistral-large-2407-v1:0",
        {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 300},
        ("max_tokens",),
    ),
    "cohere": (
        "cohere.command-r-v1:0", {"message": "hi", "chat_history": [], "max_tokens": 300}, ("max_tokens",)
    ),
    "nova": (
        "us.amazon.nova-lite-v1:0",
        {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"max_new_tokens": 300}},
        ("inferenceConfig", "max_new_tokens"),
    ),
    "openai": (
        "openai.gpt-oss-20b-1:0",
        {"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 300},
        ("max_completion_tokens",),
    ),
    "jamba": (
        "ai21.jamba-1-5-mini-v1:0",
        {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 300},
        ("max_tokens",),
    ),
}  # fmt: skip
PER_MODEL = {model: Price(input="1", output="2", output_tokens_max=4_096) for model, _, _ in TEXTS.values()}


@pytest.mark.parametrize("family", TEXTS)
def test_invoke_model_of_every_maker_is_billed(family: str) -> None:
    """Whole and streamed: the cap is read where the maker has it, and the usage where Bedrock tells it."""
    model, body, cap = TEXTS[family]
    assert (300, cap) == (invocation(body, model=model).wire.max_tokens, invocation(body, model=model).cap)
    with BedrockWorld(Text("well then", usage=Usage(input_tokens=9, output_tokens=7)), prices=PER_MODEL) as world:
        client = world.boto()
        invoke(client, modelId=model, body=json.dumps(body))
        world.settled()
        read(client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))["body"])
        world.settled()
        assert (2, []) == (len(world.provider.bill.calls), world.names())


@pytest.mark.parametrize("family", TEXTS)
def test_invoke_model_gets_the_cap_that_the_budget_buys(family: str) -> None:
    """Without a cap, or with one that is too large, one is put where the maker has it; the rest stays as it was."""
    model, body, cap = TEXTS[family]
    asked = with_cap(body, cap, 4_096)
    with BedrockWorld(Text("x " * 9_000), prices=PER_MODEL, limits=Limits(run="0.006")) as world:
        invoke(world.boto(), modelId=model, body=json.dumps(asked))
        sent = world.provider.received[-1]
        assert (True, with_cap(body, cap, sent.max_tokens or 0)) == (1_024 <= (sent.max_tokens or 0) < 4_096, sent.body)
        world.settled()


def test_embeddings_have_no_output() -> None:
    """Titan's and Cohere's are held for and billed by their input alone."""
    prices = dict.fromkeys(("amazon.titan-embed-text-v2:0", "cohere.embed-english-v3"), Price(input="1", output="0"))
    with BedrockWorld(Text("", usage=Usage(input_tokens=2)), prices=prices) as world:
        client = world.boto()
        invoke(client, modelId="amazon.titan-embed-text-v2:0", body=json.dumps({"inputText": "hi", "dimensions": 256}))
        texts = json.dumps({"texts": ["a", "b"], "input_type": "search_document"})
        invoke(client, modelId="cohere.embed-english-v3", body=texts)
        world.settled()


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (LLAMA, {"prompt": "hi", "max_tokens": 5}),
        (LLAMA, {"prompt": "hi", "images": ["aGk="]}),
        ("stability.stable-image-core-v1:0", {"prompt": "a cat"}),
        ("amazon.titan-image-generator-v1", {"taskType": "TEXT_IMAGE"}),
        ("amazon.nova-canvas-v1:0", {"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "a cat"}}),
        ("amazon.titan-embed-image-v1", {"inputText": "hi", "inputImage": "aGk="}),
        ("cohere.embed-v4:0", {"images": ["x"], "input_type": "image"}),
        ("cohere.rerank-v3-5:0", {"query": "a", "documents": ["b"], "api_version": 2}),
        ("fake-model", {"prompt": "hi"}),
        (f"{ARN}:application-inference-profile/abc", {"prompt": "hi", "max_gen_len": 5}),
        ("anthropic.claude-v2", {"prompt": "hi", "max_tokens_to_sample": 5}),
        (LLAMA, {"prompt": "hi", "max_gen_len": 500, **json.loads(claude(max_tokens=1))}),
        ("mistral.mistral-large-2407-v1:0", {"messages": [], "max_completion_tokens": 1, "max_tokens": 500}),
        ("deepseek.r1-v1:0", {"messages": [], "prompt": "hi"}),
    ],
)  # fmt: skip
def test_invoke_model_in_an_unknown_form_is_refused(model: str, body: dict[str, Any]) -> None:
    """Pictures, rerankers, fields that the maker does not document, two forms in one, models the id does not tell."""
    with BedrockWorld(prices={model: Price(input="1", output="1")}) as world:
        with pytest.raises(BoundUnknown):
            invoke(world.boto(), modelId=model, body=json.dumps(body))
        world.gone()


@pytest.mark.parametrize(
    "how",
    [
        {"guardrailIdentifier": "gr-1", "guardrailVersion": "1"},
        {"performanceConfigLatency": "optimized"},
        {"serviceTier": "priority"},
        {"body": b"not json"},
        {"body": b"[1]"},
        {"body": b""},
        {"body": claude(max_tokens=0)},
        {"body": claude(tools=[{"type": "web_search_20250305", "name": "web_search"}])},
    ],
)
def test_invoke_model_that_nobody_can_bound_is_refused(how: dict[str, Any]) -> None:
    """Surcharges stand in headers here; a body that is no object of JSON has no bound."""
    with BedrockWorld() as world:
        with pytest.raises(BoundUnknown):
            invoke(world.boto(), **how)
        world.gone()


def test_a_body_that_is_too_deep_to_read_is_refused_by_type() -> None:
    """So that a guard that only observes lets it through."""
    deep = '{"messages": ' + "[" * 200_000 + "]" * 200_000 + "}"

    with pytest.raises(BoundUnknown):
        BedrockOptions.read("InvokeModel", {"body": deep}, {})


def test_bodies_of_any_type_are_read_and_sent() -> None:
    """Text, bytes, a bytearray, an open file."""
    with BedrockWorld(Text("ok")) as world:
        client = world.boto()
        for body in (claude(), claude().encode(), bytearray(claude().encode()), io.BytesIO(claude().encode())):
            invoke(client, body=body)
        world.settled()
        assert 4 == world.hits


def test_cached_input_without_its_headers_is_charged_the_hold() -> None:
    """The input count leaves out what was cached, so alone it is half of the truth."""
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    with BedrockWorld(Text("ok")) as world:
        invoke(world.boto(), body=claude(system=system))
        assert (0, True) == (world.held, world.spent > world.billed)


def test_profiles_and_arns_are_priced_by_the_model_inside() -> None:
    """A profile's ARN has the profile's price; one that does not tell its model is refused."""
    inside = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    arn = f"{ARN}:inference-profile/{inside}"
    with BedrockWorld(Text("ok")) as world:
        client = world.boto()
        converse(client, modelId=inside)
        once = world.spent
        converse(client, modelId=arn)
        assert 2 * once == world.spent
        assert arn == world.provider.received[-1].model
        with pytest.raises(CallRefused):
            converse(client, modelId=f"{ARN}:application-inference-profile/abc")
        assert 2 == world.hits


@pytest.mark.parametrize(
    ("model", "maker"),
    [
        ("meta.llama3-8b-instruct-v1:0", "meta.llama3-8b-instruct-v1:0"),
        ("us.meta.llama3-3-70b-instruct-v1:0", "meta.llama3-3-70b-instruct-v1:0"),
        ("us-gov.anthropic.claude-x", "anthropic.claude-x"),
        ("global.amazon.nova-2-lite-v1:0", "amazon.nova-2-lite-v1:0"),
        ("arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b", "meta.llama3-8b"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.mistral.pixtral", "mistral.pixtral"),
    ],
)
def test_maker_is_found_in_any_form_of_the_id(model: str, maker: str) -> None:
    """Geographies and ARNs are taken off."""
    assert maker == maker_of(model)


class _Config:
    def __init__(self, retries: object) -> None:
        self.retries = retries


@pytest.mark.parametrize(
    ("retries", "expected"),
    [
        ({"mode": "standard"}, 2), ({"mode": "adaptive"}, 2), ({"mode": "legacy"}, 4), ({"mode": "none"}, 0),
        ({"mode": "legacy", "total_max_attempts": 1}, 0), ({"mode": "standard", "total_max_attempts": 7}, 6),
        (None, 0),
    ],
)  # fmt: skip
def test_retries_are_read_from_the_clients_configuration(retries: object, expected: int) -> None:
    """As botocore counts them: attempts in total, with each mode's own default."""
    assert expected == retries_of(_Config(retries))
