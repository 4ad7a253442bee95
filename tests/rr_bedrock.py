"""What the tests of guarded Bedrock clients share: boto3 clients beside a guard, and calls on every operation."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from rr_clients import MODEL, TOLD, World
from runrails import Limits
from runrails.run import Run
from runrails.testing.provider import FakeProvider
from runrails.testing.provider.bill import price_function
from runrails.testing.provider.script import Script
from runrails_aws.bedrock import wrap
from runrails_aws.bedrock.gate import Gate, gate_of

ASK: Any = [{"role": "user", "content": [{"text": "Say something."}]}]
LLAMA = "meta.llama3-8b-instruct-v1:0"


class BedrockWorld(World):
    """A world with boto3 clients of its provider, which bills by the guard's own prices."""

    def __init__(self, script: Script = TOLD, limits: Limits | None = None, **options: Any) -> None:
        prices = options.get("prices")
        super().__init__(script, limits, **options)
        if prices is not None:
            self.provider = FakeProvider(script, price_pusd=price_function(prices))

    def boto(self, *, wrapped: bool = True, session: Any = None, attempts: int = 1, **options: Any) -> Any:
        """A `bedrock-runtime` client."""
        config = {"retries": {"total_max_attempts": attempts, "mode": "standard"}, "read_timeout": 5, **options}
        made = (session or shared_session()).client(
            "bedrock-runtime", endpoint_url=self.provider.bedrock_url, config=Config(**config)
        )
        self._closing.append(made.close)
        return wrap(self.guard, made) if wrapped else made

    def gone(self) -> None:
        """Nothing was sent, and nothing is spent or held."""
        self.guard.flush()
        self.untouched()


@cache
def shared_session() -> Any:
    """A session that all tests share which do not guard it: making one takes long."""
    return a_session()


def a_session(region: str = "us-east-1") -> Any:
    """A session with keys that nobody checks."""
    return boto3.Session(aws_access_key_id="none", aws_secret_access_key="none", region_name=region)


def edge_of(client: Any) -> Any:
    """What guards a client."""
    gate = gate_of(client.meta.events)
    assert isinstance(gate, Gate)
    return gate.edge


def run_of(client: Any) -> Run:
    """The run of a client's own."""
    run = edge_of(client)._shared
    assert isinstance(run, Run)
    return run


def claude(**more: Any) -> str:
    """A body in Anthropic's form."""
    return json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 900,
            "messages": [{"role": "user", "content": "hi"}],
            **more,
        }
    )


def converse(client: Any, **how: Any) -> Any:
    """A whole answer."""
    return client.converse(**{"modelId": MODEL, "messages": ASK, "inferenceConfig": {"maxTokens": 900}, **how})


def stream(client: Any, **how: Any) -> Any:
    """A stream of events."""
    asked = {"modelId": MODEL, "messages": ASK, "inferenceConfig": {"maxTokens": 900}, **how}
    return client.converse_stream(**asked)["stream"]


def invoke(client: Any, **how: Any) -> Any:
    """A whole answer in the maker's form, read."""
    return json.loads(client.invoke_model(**{"modelId": MODEL, "body": claude(), **how})["body"].read())


def invoke_stream(client: Any, **how: Any) -> Any:
    """A stream of the maker's chunks."""
    return client.invoke_model_with_response_stream(**{"modelId": MODEL, "body": claude(), **how})["body"]


def read(events: Any) -> list[Any]:
    """Everything that comes."""
    try:
        return list(events)
    finally:
        events.close()


OPERATIONS: dict[str, Callable[[Any], object]] = {
    "Converse": converse,
    "ConverseStream": lambda client: read(stream(client)),
    "InvokeModel": invoke,
    "InvokeModelWithResponseStream": lambda client: read(invoke_stream(client)),
}
STREAMS: dict[str, Callable[[Any], Any]] = {
    "ConverseStream": stream, "InvokeModelWithResponseStream": invoke_stream
}  # fmt: skip
