"""Cheaper models and shorter conversations of guarded clients."""

from __future__ import annotations

from typing import Any

import pytest

from rr_clients import MODEL, TOLD, USAGE, World, in_loop, run_of
from runrails import CallRefused, Downgrade, Limits, Pruning
from runrails.pricing.cards import cost_pusd
from runrails.savers.pruning import marker
from runrails.testing.provider import Error, Text
from runrails.usage import Usage

SMALL = "fake-reasoner"
"""Cheaper than `fake-model` for every call."""
CLASSIFY = {"kind": "classify"}
SHORT = Pruning(after_messages=10, keep_last=5)


def _limits(**more: Any) -> Limits:
    return Limits(**{"run": "1.00", "month": "100", **more})


def _ask(client: Any, messages: Any = ({"role": "user", "content": "hi"},), **more: Any) -> Any:
    made = {"model": MODEL, "messages": list(messages), "max_tokens": 900, **more}
    return client.messages.create(**made) if hasattr(client, "messages") else client.chat.completions.create(**made)


def _asked(world: World) -> list[str]:
    return [each.model for each in world.provider.received]


@pytest.mark.parametrize("wire", ["openai", "anthropic", "azure", "bedrock", "responses"])
def test_a_call_of_a_named_kind_goes_to_the_cheaper_model(wire: str) -> None:
    """Only that; the ledger has the model that was used, and in a tag the one that was asked for."""
    with World(TOLD, _limits(downgrade=Downgrade(to=SMALL, kinds=("classify",)))) as world:
        client: Any = world.openai() if wire == "responses" else getattr(world, wire)()
        for tags in (CLASSIFY, {"kind": "write"}, {}):
            with world.guard.attribute(tags=tags):
                if wire == "responses":
                    client.responses.create(model=MODEL, input="hi", max_output_tokens=900)
                else:
                    _ask(client)
        world.settled()

        cards = {name: world.guard.prices.card(name, now_ms=0) for name in (MODEL, SMALL)}
        usage = world.provider.bill.calls[0].usage
        saved = cost_pusd(cards[MODEL], usage) - cost_pusd(cards[SMALL], usage)
        report = run_of(client).report()
        assert [SMALL, MODEL, MODEL] == [each.model for each in world.provider.bill.calls]
        assert [("downgrade", 1, 0, saved)] == [tuple(each) for each in report.savings]
        assert saved > 0
        assert [MODEL] == [row.name for row in world.guard.usage("tag:asked_model") if row.name is not None]
        assert 1 == world.names().count("model_downgraded")


def test_from_a_share_of_the_budget_on_calls_go_to_the_cheaper_model() -> None:
    """Not before; asynchronous clients too."""
    rule = Downgrade(to={MODEL: SMALL}, above="0.5")
    usage = Usage(input_tokens=100_000, output_tokens=0)
    with World(Text("x", usage=usage, ignores_max_tokens=True), _limits(run="0.90", downgrade=rule)) as world:
        client = world.aopenai()

        async def thrice() -> None:
            for _ in range(3):
                await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=900
                )

        in_loop(world, thrice)

        assert [MODEL, MODEL, SMALL] == _asked(world)
        world.settled()


@pytest.mark.parametrize(
    ("rule", "more", "reason"),
    [
        (Downgrade(to="fake-founding", kinds=("classify",)), {}, "not_cheaper"),
        (Downgrade(to=MODEL + "-unheard-of", kinds=("classify",)), {}, "unpriced"),
        (Downgrade(to="fake-model-mini", kinds=("classify",)), {"max_tokens": 900}, "output"),
        (Downgrade(to="fake-model-tiny", kinds=("classify",)), {}, "context"),
    ],
)
def test_a_model_that_would_not_do_is_not_used(rule: Downgrade, more: Any, reason: str) -> None:
    """A dearer one, one without a price, one that is too small; that is told once."""
    from runrails import Price
    from runrails.testing.prices import PRICES

    prices = {
        **PRICES,
        "fake-model-mini": Price(input="0.1", output="0.1", output_tokens_max=800),
        "fake-model-tiny": Price(input="0.1", output="0.1", context_tokens_max=100),
    }
    text = "x" * (900 if reason == "context" else 2)
    with World(TOLD, _limits(downgrade=rule), prices=prices) as world:
        client = world.openai()
        with world.guard.attribute(tags=CLASSIFY):
            for _ in range(2):
                _ask(client, [{"role": "user", "content": text}], **more)

        assert [MODEL, MODEL] == _asked(world)
        assert [reason] == [e.fields["reason"] for e in world.events if e.name == "runrails.downgrade_refused"]
        assert () == run_of(client).report().savings
        world.settled()


def test_the_callers_request_is_not_changed() -> None:
    """Neither what they hold of it, nor what they put in by hand."""
    rule = Downgrade(to=SMALL, kinds=("classify",))
    messages = _chat(8)
    before = [dict(each) for each in messages]
    with World(TOLD, _limits(downgrade=rule, pruning=SHORT)) as world:
        client = world.openai()
        extra = {"model": MODEL}
        with world.guard.attribute(tags=CLASSIFY):
            _ask(client, messages, model="ignored", extra_body=extra)

        assert [SMALL] == _asked(world)
        assert ({"model": MODEL}, before) == (extra, messages)
        assert len(world.provider.received[0].messages) < len(before)
        world.settled()


# Conversations.


def _chat(turns: int) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the task"}]
    for n in range(turns):
        call = {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        said.append({"role": "assistant", "content": None, "tool_calls": [call]})
        said.append({"role": "tool", "tool_call_id": f"c{n}", "content": f"result {n} " + "x" * 200})
    return said


def _claude(turns: int) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = [{"role": "user", "content": "the task"}]
    for n in range(turns):
        said.append({"role": "assistant", "content": [{"type": "tool_use", "id": f"c{n}", "name": "f", "input": {}}]})
        result = {"type": "tool_result", "tool_use_id": f"c{n}", "content": f"result {n} " + "x" * 200}
        said.append({"role": "user", "content": [result]})
    return said


def test_a_long_chat_is_sent_without_its_oldest_part() -> None:
    """The instructions, the task, a note, and whole turns; what that saved is an estimate by the reported input."""
    said = _chat(8)
    with World(TOLD, _limits(pruning=SHORT)) as world:
        client = world.openai()
        _ask(client, said)
        world.settled()

        sent: Any = world.provider.received[0].body["messages"]
        assert [*said[:2], {"role": "user", "content": marker(10)}, *said[12:]] == sent
        report = run_of(client).report()
        (saving,) = report.savings
        assert ("pruning", 1) == (saving.what, saving.calls)
        # About five of eight turns were left out: what is left was reported to be 4,321 tokens.
        assert USAGE.input_tokens < saving.tokens < 4 * USAGE.input_tokens
        assert saving.tokens * 3_000_000 == saving.saved_pusd
        assert 1 == world.names().count("conversation_pruned")


def test_a_long_conversation_with_claude_is_sent_without_its_oldest_part() -> None:
    """Results stay with their calls there too."""
    said = _claude(8)
    with World(TOLD, _limits(pruning=SHORT)) as world:
        _ask(world.anthropic(), said)
        world.settled()

        sent: Any = world.provider.received[0].body["messages"]
        assert [said[0], {"role": "user", "content": marker(10)}, *said[11:]] == sent


def test_streams_are_sent_shorter_too() -> None:
    """And cheaper."""
    rule = Downgrade(to=SMALL, kinds=("classify",))
    with World(TOLD, _limits(pruning=SHORT, downgrade=rule)) as world:
        client = world.openai()
        with world.guard.attribute(tags=CLASSIFY):
            for _chunk in _ask(client, _chat(8), stream=True):
                pass
        world.settled()

        assert [SMALL] == _asked(world)
        assert ["downgrade", "pruning"] == [each.what for each in run_of(client).report().savings]


def test_a_conversation_of_the_allowed_length_is_sent_whole() -> None:
    """And what the run around says counts for runs inside that say nothing."""
    said = _chat(4)
    with World(TOLD, _limits(pruning=SHORT)) as world:
        client = world.openai()
        _ask(client, said)
        with world.guard.run(limits=_limits()), world.guard.run(limits=_limits(run=None)):
            _ask(client, _chat(8))
        with world.guard.run(limits=_limits(pruning=SHORT)), world.guard.run(limits=_limits(run=None)) as inner:
            _ask(client, _chat(8))

        assert [10, 18, 9] == [len(each.messages) for each in world.provider.received]
        assert ["pruning"] == [each.what for each in inner.report().savings]


def test_a_conversation_that_fills_up_is_told_once() -> None:
    """At 80 % of the messages; and of the model's window, by what the provider reports."""
    big = Text("x", usage=Usage(input_tokens=160_000, output_tokens=1), ignores_max_tokens=True)
    with World([TOLD, TOLD, TOLD, big, big], _limits(run="5.00", pruning=SHORT)) as world:
        client = world.openai()
        for turns in (2, 3, 3, 1, 1):
            _ask(client, _chat(turns))

        told = [dict(e.fields) for e in world.events if e.name == "runrails.context_filling"]
        assert [("messages", 8, 10), ("context", 160_000, 200_000)] == [
            (each["what"], each["used"], each["limit"]) for each in told
        ]


def test_embeddings_keep_their_model() -> None:
    """Vectors of another model would be of no use beside the others."""
    from runrails import Price
    from runrails.testing.prices import PRICES

    prices = {**PRICES, SMALL: Price(input="0.001", output="0.001")}
    with World(TOLD, _limits(downgrade=Downgrade(to=SMALL, kinds=("classify",))), prices=prices) as world:
        client = world.openai()
        with world.guard.attribute(tags=CLASSIFY):
            client.embeddings.create(model="fake-embedding", input="hi")

        assert ["fake-embedding"] == _asked(world)


def test_observing_changes_no_request() -> None:
    """Neither its model nor its conversation; that it fills up is told all the same."""
    rule = Downgrade(to=SMALL, kinds=("classify",))
    with World(TOLD, _limits(pruning=SHORT, downgrade=rule), mode="observe") as world:
        client = world.openai()
        with world.guard.attribute(tags=CLASSIFY):
            _ask(client, _chat(8))

        assert [(MODEL, 18)] == [(each.model, len(each.messages)) for each in world.provider.received]
        assert 1 == world.names().count("context_filling")
        world.settled()


def test_a_deployment_answers_whatever_model_is_named() -> None:
    """So a client for one deployment of Azure's keeps its model, and that is told."""
    rule = Downgrade(to=SMALL, kinds=("classify",))
    with World(TOLD, _limits(downgrade=rule)) as world:
        client = world.azure(azure_deployment=MODEL)
        with world.guard.attribute(tags=CLASSIFY):
            _ask(client)

        assert [MODEL] == _asked(world)
        assert ["adapter"] == [e.fields["reason"] for e in world.events if e.name == "runrails.downgrade_refused"]
        world.settled()


def test_what_was_not_sent_saved_nothing() -> None:
    """A refused call and one that failed are no savings; what is sent without being reported is counted as nothing."""
    rule = Downgrade(to=SMALL, kinds=("classify",))
    with World([Error(400), TOLD], _limits(run="0.10", pruning=SHORT, downgrade=rule)) as world:
        client = world.openai()
        with world.guard.attribute(tags=CLASSIFY):
            with pytest.raises(Exception, match="400"):
                _ask(client, _chat(8))
            with pytest.raises(CallRefused):
                _ask(client, _chat(8), n=10**6)
            assert () == run_of(client).report().savings
            assert {"call_refused"} == set(world.names()) - {"context_filling"}
            _ask(client, _chat(8))

        assert [1, 1] == [each.calls for each in run_of(client).report().savings]
        world.settled()


def test_nothing_is_changed_unless_asked() -> None:
    """By default every request goes out as it is."""
    with World(TOLD, _limits()) as world:
        client = world.openai()
        with world.guard.attribute(tags=CLASSIFY):
            _ask(client, _chat(40))

        assert [MODEL] == _asked(world)
        assert 82 == len(world.provider.received[0].messages)
        assert () == run_of(client).report().savings
        assert not world.guard.saves
