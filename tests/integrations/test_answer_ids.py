"""The provider's id of an answer is in the books, whichever way it came, and its bill settles the call by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI

from rr_clients import HI, MODEL, World
from runrails.cli.shell import run as shell
from runrails.errors import ConfigError
from runrails.figures import figures_of
from runrails.ledger import SupportsUsage
from runrails.money import to_decimal
from runrails.stores.sqlite import SQLiteStore
from runrails_langchain import GuardrailCallbackHandler

Ask = Callable[[World], str]


def ids(world: World) -> list[str | None]:
    """The ids in the books, oldest first."""
    assert isinstance(world.store, SupportsUsage)
    return [record.result and record.result.answer_id for record in world.store.usage()]


def chat(world: World) -> str:
    return world.openai().chat.completions.create(model=MODEL, messages=HI).id


def chat_stream(world: World) -> str:
    return [each.id for each in world.openai().chat.completions.create(model=MODEL, messages=HI, stream=True)][-1]


def chat_raw(world: World) -> str:
    text = world.openai().chat.completions.with_raw_response.create(model=MODEL, messages=HI).text
    return json.loads(text)["id"]


def chat_left(world: World) -> str:
    events = world.openai().chat.completions.create(model=MODEL, messages=HI, stream=True)
    named = [next(iter(events)).id for _ in range(2)]
    events.close()
    return named[-1]


def responses(world: World) -> str:
    return world.openai().responses.create(model=MODEL, input="hi").id


def responses_stream(world: World) -> str:
    events: Any = world.openai().responses.create(model=MODEL, input="hi", stream=True)
    return [each.response.id for each in events if hasattr(each, "response")][-1]


def messages(world: World) -> str:
    return world.anthropic().messages.create(model=MODEL, max_tokens=900, messages=HI).id


def messages_stream(world: World) -> str:
    with world.anthropic().messages.stream(model=MODEL, max_tokens=900, messages=HI) as events:
        return events.get_final_message().id


def asked(world: World, model: BaseChatModel, **metadata: object) -> str:
    handler = GuardrailCallbackHandler(world.guard)
    answer = model.invoke("hi", {"callbacks": [handler], "metadata": metadata})
    handler.close()
    return str(answer.response_metadata["id"])


def langchain_openai(world: World) -> str:
    model = ChatOpenAI(model=MODEL, api_key="k", base_url=world.provider.openai_url, max_tokens=900)  # type: ignore[call-arg,arg-type]
    return asked(world, model)


def langchain_anthropic(world: World) -> str:
    model = ChatAnthropic(model_name=MODEL, api_key="k", base_url=world.provider.anthropic_url, max_tokens=900)  # type: ignore[call-arg,arg-type]
    return asked(world, model)


ASKS: list[Ask] = [
    chat, chat_stream, chat_raw, chat_left, responses, responses_stream, messages, messages_stream, langchain_openai,
    langchain_anthropic,
]  # fmt: skip


@pytest.mark.parametrize("ask", ASKS)
def test_the_answers_id_is_in_the_books(ask: Ask) -> None:
    """What the caller sees as the answer's id is what the record has."""
    with World() as world:
        expected = ask(world)
        world.guard.flush()
        assert [expected] == ids(world)
        assert expected.partition("-")[0].partition("_")[0] in ("chatcmpl", "resp", "msg")


@pytest.mark.parametrize("byok", [True, False])
def test_langchains_metadata_may_say_whose_key_it_is(byok: bool) -> None:
    """`runrails_byok` goes before what the guard says."""
    with World(byok=not byok) as world:
        model = ChatOpenAI(model=MODEL, api_key="k", base_url=world.provider.openai_url, max_tokens=900)  # type: ignore[call-arg,arg-type]
        asked(world, model, runrails_byok=byok)
        assert isinstance(world.store, SupportsUsage)
        assert [byok] == [record.facts.byok for record in world.store.usage()]


@pytest.mark.parametrize("wrong", ["yes", 1])
def test_a_wrong_word_in_langchains_metadata_is_refused(wrong: object) -> None:
    """The error names the setting, and nothing is sent."""
    with World() as world:
        model = ChatOpenAI(model=MODEL, api_key="k", base_url=world.provider.openai_url, max_tokens=900)  # type: ignore[call-arg,arg-type]
        with pytest.raises(ConfigError, match="byok"):
            asked(world, model, runrails_byok=wrong)
        assert [] == list(world.provider.bill.calls)


def test_the_providers_bill_settles_calls_by_its_own_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three SDK calls, one of them on a user's own key; a bill that differs; the books are as billed, with mark-up."""
    path = tmp_path / "ledger.db"
    with World(store=SQLiteStore(path), markup_bp=200) as world:
        named = [chat(world), messages(world)]
        with world.guard.attribute(byok=True):
            named.append(responses(world))
    bill = tmp_path / "bill.csv"
    amounts = (12_345_678_901, 0, 51)
    lines = [f"{name},{to_decimal(amount):f}" for name, amount in zip(named, amounts, strict=True)]
    bill.write_text("\n".join(["id,cost", *lines]), encoding="utf-8")
    assert 0 == shell(["usage", "reconcile", str(bill), "--store", f"sqlite:///{path}", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (0, 3, 0) == (facts["agreed"], facts["corrected"]["count"], facts["without_record"]["count"])
    store = SQLiteStore(path)
    figures = [figures_of(record) for record in store.usage()]
    assert [(amounts[0], 246_913_579), (0, 0), (51, 0)] == [
        (each.net_pusd, each.markup_pusd) for each in figures if each is not None
    ]
    assert amounts[0] + 246_913_579 == sum(each.spent for each in store.balances(scope="user:alice"))
    assert 51 == sum(each.spent for each in store.balances(scope="byok:alice"))
    assert 51 == sum(each.own_key_pusd for each in figures if each is not None)
    store.close()
