"""Service tiers and regions that a request or a client names, priced through wrapped clients."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.lib.bedrock import AnthropicBedrock

from rr_clients import HI, Canned, World, sse
from runrails import Limits, Price
from runrails.errors import ConfigError, PriceUnknown
from runrails.ledger import SupportsUsage
from runrails.pricing import PriceBook, Term
from runrails.pricing.project import ProjectPrices
from runrails.testing.provider import Text

MODEL = "tiered"
PRICES = {MODEL: Price(input="2", output="10", tiers={"priority": Price(input="4", output="20")}),
          "untiered": Price(input="2", output="10")}  # fmt: skip
COUNTS = {"prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200}
FREE = Limits(run=None, month="100", steps=None)


def _answer(tier: str) -> Canned:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice],
            "usage": COUNTS, "service_tier": tier}  # fmt: skip
    return Canned(sse(body).removeprefix(b"data: "))


def _only(world: World) -> Any:
    assert isinstance(world.store, SupportsUsage)
    (record,) = world.store.usage()
    return record


@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize(("asked", "rate"), [(None, 10), ("default", 10), ("flex", 10), ("priority", 20)])
def test_a_tier_that_has_a_price_is_held_for_and_charged_at_it(asked: str | None, rate: int, mode: Any) -> None:
    """The hold is made with the tier's rates; the answer's own word for it decides the charge."""
    served = "priority" if asked == "priority" else "default"
    with World(prices=PRICES, limits=FREE, mode=mode) as world, _answer(served) as server:
        named: Any = {} if asked is None else {"service_tier": asked}
        world.openai(base_url=server.url).chat.completions.create(
            model=MODEL, messages=HI, max_tokens=2_000, **named
        )  # fmt: skip
        record = _only(world)
        assert (rate * (1_000 // 5 + 200) * 10**6, "settled") == (record.actual_pusd, record.state)
        assert 2_000 * rate * 10**6 < record.estimated_pusd < 2_200 * rate * 10**6


def test_a_tier_without_a_price_is_refused_by_name_with_nothing_sent() -> None:
    """As an argument, in `extra_body`, on either wire; observing lets it go and charges the most that tiers cost."""
    asks: list[Any] = [
        lambda c: c.chat.completions.create(model="untiered", messages=HI, service_tier="priority"),
        lambda c: c.chat.completions.create(model="untiered", messages=HI, extra_body={"service_tier": "fast"}),
        lambda c: c.responses.create(model="untiered", input="hi", service_tier="priority"),
    ]
    with World(prices=PRICES, limits=FREE) as world:
        for ask in asks:
            with pytest.raises(PriceUnknown, match=r"in the service tier '(priority|fast)' is unknown"):
                ask(world.openai())
        world.untouched()
    with World(prices=PRICES, limits=FREE, mode="observe") as world, _answer("priority") as server:
        asks[0](world.openai(base_url=server.url))
        record = _only(world)
        assert (3 * (1_000 * 2 + 200 * 10) * 10**6, "unresolved") == (record.actual_pusd, record.state)


def test_a_cut_stream_that_has_not_told_its_tier_was_served_as_asked() -> None:
    """Its reader left before a word of it came: half of the input must not be missing in the books."""
    with World(Text("word " * 50), prices=PRICES, limits=FREE) as world:
        stream = world.openai().chat.completions.create(
            model=MODEL, messages=HI, max_tokens=2_000, service_tier="priority", stream=True
        )
        stream.close()
        world.provider.wait_idle()
        record = _only(world)
        assert record.facts.input_bound_tokens * 4 * 10**6 <= record.actual_pusd
        assert "unresolved" == record.state


@pytest.mark.parametrize(
    ("region", "pusd"), [("us-east-1", 3_300_000), ("eu-central-1", 3_300_000), ("us-gov-west-1", 3_600_000)]
)
def test_a_client_of_bedrock_is_priced_where_it_calls(region: str, pusd: int) -> None:
    """An id without a geography costs more in GovCloud; the region is the client's own."""
    usage = {"input_tokens": 1_000, "output_tokens": 0}
    message = {"id": "1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    with World(prices={}, limits=FREE) as world, Canned(sse(message).removeprefix(b"data: ")) as server:
        client = AnthropicBedrock(
            base_url=server.url.removesuffix("/v1"), aws_access_key="a", aws_secret_key="s", aws_region=region,
            max_retries=0,
        )  # fmt: skip
        with client:
            world.guard.wrap(client).messages.create(
                model="anthropic.claude-sonnet-4-5-20250929-v1:0", messages=HI, max_tokens=100
            )
        assert 1_000 * pusd == _only(world).actual_pusd


def test_a_region_nobody_has_a_price_for_is_refused_with_nothing_sent() -> None:
    """By name; before, the price of another region was taken."""
    with World(prices={}, limits=FREE) as world:
        client = AnthropicBedrock(
            base_url=world.provider.bedrock_url, aws_access_key="a", aws_secret_key="s", aws_region="sa-east-1",
            max_retries=0,
        )  # fmt: skip
        with client, pytest.raises(PriceUnknown, match="sa-east-1"):
            world.guard.wrap(client).messages.create(
                model="anthropic.claude-3-haiku-20240307-v1:0", messages=HI, max_tokens=100
            )
        world.untouched()


@pytest.mark.parametrize(
    "term", [Term(model="Our-Chat", percent="-5"), Term(model="our-chat", provider="azure", percent="-5")]
)
def test_a_contract_for_an_alias_is_refused_where_it_is_written(term: Term) -> None:
    """It would never apply: what an alias stands for is what is priced. The message names that."""
    project = ProjectPrices(prices={}, aliases={"our-chat": "azure:gpt-4o"})
    with pytest.raises(ConfigError, match="'our-chat', which is an alias") as caught:
        PriceBook(project=project, contract=[term])
    assert "azure:gpt-4o" in str(caught.value)
    with pytest.raises(ConfigError, match="alias"):
        PriceBook(project=ProjectPrices(prices={}, aliases={"our-chat": "azure:gpt-4o"}, contract=(term,)))
    PriceBook(project=project, contract=[Term(model="azure:gpt-4o", percent="-5")])
