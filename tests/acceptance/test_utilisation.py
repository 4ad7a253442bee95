"""How much of a budget can be used: what is held is more than what is spent, and that must not waste the rest."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rr_bedrock import BedrockWorld
from rr_clients import HI
from runrails import Limits, Price
from runrails.admission import OUTPUT_FLOOR_TOKENS
from runrails.errors import CallRefused, GuardrailStopped
from runrails.testing.provider import ProviderRequest, Text
from runrails.usage import Usage

CENT = 10**10
MODEL = "long-winded"
PRICES = {MODEL: Price(input="3", output="15", context_tokens_max=200_000, output_tokens_max=32_000),
          "thrice": Price(input="0", output="10")}  # fmt: skip


def _ask(wire: str, client: Any, model: str, cap: int | None) -> None:
    limit: Any = {} if cap is None else {"max_tokens": cap}
    if wire == "chat":
        client.chat.completions.create(model=model, messages=HI, **limit)
    elif wire == "responses":
        client.responses.create(model=model, input="hi", **({} if cap is None else {"max_output_tokens": cap}))
    elif wire == "message":
        client.messages.create(model=model, messages=HI, max_tokens=cap or 20_000)
    else:
        config: Any = {} if cap is None else {"inferenceConfig": {"maxTokens": cap}}
        client.converse(modelId=model, messages=[{"role": "user", "content": [{"text": "hi"}]}], **config)


def _client(wire: str, world: Any) -> Any:
    if wire == "converse":
        return world.boto()
    return world.anthropic() if wire == "message" else world.openai()


def _spend(wire: str, world: Any, model: str, cap: int | None) -> int:
    client, made = _client(wire, world), 0
    while made < 1_000:
        try:
            _ask(wire, client, model, cap)
        except (CallRefused, GuardrailStopped):
            return made
        made += 1
    raise AssertionError("the budget does not end")


@pytest.mark.parametrize("wire", ["chat", "responses", "message", "converse"])
def test_three_times_the_price_is_held_and_98_of_100_calls_are_made(wire: str) -> None:
    """One after the other, each a cent for three held: what is left over at the end is less than the two."""
    usage = Usage(input_tokens=5, output_tokens=1_000)
    with BedrockWorld(Text("fine", usage=usage), Limits(run="1.00", steps=None, loops=None), prices=PRICES) as world:
        made = _spend(wire, world, "thrice", 3_000)
        assert 98 <= made <= 100
        assert (made * CENT, 0) == (world.spent, world.held)


@pytest.mark.parametrize("wire", ["chat", "responses", "message", "converse"])
def test_shrink_to_fit_uses_the_money(wire: str) -> None:
    """
    No cap in the request, 48 cents a call at most: one is set, and lowered to what is left, down to the floor.

    What stays unused is less than the smallest call worth starting (1,024 tokens of output), here 0.4 % of the budget.
    """
    draw = random.Random(wire)

    def script(request: ProviderRequest) -> Text:
        del request
        return Text("word " * 40, usage=Usage(input_tokens=9, output_tokens=draw.randrange(200, 20_000)))

    with BedrockWorld(script, Limits(run="4.00", steps=None, loops=None), prices=PRICES) as world:
        assert OUTPUT_FLOOR_TOKENS * 15 / 10**6 < 4 * 0.005
        made = _spend(wire, world, MODEL, None)
        assert made > 10
        assert 4 * 10**12 * 995 // 1000 <= world.spent <= 4 * 10**12
        world.settled()
