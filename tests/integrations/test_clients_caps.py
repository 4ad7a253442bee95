"""Requests without a cap on their output: what is put into them, by which name, and where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rr_clients import HI, MODEL, World, in_loop
from runrails import Limits, Price
from runrails.errors import LimitReached
from runrails.savers.caching import ResponseCache
from runrails.testing.provider import Text
from runrails.usage import Usage

OWN_MAXIMUM = 4_096
"""The model's, as its price says."""
CAPPING = Limits(run=None, month="100", steps=None, uncapped="cap")
STRICT = Limits(run=None, month="100", steps=None, uncapped="refuse")
CAPS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}


def chat(client: Any) -> Any:
    """A chat completion."""
    return client.chat.completions.create(model=MODEL, messages=HI)


def stream(client: Any) -> Any:
    """A stream of one."""
    return list(client.chat.completions.create(model=MODEL, messages=HI, stream=True))


def response(client: Any) -> Any:
    """A response."""
    return client.responses.create(model=MODEL, input="hi")


DOORS: dict[str, tuple[Callable[[World], Any], Callable[[Any], Any], str]] = {
    "chat": (lambda world: world.openai(), chat, "max_tokens"),
    "stream": (lambda world: world.openai(), stream, "max_tokens"),
    "responses": (lambda world: world.openai(), response, "max_output_tokens"),
    "azure": (lambda world: world.azure(), chat, "max_completion_tokens"),
}  # fmt: skip


def sent_caps(world: World) -> dict[str, object]:
    """The caps in the last request."""
    return {name: value for name, value in world.provider.received[-1].body.items() if name in CAPS}


@pytest.mark.parametrize("door", DOORS)
def test_by_default_a_request_without_a_cap_stays_as_it_is(door: str) -> None:
    """Its model's own maximum is held; a cap would count against some providers' rate limits."""
    make, ask, _ = DOORS[door]
    with World() as world:
        ask(make(world))
        assert {} == sent_caps(world)
        world.settled()


@pytest.mark.parametrize("limits", [CAPPING, STRICT], ids=["cap", "refuse"])
@pytest.mark.parametrize("door", DOORS)
def test_a_request_without_a_cap_is_given_the_one_that_is_held_for(door: str, limits: Limits) -> None:
    """By the name that its API has for it."""
    make, ask, name = DOORS[door]
    with World(limits=limits) as world:
        ask(make(world))
        assert {name: OWN_MAXIMUM} == sent_caps(world)
        world.settled()


def test_asynchronous_clients_do_so_too() -> None:
    """The same plan, awaited."""

    with World(limits=CAPPING) as world:
        client = world.aopenai()
        in_loop(world, lambda: client.chat.completions.create(model=MODEL, messages=HI))
        assert {"max_tokens": OWN_MAXIMUM} == sent_caps(world)


def test_the_answer_cannot_be_longer_than_what_is_held_for() -> None:
    """The table of models' limits may be wrong: with a cap that costs nothing, without one it is an overrun."""
    prices = {MODEL: Price(input="3", output="15", output_tokens_max=100)}
    longer = Text("x " * 300, usage=Usage(input_tokens=10, output_tokens=300))
    with World(longer, limits=CAPPING, prices=prices) as world:
        chat(world.openai())
        assert 0 < world.spent <= 100 * 15 * 10**6 + 60 * 3 * 10**6
        assert "bound_violated" not in {event.name for event in world.events}
    with World(longer, prices=prices) as world:
        chat(world.openai())
        assert world.spent >= 300 * 15 * 10**6


def test_a_cap_of_ones_own_and_an_embedding_stay() -> None:
    """What is in the request is the caller's, and an embedding has no output."""
    with World(limits=CAPPING) as world:
        client = world.openai()
        client.chat.completions.create(model=MODEL, messages=HI, max_completion_tokens=77)
        assert {"max_completion_tokens": 77} == sent_caps(world)
        client.embeddings.create(model="fake-embedding", input="hi")
        assert {} == sent_caps(world)


def test_the_window_leaves_room_for_the_prompt() -> None:
    """Servers refuse a cap that does not fit into the window beside it; where hardly anything fits there is none."""
    for window, expected in ((10_000, {"max_tokens": 5_000}), (5_000, {"max_tokens": None}), (1_000, {})):
        prices = {MODEL: Price(input="3", output="15", output_tokens_max=5_000, context_tokens_max=window)}
        with World(limits=CAPPING, prices=prices) as world:
            chat(world.openai())
            sent = sent_caps(world)
            assert set(expected) == set(sent)
            if sent and expected["max_tokens"] is None:
                assert 4_900 <= int(str(sent["max_tokens"])) < 5_000
            elif sent:
                assert expected == sent


def test_a_model_whose_maximum_nobody_knows_and_a_flat_price() -> None:
    """The one is given what every model takes where money is limited, the other needs no cap."""
    for price, expected in ((Price(input="3", output="15"), {"max_tokens": OWN_MAXIMUM}), (Price(call="0.01"), {})):
        with World(limits=CAPPING, prices={MODEL: price}) as world:
            chat(world.openai())
            assert expected == sent_caps(world)


@pytest.mark.parametrize("limits", [CAPPING, Limits(tokens=2_000)], ids=["cap", "tokens"])
def test_observing_changes_no_request(limits: Limits) -> None:
    """Whatever the limits say."""
    with World(limits=limits, mode="observe") as world:
        chat(world.openai())
        assert {} == sent_caps(world)


def test_an_answer_under_the_models_own_maximum_is_the_one_that_was_asked_for() -> None:
    """So the response cache keeps it."""
    with World(limits=CAPPING, cache=ResponseCache()) as world:
        client = world.openai()
        chat(client)
        chat(client)
        assert 1 == world.hits


@pytest.mark.parametrize(
    ("price", "given", "expected"),
    [
        (Price(input="3", output="15", output_tokens_max=100_000), {}, 2_966),
        (Price(input="3", output="15", output_tokens_max=100_000), {"max_tokens": 50_000}, 2_966),
        (Price(input="3", output="15", output_tokens_max=100_000), {"max_tokens": 5_000, "n": 2}, 1_483),
        (Price(input="3", output="15", output_tokens_max=1_500), {}, None),
        (Price(input="3", output="15"), {}, 2_966), ("0", {}, 2_966), (Price(call="0.01"), {}, 2_966),
    ],
)  # fmt: skip
def test_a_limit_on_tokens_lowers_the_cap_too(price: Any, given: dict[str, Any], expected: int | None) -> None:
    """Not money alone: the answer may have what the run's tokens leave for it."""
    limits = Limits(run=None, month="100", steps=None, tokens=3_000)
    with World(Text("Fine."), limits=limits, prices={MODEL: price}) as world:
        client = world.openai()
        client.chat.completions.create(model=MODEL, messages=HI, **given)
        assert ({} if expected is None else {"max_tokens": expected}) == sent_caps(world)
        assert world.guard.run_of(client).report().tokens < 3_000
        client.chat.completions.create(model=MODEL, messages=HI, max_tokens=16)


def test_a_limit_on_tokens_ends_the_run_where_no_answer_fits() -> None:
    """Less than 1,024 tokens are no room for one."""
    with World(limits=Limits(run=None, month="100", steps=None, tokens=1_000)) as world:
        with pytest.raises(LimitReached):
            chat(world.openai())
        assert (0, 0) == (world.hits, world.held)
