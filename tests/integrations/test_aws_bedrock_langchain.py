"""A wrapped Bedrock client under LangChain models that a callback guards: one call is counted once, none is missed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_aws")

from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from langchain_aws import ChatBedrock, ChatBedrockConverse
from langchain_core.messages import HumanMessage

from rr_bedrock import BedrockWorld, a_session, converse, edge_of, run_of
from rr_clients import MODEL, TOLD
from runrails import BudgetExceeded, Limits
from runrails.errors import PriceUnknown
from runrails.ledger import SupportsUsage
from runrails.testing.provider import Text
from runrails_aws import guard_session
from runrails_langchain import GuardrailCallbackHandler, attach


@pytest.fixture(autouse=True)
def _attached() -> None:
    attach()


def over(client: Any, kind: Any = ChatBedrockConverse, **options: Any) -> Any:
    """A LangChain model that sends through a client of ours."""
    own: Any = {"provider": "anthropic"} if kind is ChatBedrock else {}
    how = {"model": MODEL, "client": client, "bedrock_client": client, "max_tokens": 900, **own, **options}
    return kind(**how)


@pytest.mark.parametrize("kind", [ChatBedrockConverse, ChatBedrock])
@pytest.mark.parametrize("stream", [False, True])
def test_callback_and_wrapped_client_count_once(kind: Any, stream: bool) -> None:
    """Inside `with guard.run():` the callback's permit covers the client's request; the bill is the ledger."""
    with BedrockWorld() as world:
        model = over(world.boto(), kind)
        with world.guard.run() as run:
            if stream:
                list(model.stream("hi"))
            else:
                model.invoke("hi")
        world.settled()
        assert (1, 1) == (run.report().model_calls, len(world.provider.bill.calls))


def test_handler_in_the_config_counts_once() -> None:
    """A handler that opens a run of its own covers the client as well."""
    with BedrockWorld() as world:
        client = world.boto()
        handler = GuardrailCallbackHandler(world.guard)
        over(client).invoke("hi", {"callbacks": [handler]})
        world.settled()
        assert handler.last_run is not None
        assert (1, None) == (handler.last_run.report().model_calls, edge_of(client)._shared)
        handler.close()


def test_batch_counts_each_once() -> None:
    """Threads that copied one context do not take each other's permits."""
    with BedrockWorld() as world:
        model = over(world.boto())
        with world.guard.run() as run:
            model.batch([[HumanMessage("hi")]] * 8)
        world.settled()
        assert (8, 8) == (run.report().model_calls, len(world.provider.bill.calls))


@pytest.mark.parametrize("stream", [False, True])
def test_profile_that_stands_for_a_model_counts_once(stream: bool) -> None:
    """LangChain is told which model is behind it; Bedrock's request does not say. Without LangChain it has no price."""
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    with BedrockWorld() as world:
        client = world.boto()
        model = over(client, model=profile, base_model=MODEL, provider="anthropic")
        with world.guard.run() as run:
            if stream:
                list(model.stream("hi"))
            else:
                model.invoke("hi")
            with pytest.raises(PriceUnknown):
                converse(client, modelId=profile)
        assert (1, 1, 0) == (run.report().model_calls, world.hits, world.held)
        usage = run.report()
        assert (TOLD.usage.input_tokens, TOLD.usage.output_tokens) == (usage.input_tokens, usage.output_tokens)  # type: ignore[union-attr]


def test_model_without_a_callback_is_guarded_by_its_client() -> None:
    """Nobody above guards it, so the client does."""
    with BedrockWorld() as world:
        client = world.boto()
        over(client).invoke("hi")
        world.settled()
        assert 1 == run_of(client).report().model_calls


def test_client_that_the_model_makes_itself_is_guarded_by_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3's default session is the one langchain-aws uses where it is given neither client nor profile."""
    import boto3

    session = a_session()
    monkeypatch.setattr(boto3, "Session", lambda **_: session)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)  # which another test may have made already
    with BedrockWorld() as world:
        guard_session(world.guard, session)
        model = ChatBedrockConverse(
            model=MODEL, region_name="us-east-1", endpoint_url=world.provider.bedrock_url, max_tokens=900
        )  # type: ignore[call-arg]
        model.invoke("hi")
        world.settled()
        assert world.spent > 0
        model.client.close()
        model.bedrock_client.close()


def test_calls_beside_a_model_are_not_covered_by_it() -> None:
    """A raw call of the same model while a guarded model streams is a call of its own."""
    with BedrockWorld(Text("one two three")) as world:
        client = world.boto()
        model = over(client)
        with world.guard.run() as run:
            for number, _ in enumerate(model.stream("hi")):
                if number == 0:
                    converse(client)
            converse(client)
        world.settled()
        assert (3, 3) == (run.report().model_calls, len(world.provider.bill.calls))


def test_stop_of_the_callback_is_the_only_one() -> None:
    """The model's call is refused above the client; nothing is sent, nothing counted twice."""
    with BedrockWorld(TOLD, limits=Limits(run="0.00000001")) as world:
        model = over(world.boto())
        with pytest.raises(BudgetExceeded):
            with world.guard.run():
                model.invoke("hi")
        world.gone()


LLAMA = "meta.llama3-70b-instruct-v1:0"
"""Its output is $3.50 a million tokens, in São Paulo $5.88."""


@pytest.mark.parametrize("kind", [ChatBedrockConverse, ChatBedrock])
@pytest.mark.parametrize("told", ["given", "environment"])
@pytest.mark.parametrize(("region", "pusd"), [("us-east-1", 3_500_000), ("sa-east-1", 5_880_000)])
def test_a_bare_callback_prices_a_call_where_it_is_made(
    kind: Any, told: str, region: str, pusd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The region is what LangChain tells of it, or what the model was given, or the environment's."""
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region if told == "environment" else "eu-west-1")
    with BedrockWorld(prices={}) as world:
        model = kind(
            model=LLAMA, provider="meta", max_tokens=900, aws_access_key_id="a", aws_secret_access_key="b",
            endpoint_url="http://127.0.0.1:9", config=Config(retries={"max_attempts": 0}),
            **({"region_name": region} if told == "given" else {}),
        )  # fmt: skip
        with world.guard.run(), pytest.raises(EndpointConnectionError):
            model.invoke("hi")
        assert isinstance(world.store, SupportsUsage)
        (record,) = world.store.usage()

        assert 900 * pusd < record.estimated_pusd < 1_000 * pusd
