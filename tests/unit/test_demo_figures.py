"""The demo's figures, script, tools and message window: values in, values out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from runrails.demo.agent import newest
from runrails.demo.figures import STORY_PUSD, Demo, Entry, Facts, Play, Stopped, figure, plain_usd
from runrails.demo.reviews import NO_RESULT, REVIEWS, Workbench, classify, sentiment
from runrails.demo.script import CALL_USAGE, MORNING, never_gives_up, thought
from runrails.money import usd
from runrails.pricing import Price, PriceBook
from runrails.testing.provider import Answer, ProviderMessage, ProviderRequest, Text, ToolCalls
from runrails.usage import Usage

STORY = PriceBook.load({"gpt-4": Price(call="3.20")}, None).card("gpt-4", provider="openai", now_ms=0)
TABLE = PriceBook.load(None, None).card("gpt-4", provider="openai", now_ms=0)

UNGUARDED = Facts(
    key="unguarded",
    billed=(CALL_USAGE,) * 894,
    executed={"extract_sentiment": 6, "classify_review": 893},
    failing_executions=891,
    model_calls_after_last_failure=1,
    ledger=None,
    stopped=None,
    topics={"R2": "billing", "R1": "delivery"},
    seconds=7.123,
)
GUARDED = replace(
    UNGUARDED,
    key="guarded",
    billed=(CALL_USAGE,) * 7,
    executed={"extract_sentiment": 6, "classify_review": 7},
    failing_executions=5,
    model_calls_after_last_failure=0,
    ledger=(Entry(STORY_PUSD, CALL_USAGE),) * 7,
    stopped=Stopped(reason="loop_detected", exception="LoopDetected", message="It loops."),
)


def price(facts: Facts) -> Play:
    return figure(facts, story_card=STORY, table_card=TABLE)


def asked(*results: tuple[str, str]) -> ProviderRequest:
    """A request that ends with these tool results, (call id, text) each."""
    messages = [ProviderMessage(role="system", text="You analyse.")]
    messages += [ProviderMessage(role="tool", text=text, tool_call_id=call_id) for call_id, text in results]
    return ProviderRequest(
        wire="openai_chat", path="/v1/chat/completions", number=1, model="gpt-4", messages=tuple(messages)
    )


def calls_of(answer: Answer) -> list[tuple[str, object, str | None]]:
    assert isinstance(answer, ToolCalls)
    return [(use.name, use.args, use.id) for use in answer.calls]


def test_the_retries_cost_891_times_the_article_s_figure() -> None:
    """891 x $3.20 is $2,851.20, whatever the article says."""
    assert usd("2851.20") == price(UNGUARDED).story_retries_pusd


def test_the_whole_run_is_priced_both_ways() -> None:
    """Every model call counts: 894 at $3.20, and 894 of 4,000 tokens at gpt-4's $30 and $60 per million."""
    play = price(UNGUARDED)

    assert (894, 899, 894 * 4_000) == (play.model_calls, play.tool_calls, play.tokens)
    assert usd("2860.80") == play.story_pusd
    assert usd("120.69") == play.table_pusd


def test_a_pass_without_a_guard_has_no_ledger_to_compare() -> None:
    """No guard, no ledger: neither equal nor unequal."""
    play = price(UNGUARDED)

    assert play.ledger_pusd is None
    assert play.ledger_equals_bill is None


def test_a_ledger_that_agrees_call_by_call_equals_the_bill() -> None:
    """Seven calls at $3.20 on both sides."""
    play = price(GUARDED)

    assert usd("22.40") == play.ledger_pusd
    assert play.ledger_equals_bill is True


@pytest.mark.parametrize(
    "ledger",
    [
        (Entry(STORY_PUSD, CALL_USAGE),) * 6,
        (*(Entry(STORY_PUSD, CALL_USAGE),) * 6, Entry(STORY_PUSD - 1, CALL_USAGE)),
        (*(Entry(STORY_PUSD, CALL_USAGE),) * 6, Entry(STORY_PUSD, Usage(input_tokens=3_500))),
        (*(Entry(STORY_PUSD, CALL_USAGE),) * 6, Entry(STORY_PUSD, None)),
    ],
    ids=["a call missing", "a picodollar off", "other tokens", "no tokens"],
)
def test_a_ledger_that_is_off_in_anything_does_not_equal_the_bill(ledger: tuple[Entry, ...]) -> None:
    """Money to the picodollar, and tokens call by call."""
    assert price(replace(GUARDED, ledger=ledger)).ledger_equals_bill is False


def test_the_demo_as_json_has_plain_decimal_dollars() -> None:
    """A program gets numbers it can parse, the stop's own words, and what was kept."""
    demo = Demo(
        retries=891, model="gpt-4", reviews=6, story_card=STORY, table_card=TABLE,
        plays={"unguarded": price(UNGUARDED), "guarded": price(GUARDED)},
    )  # fmt: skip
    found = demo.as_dict()
    passes = found["passes"]

    assert isinstance(passes, dict)
    assert found["article_usd_per_iteration"] == "3.20"
    assert found["avoided_article_usd"] == "2835.20"
    assert found["ledger_equals_bill"] is True
    assert passes["unguarded"]["article_retries_usd"] == "2851.20"
    assert passes["unguarded"]["stopped_before_model_call"] is None
    assert passes["guarded"]["failing_tool_executions"] == 5
    assert passes["guarded"]["stop_message"] == "It loops."
    assert passes["guarded"]["stopped_before_model_call"] == 8
    assert passes["guarded"]["classified"] == {"R1": "delivery", "R2": "billing"}
    assert "2847" not in str(found).replace(",", "")


def test_one_disagreement_spoils_the_whole_demo() -> None:
    """The demo says so if any guarded pass is off."""
    off = price(replace(GUARDED, ledger=()))
    demo = Demo(
        retries=891, model="gpt-4", reviews=6, story_card=STORY, table_card=TABLE,
        plays={"unguarded": price(UNGUARDED), "guarded": off},
    )  # fmt: skip

    assert demo.ledger_equals_bill is False


@pytest.mark.parametrize(("pusd", "shown"), [(0, "0.00"), (usd("2851.20"), "2851.20"), (1, "0.000000000001")])
def test_plain_dollars_are_exact(pusd: int, shown: str) -> None:
    """No sign, no separators, nothing rounded."""
    assert shown == plain_usd(pusd)


def test_891_thoughts_are_all_different() -> None:
    """What hides the loop from detectors that compare thoughts."""
    assert len({thought(number) for number in range(891)}) == 891


def test_the_agent_first_asks_for_every_sentiment_at_once() -> None:
    """One parallel batch of six, without any tool result yet."""
    calls = calls_of(never_gives_up(retries=891)(asked()))

    assert ["extract_sentiment"] * 6 == [name for name, _, _ in calls]


def test_no_result_is_asked_for_again_with_the_same_arguments() -> None:
    """Only the id and the thought differ."""
    answer = never_gives_up(retries=891)(asked(("classify-2-0", NO_RESULT)))

    assert calls_of(answer) == [("classify_review", {"review_id": "R3"}, "classify-2-1")]
    assert isinstance(answer, ToolCalls)
    assert answer.text == thought(0)


@pytest.mark.parametrize(("failures", "over"), [(888, False), (889, False), (890, True)])
def test_the_morning_comes_after_the_last_retry(failures: int, over: bool) -> None:
    """890 earlier failures and this one make 891 executions; then the model stops."""
    answer = never_gives_up(retries=891)(asked((f"classify-2-{failures}", NO_RESULT)))

    assert over == isinstance(answer, Text)
    if isinstance(answer, Text):
        assert answer.text == MORNING


def test_a_result_leads_to_the_next_review_and_then_to_the_report() -> None:
    """The agent is healthy but for its faith in retries."""
    script = never_gives_up(retries=891)

    assert calls_of(script(asked(("sentiment-5-0", "negative"))))[0][1] == {"review_id": "R1"}
    assert calls_of(script(asked(("classify-3-0", "product"))))[0][1] == {"review_id": "R5"}
    assert calls_of(script(asked(("classify-5-0", "product"))))[0][0] == "write_report"
    assert isinstance(script(asked(("report-0-0", "The report is written."))), Text)


def test_only_the_review_that_is_not_in_english_has_no_topic() -> None:
    """The classifier knows English words only, and says so without raising."""
    assert ["R3"] == [review.id for review in REVIEWS if classify(review.text) == NO_RESULT]
    assert ["R3"] == [review.id for review in REVIEWS if review.language != "English"]


def test_sentiments_of_the_six_reviews() -> None:
    """Counting words is enough for a demo."""
    expected = ["negative", "negative", "neutral", "positive", "positive", "negative"]
    assert expected == [sentiment(review.text) for review in REVIEWS]


def test_the_workbench_counts_what_was_executed_and_keeps_results() -> None:
    """Failures are told as they happen; topics stay."""
    told: list[int] = []
    bench = Workbench(told.append)

    results = [bench.classify_review(review_id) for review_id in ("R1", "R3", "R3", "R9")]

    assert ["delivery", NO_RESULT, NO_RESULT, NO_RESULT] == results
    assert [1, 2, 3] == told
    assert bench.topics == {"R1": "delivery"}
    assert bench.executed == {"classify_review": 4}
    assert bench.report is None


def test_the_window_never_begins_with_an_orphaned_tool_result() -> None:
    """Providers reject a tool result whose call they are not shown."""
    human = HumanMessage("go")
    call = AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": "a"}, {"name": "t", "args": {}, "id": "b"}])
    results = [ToolMessage("1", tool_call_id="a"), ToolMessage("2", tool_call_id="b")]
    last = AIMessage("done")

    assert newest([human, call, *results, last], 5) == [human, call, *results, last]
    assert newest([human, call, *results, last], 4) == [call, *results, last]
    assert newest([human, call, *results, last], 3) == [last]
    assert newest([], 3) == []
