"""A wrapped boto3 client for Bedrock: every operation is billed as the provider bills it, from any thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("boto3")

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)

from rr_bedrock import ASK, OPERATIONS, BedrockWorld, a_session, claude, converse, edge_of, invoke, read, run_of, stream
from rr_clients import MODEL, TOLD
from runrails import BudgetExceeded, ConfigError, Guard, Limits
from runrails.errors import BoundUnknown, PriceUnknown, StoreUnavailable
from runrails.stores.memory import MemoryStore
from runrails.testing import FlakyStore
from runrails.testing.provider import Delay, Error, HangUp, Stall, Text, ToolCalls, ToolUse
from runrails.usage import Usage
from runrails_aws.bedrock import wrap

CACHED = Usage(input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, output_tokens=777)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_ledger_is_the_bill(operation: str) -> None:
    """One call is one step, and the ledger is the provider's bill, the cache's parts included."""
    with BedrockWorld(Text("Hello there.", usage=CACHED, ignores_max_tokens=True)) as world:
        client = world.boto()
        OPERATIONS[operation](client)
        world.settled()
        report = run_of(client).report()
        assert (1, 1, 0, 0) == (
            len(world.provider.bill.calls), report.model_calls, report.unresolved_pusd, report.refusals
        )  # fmt: skip
        assert world.spent > 0
        assert "adapter_failed" not in world.names()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_refusal_has_its_own_type_and_sends_nothing(operation: str) -> None:
    """Above the budget every operation raises BudgetExceeded itself, and no request leaves; nor does one after it."""
    with BedrockWorld(limits=Limits(run="0.00000001")) as world:
        client = world.boto(attempts=3)
        for _ in range(2):
            with pytest.raises(BudgetExceeded) as caught:
                OPERATIONS[operation](client)
            assert (BudgetExceeded, None) == (type(caught.value), caught.value.__cause__)
        world.gone()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_stop_inside_a_run_is_public_and_stays(operation: str) -> None:
    """A wrapped client raises the public type, also where the boundary is ours; the run is over for it."""
    with BedrockWorld(limits=Limits(run="0.00000001")) as world:
        client = world.boto()
        seen: list[type] = []

        def work() -> None:
            with world.guard.run():
                for _ in range(2):
                    try:
                        OPERATIONS[operation](client)
                    except Exception as exc:
                        seen.append(type(exc))

        work()
        assert [BudgetExceeded, BudgetExceeded] == seen
        world.gone()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_calls_inside_a_run_are_its_calls(operation: str) -> None:
    """Inside `with guard.run():` the call is that run's, not one of the client's own."""
    with BedrockWorld() as world:
        client = world.boto()
        with world.guard.run() as run:
            OPERATIONS[operation](client)
        world.settled()
        assert (1, None) == (run.report().model_calls, edge_of(client)._shared)


@pytest.mark.parametrize(
    ("operation", "mode"),
    [*((operation, "standard") for operation in OPERATIONS), ("Converse", "legacy"), ("Converse", "adaptive")],
)
def test_retries_are_one_call(operation: str, mode: str) -> None:
    """Attempts that ended with an HTTP error cost nothing; the call counts once."""
    with BedrockWorld([Error(500), Error(503), TOLD]) as world:
        client = world.boto(retries={"total_max_attempts": 3, "mode": mode})
        OPERATIONS[operation](client)
        world.settled()
        assert (3, 1) == (world.hits, run_of(client).report().model_calls)


def test_retries_are_held_for_and_lowered_before_the_cap() -> None:
    """While there is room the hold is for every attempt; near the limit the call goes out with fewer, and no more."""
    held: list[int] = []
    for attempts in (1, 3):
        gate = threading.Event()
        with BedrockWorld(Stall(gate, TOLD)) as world:
            client = world.boto(attempts=attempts)
            thread = threading.Thread(target=converse, args=(client,))
            thread.start()
            world.provider.wait_received(1)
            held.append(world.held)
            gate.set()
            thread.join()
    assert held[0] * 3 == held[1]
    with BedrockWorld(Error(500), limits=Limits(run="0.02")) as world:
        client = world.boto(attempts=3)
        with pytest.raises(ClientError) as caught:
            converse(client)
        assert (1, "InternalServerException") == (world.hits, caught.value.response["Error"]["Code"])
        assert (0, 0) == (world.spent, world.held)
    with BedrockWorld(HangUp(TOLD), limits=Limits(run="0.02")) as world:
        with pytest.raises(ConnectionClosedError):
            converse(world.boto(attempts=3))
        assert (1, 0, True) == (world.hits, world.held, 0 < world.spent <= 20_000_000_000)


def test_attempt_that_is_not_paid_for_answers_no_other_call() -> None:
    """It failed on its way out, in somebody else's handler; the next call is sent and has its own answer."""
    with BedrockWorld([Error(500), Text("ok")], limits=Limits(run="0.02")) as world:
        client = world.boto(attempts=2)
        sent: list[object] = []

        def fail_once(**_: object) -> None:
            sent.append(None)
            if len(sent) == 2:
                raise OSError

        client.meta.events.register("before-send.bedrock-runtime.Converse", fail_once)
        with pytest.raises(OSError):
            converse(client)
        assert "ok" == converse(client)["output"]["message"]["content"][0]["text"]
        world.settled()
        assert 2 == world.hits


@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_attempt_with_unknown_end_is_charged_its_bound(mode: str) -> None:
    """A connection lost after sending may have cost its bound; an answer that follows comes on top."""
    how: Any = {"retries": {"total_max_attempts": 2, "mode": mode}}
    with BedrockWorld(HangUp(TOLD)) as world:
        with pytest.raises(ConnectionClosedError):
            converse(world.boto())
        bound = world.spent
        assert (0, True) == (world.held, bound > 0)
    with BedrockWorld([HangUp(TOLD), Error(400)]) as world:
        with pytest.raises(ClientError):
            converse(world.boto(**how))
        assert (bound, 0, 2) == (world.spent, world.held, world.hits)
    with BedrockWorld([HangUp(TOLD, billed=False), TOLD]) as world:
        converse(world.boto(**how))
        assert (bound + world.billed, 0) == (world.spent, world.held)
    with BedrockWorld([HangUp(TOLD), HangUp(TOLD)]) as world:
        with pytest.raises(ConnectionClosedError):
            converse(world.boto(**how))
        assert (2 * bound, 0) == (world.spent, world.held)


def test_timeout_is_charged_the_hold() -> None:
    """Nobody knows what the provider made of it."""
    with BedrockWorld(Delay(60_000, TOLD)) as world:
        with pytest.raises(ReadTimeoutError):
            converse(world.boto(read_timeout=0.2))
        assert (0, True) == (world.held, world.spent > 0)


def test_request_that_never_left_costs_nothing() -> None:
    """No connection, no credentials, parameters that botocore itself refuses."""
    with BedrockWorld() as world:
        client = wrap(
            world.guard,
            a_session().client("bedrock-runtime", endpoint_url="http://127.0.0.1:9"),
        )
        with pytest.raises(EndpointConnectionError):
            converse(client)
        with pytest.raises(ParamValidationError):
            converse(client, messages="hi")
        client.close()
        world.gone()


def test_outer_error_does_not_make_a_lost_attempt_free() -> None:
    """A call made while an error of not connecting is handled is judged by its own error alone."""
    with BedrockWorld(HangUp(TOLD)) as world:
        client = world.boto()
        with pytest.raises(ConnectionClosedError):
            try:
                raise EndpointConnectionError(endpoint_url="http://elsewhere")
            except EndpointConnectionError:
                converse(client)
        assert (0, True) == (world.held, world.spent > 0)


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_error_answers_cost_nothing(status: int) -> None:
    """A definite HTTP error is raised as botocore raises it, and nothing is charged."""
    with BedrockWorld(Error(status)) as world:
        client = world.boto()
        with pytest.raises(ClientError) as caught:
            converse(client)
        assert status == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert (1, 0, 0) == (world.hits, world.spent, world.held)


@pytest.mark.parametrize(("uncapped", "expected"), [("hold", None), ("cap", 4_096)])
def test_cap_is_set_if_the_limits_say_so(uncapped: Any, expected: int | None) -> None:
    """The model's own maximum, in the place where Converse has it."""
    with BedrockWorld(limits=Limits(run=None, month="100", uncapped=uncapped)) as world:
        world.boto().converse(modelId=MODEL, messages=ASK)
        assert expected == world.provider.received[-1].max_tokens
        world.settled()


def test_cap_is_lowered_to_what_is_left() -> None:
    """The caller's cap is a wish, the budget decides; the caller's own objects stay as they are."""
    config = {"maxTokens": 4000, "temperature": 0.5}
    with BedrockWorld(Text("x " * 9000), limits=Limits(run="0.03")) as world:
        converse(world.boto(attempts=3), inferenceConfig=config)
        sent = world.provider.received[-1]
        assert sent.max_tokens is not None
        assert (True, 0.5) == (1024 <= sent.max_tokens < 2000, sent.body["inferenceConfig"]["temperature"])  # type: ignore[index,call-overload]
        assert {"maxTokens": 4000, "temperature": 0.5} == config
        world.settled()
    with BedrockWorld(Text("x " * 9000), limits=Limits(run="0.03")) as world:
        client = world.boto()
        client.converse(modelId=MODEL, messages=ASK)
        assert world.provider.received[-1].max_tokens is not None
        world.settled()
    with BedrockWorld(Text("x " * 9000), limits=Limits(run="0.03")) as world:
        invoke(world.boto(), body=claude(max_tokens=4000))
        assert (world.provider.received[-1].max_tokens or 0) < 2000
        world.settled()


def test_tools_and_pictures_are_within_the_bound() -> None:
    """A conversation with a tool's result and a picture in it is held for in full."""
    tools: Any = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}]}
    with BedrockWorld([ToolCalls([ToolUse("weather", {"city": "Bern"})]), Text("sunny")]) as world:
        client = world.boto()
        first = converse(client, toolConfig=tools)["output"]["message"]
        use = next(block["toolUse"] for block in first["content"] if "toolUse" in block)
        content = [{"json": {"t": 1}}, {"image": {"format": "png", "source": {"bytes": b"hi"}}}]
        result = {"toolResult": {"toolUseId": use["toolUseId"], "content": content}}
        converse(client, toolConfig=tools, messages=[*ASK, first, {"role": "user", "content": [result]}])
        world.settled()
        assert [] == world.names()


def test_hour_long_cache_writes_are_billed_as_such() -> None:
    """Converse reports the time to live; InvokeModel's headers do not, so the request decides."""
    written = Usage(input_tokens=4321, cache_write_1h_tokens=230, output_tokens=77)
    hour = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    with BedrockWorld(Text("well", usage=written)) as world:
        client = world.boto()
        converse(client)
        world.settled()
        invoke(client, body=claude(system=hour))
        world.settled()


def test_usage_that_was_not_reported_is_charged_the_hold() -> None:
    """Missing is not zero, nor is a report that cannot be true."""
    for answer in (Text("well", report="none"), Text("well", wire_usage={"inputTokens": -5, "outputTokens": 1})):
        with BedrockWorld(answer) as world:
            client = world.boto()
            converse(client)
            assert (0, world.spent) == (world.held, run_of(client).report().unresolved_pusd)
            assert world.spent > world.billed
    with BedrockWorld(Text("well", report="none")) as world:
        invoke(world.boto())
        assert (0, True) == (world.held, world.spent > world.billed)


def test_threads_on_one_client_spend_exactly_the_budget() -> None:
    """Sixteen threads at a cent a call against a quarter of a dollar: 25 calls, whoever makes them."""
    with BedrockWorld(Text("ok"), limits=Limits(run="0.25", steps=None)) as world:
        client = world.boto(max_pool_connections=16)
        done: list[int] = []

        def work() -> None:
            while True:
                try:
                    converse(client, modelId="fake-flat")
                except BudgetExceeded:
                    return
                done.append(1)

        with ThreadPoolExecutor(16) as pool:
            for future in [pool.submit(work) for _ in range(16)]:
                future.result()
        world.settled()
        assert (25, 25, 250_000_000_000) == (len(done), world.hits, world.spent)


def test_observing_stops_nothing() -> None:
    """Nothing is refused, lowered or retried less; what would have been is told."""
    with BedrockWorld([Error(500), TOLD], mode="observe", limits=Limits(run="0.00000001")) as world:
        client = world.boto(attempts=2)
        converse(client)
        assert (2, world.billed) == (world.hits, world.spent)
        assert "run_would_stop" in world.names()
        with pytest.raises(ClientError):
            client.apply_guardrail(guardrailIdentifier="g", guardrailVersion="1", source="INPUT", content=[])
        assert "call_would_refuse" in world.names()


def test_ledger_out_of_reach_refuses() -> None:
    """Without the books nothing is sent."""
    store = FlakyStore(MemoryStore(), ["request_lost"] * 9, verbs={"reserve"})
    with BedrockWorld(store=store) as world:
        with pytest.raises(StoreUnavailable):
            converse(world.boto())
        assert 0 == world.hits


def test_price_that_nobody_knows_refuses() -> None:
    """By name, before anything is sent."""
    with BedrockWorld() as world:
        with pytest.raises(PriceUnknown):
            converse(world.boto(), modelId="nobody.knows-v1:0")
        world.gone()


def test_region_of_the_client_decides_the_price() -> None:
    """A plain model id has its US price in the US alone; a written price, and a profile's, hold anywhere."""
    with BedrockWorld(Text("ok")) as world:
        nova = "amazon.nova-lite-v1:0"
        converse(world.boto(), modelId=nova)
        with pytest.raises(PriceUnknown, match="sa-east-1"):
            converse(world.boto(session=a_session("sa-east-1")), modelId=nova)
        converse(world.boto(session=a_session("sa-east-1")))
        assert 2 == world.hits


def test_broken_reading_leaves_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours in what observes is an event and the hold; the caller's answer is whole."""
    from runrails_aws.bedrock import answers, gate, plan

    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("a bug")

    for module, name in ((plan, "converse_answer"), (gate, "tap_events"), (plan, "invoke_answer")):
        with monkeypatch.context() as patch, BedrockWorld(TOLD) as world:
            patch.setattr(module, name, broken)
            client = world.boto()
            texts = [
                converse(client)["output"]["message"]["content"][0]["text"],
                "".join(
                    event["contentBlockDelta"]["delta"]["text"]
                    for event in read(stream(client)) if "contentBlockDelta" in event
                ),
                invoke(client)["content"][0]["text"],
            ]  # fmt: skip
            assert ["Hello there, my friend."] * 3 == texts
            assert (1, 0) == (world.names().count("adapter_failed"), world.held)
    with monkeypatch.context() as patch, BedrockWorld(TOLD) as world:
        for reader in (answers.ConverseEvents, answers.InvokeEvents):
            patch.setattr(reader, "see", broken)
        client = world.boto()
        OPERATIONS["InvokeModelWithResponseStream"](client)
        assert len(read(stream(client))) > 5
        assert (2, 0) == (world.names().count("adapter_failed"), world.held)


def test_broken_deciding_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours before sending is a GuardFault, not an exhausted budget, and nothing is sent."""
    from runrails.errors import GuardFault
    from runrails_aws.bedrock import plan

    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(plan, "converse", broken)
    with BedrockWorld() as world:
        with pytest.raises(GuardFault) as caught:
            converse(world.boto())
        assert isinstance(caught.value.__cause__, RuntimeError)
        world.gone()


def test_call_that_nobody_ends_is_settled() -> None:
    """An interrupt, or another handler's error: the hold is not left behind."""
    with BedrockWorld() as world:
        client = world.boto()

        def interrupt(**_: object) -> None:
            raise KeyboardInterrupt

        client.meta.events.register("before-send.bedrock-runtime.Converse", interrupt)
        with pytest.raises(KeyboardInterrupt):
            converse(client)
        world.guard.flush()
        assert (0, 0, True) == (world.hits, world.held, world.spent > 0)
    with BedrockWorld() as world:
        client = world.boto()

        def fail(**_: object) -> None:
            raise OSError

        client.meta.events.register("before-call", fail)
        with pytest.raises(OSError):
            converse(client)
        world.gone()


def test_stubbed_calls_are_free() -> None:
    """What botocore's own stubber answers was never sent."""
    from botocore.stub import Stubber

    with BedrockWorld() as world:
        client = world.boto()
        with Stubber(client) as stubber:
            answer = {
                "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
                "metrics": {"latencyMs": 1},
            }
            stubber.add_response("converse", answer)
            converse(client)
        world.gone()


def test_wrapping_twice_is_once_and_another_guard_is_an_error() -> None:
    """The client is the same object, and its calls count once."""
    with BedrockWorld() as world:
        client = world.boto()
        assert client is wrap(world.guard, client)
        converse(client)
        world.settled()
        assert run_of(client) is world.guard.run_of(client)
        assert 1 == run_of(client).report().model_calls
        other = Guard(store=MemoryStore(), sinks=())
        with pytest.raises(ConfigError, match="another guard"):
            wrap(other, client)
        other.close()


def test_a_guard_finds_its_adapter() -> None:
    """`guard.wrap` knows boto3's generated classes."""
    with BedrockWorld() as world:
        client = world.boto(wrapped=False)
        assert client is world.guard.wrap(client)
        converse(client)
        world.settled()


def test_what_cannot_be_wrapped_is_refused() -> None:
    """Other services, no clients, and asynchronous clients, which have other streams."""
    from botocore.client import BaseClient

    with BedrockWorld() as world:
        s3 = a_session().client("s3")
        asynchronous = type("BedrockRuntime", (BaseClient,), {"__module__": "aiobotocore.client"})
        for given, why in (
            (s3, "bedrock-runtime"), (object(), "bedrock-runtime"), (object.__new__(asynchronous), "aiobotocore")
        ):  # fmt: skip
            with pytest.raises(ConfigError, match=why):
                wrap(world.guard, given)
        s3.close()


def test_another_guards_run_is_an_error() -> None:
    """A client of one guard inside a run of another would be paid twice."""
    with BedrockWorld() as world, BedrockWorld() as other:
        client = world.boto()
        with pytest.raises(ConfigError, match="one guard"):
            with other.guard.run():
                converse(client)
        world.gone()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("apply_guardrail", {"guardrailIdentifier": "g", "guardrailVersion": "1", "source": "INPUT", "content": []}),
        ("start_async_invoke", {"modelId": MODEL, "modelInput": {}, "outputDataConfig": {
            "s3OutputDataConfig": {"s3Uri": "s3://bucket/key"}}}),
    ],
)  # fmt: skip
def test_operations_that_cost_something_else_are_refused(name: str, how: dict[str, Any]) -> None:
    """By name, before anything is sent."""
    with BedrockWorld() as world:
        with pytest.raises(BoundUnknown, match=name.title().replace("_", "")):
            getattr(world.boto(), name)(**how)
        world.gone()


def test_free_operations_pass() -> None:
    """Counting tokens and looking after jobs pass even where nothing may be spent. The provider does not know them."""
    with BedrockWorld(limits=Limits(run="0.00000001")) as world:
        client = world.boto()
        with pytest.raises(ClientError):
            client.list_async_invokes()
        with pytest.raises(ClientError):
            client.count_tokens(modelId=MODEL, input={"converse": {"messages": ASK}})
        assert (None, 0, 0) == (edge_of(client)._shared, world.spent, world.held)
